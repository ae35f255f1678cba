"""Refusals that only the sync API needs."""
