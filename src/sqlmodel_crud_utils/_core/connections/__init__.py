"""URLs and what an engine is made with."""
