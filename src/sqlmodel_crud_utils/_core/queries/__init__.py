"""SELECT statements: by key, filtered, sorted, in pages."""
