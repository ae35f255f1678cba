"""The reads that go through the cache: the source of both APIs."""
