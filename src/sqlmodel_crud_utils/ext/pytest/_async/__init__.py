"""How sessions are isolated; `_sync` is generated from this."""
