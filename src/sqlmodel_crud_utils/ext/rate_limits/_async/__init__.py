"""Buckets in Redis; `_sync` is generated from here."""
