"""Which rows a statement may see: soft deletion, tenancy, and how rows are hidden."""
