"""CRUD, transactions, hooks and queries for SQLModel, for sync and async code alike."""

__version__ = "0.2.0"
