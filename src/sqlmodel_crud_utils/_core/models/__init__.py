"""What a mapping says: columns, relationships, keys, unique values."""
