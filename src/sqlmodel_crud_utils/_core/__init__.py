"""The pure core: no I/O, nothing that awaits; both API trees build on it."""
