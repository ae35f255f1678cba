"""What works inside SQLAlchemy's own plain session and connection, the same for both APIs.

Listeners to their events, notes kept on a session, and statements that a function given to
`run_sync` or `run_on_connection` executes. SQLAlchemy runs all of that as plain code in both
worlds, so there is nothing to await and nothing to generate.
"""
