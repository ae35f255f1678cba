"""Benchmarks of the library against hand-written SQLAlchemy."""
