"""The tools of the project; `make help` says what they are for."""
