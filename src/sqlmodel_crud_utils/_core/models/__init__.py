"""Facts about mapped models: columns, relationships, keys, unique values, policies."""
