"""What queries the database for GraphQL; the sync twin is generated."""
