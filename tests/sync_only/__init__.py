"""What only the sync API has to refuse."""
