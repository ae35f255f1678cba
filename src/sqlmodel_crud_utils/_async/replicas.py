"""Replicas: tokens for the primary's position, so that reads can require it."""

from __future__ import annotations

from sqlmodel_crud_utils._async._running.operations import Read
from sqlmodel_crud_utils._core.connections.positions import read_after, use_primary
from sqlmodel_crud_utils._runtime_async import AnySession, require_session, run_sync, sync_session
from sqlmodel_crud_utils._session.replica_sessions import token_of

__all__ = ["read_after", "replication_token", "use_primary"]


async def replication_token(session: AnySession) -> str:
    """Return a token for `read_after`: how far the database has progressed, after a commit.

    The token is a short string for a cookie or a header. It identifies the cluster and a position
    in its log, and contains no data. The query uses a connection of its own.

    Args:
        session: A session on PostgreSQL, after its commit.

    Returns:
        The token.

    Raises:
        ValidationError: The session is in a transaction block, which is not committed yet; or it is
            not on PostgreSQL, the only database with such tokens.
        DatabaseConnectionError: The database cannot be reached.

    Example:
        In an application: `response.set_cookie("seen", await replication_token(session))`, and
        for the next request `with read_after(request.cookies.get("seen")):`.

        >>> await replication_token(session)  # on SQLite, which has no replicas
        Traceback (most recent call last):
        sqlmodel_crud_utils.exceptions.ValidationError: ...
    """
    session = require_session(session)
    async with Read(session, None, "replication_token"):
        return await run_sync(session, token_of, sync_session(session))
