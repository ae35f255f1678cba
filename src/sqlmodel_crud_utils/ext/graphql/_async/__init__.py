"""The parts for GraphQL that query the database; the sync twin is generated."""
