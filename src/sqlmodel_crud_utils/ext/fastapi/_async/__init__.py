"""What routes do with the database."""
