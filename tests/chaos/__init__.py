"""Behaviour while servers, connections and tasks are killed; run by `make chaos`."""
