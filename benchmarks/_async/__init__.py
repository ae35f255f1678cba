"""The cases, written once."""
