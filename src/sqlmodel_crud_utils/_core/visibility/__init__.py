"""Which rows a statement may see: soft deletion, and how a statement leaves rows out."""
