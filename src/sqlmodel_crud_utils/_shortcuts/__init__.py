"""Writes past the unit of work, where the outcome is the same."""
