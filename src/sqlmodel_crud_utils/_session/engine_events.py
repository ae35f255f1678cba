"""Listeners to single engines, registered here and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, event

from sqlmodel_crud_utils._core.connections.engine_settings import EnginePlan
from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._session import (
    engine_setup,
    liveness,
    open_streams,
    pool_requests,
    row_security_engines,
)
from sqlmodel_crud_utils._session.databases import IN_TRANSACTION


def prepare_engine(
    engine: Engine, plan: EnginePlan, ask: Callable[[Callable[[], Any]], Any]
) -> None:
    """Set up every connection that the engine makes.

    Args:
        engine: The engine that connects.
        plan: The engine's settings.
        ask: Calls the user's password function during a connection attempt.
    """
    if features_of(engine.dialect).has_pragmas:
        event.listen(engine, "connect", engine_setup.pragmas_of(plan))
    if plan.password is not None:
        supply_password = engine_setup.password_of(plan.password, engine.dialect, ask)
        event.listen(engine, "do_connect", supply_password)


def replace_dead_connections(
    engine: Engine, ping_after: float, *, autocommit_reads: bool = False
) -> None:
    """Make an engine replace connections that died before they were used.

    Args:
        engine: The engine; SQLite's is left alone, as its connections don't die.
        ping_after: After how many idle seconds a connection is pinged before it is used.
        autocommit_reads: Whether to send reads without a transaction where possible.
    """
    dialect = engine.dialect
    if not features_of(dialect).has_server:
        return
    if ping_after < math.inf:
        event.listen(engine, "checkin", liveness.mark_idle)
        event.listen(engine, "checkout", liveness.pinged_after(ping_after, dialect))
    event.listen(engine, "handle_error", liveness.detect_loss)
    liveness.tolerate_lost_connections(dialect)
    if dialect.driver in IN_TRANSACTION:
        # Set at checkout, because statements that set up a new connection do not count.
        event.listen(engine, "checkout", liveness.mark_unused)
        event.listen(engine, "checkin", liveness.mark_used)
        for name, send in liveness.senders(dialect, autocommit_reads).items():
            event.listen(engine, name, send)


def secure_rows(engine: Engine) -> None:
    """Make an engine tell its database the tenant, and refuse a role that bypasses row security."""
    event.listen(engine, "connect", row_security_engines.roles_checked(engine.dialect))
    event.listen(engine, "begin", row_security_engines.begun)
    event.listen(engine, "begin_twophase", row_security_engines.begun)
    event.listen(engine, "before_cursor_execute", row_security_engines.executing)


def close_streams(engine: Engine) -> None:
    """Close abandoned results when their connection is next used."""
    if not event.contains(engine, "before_cursor_execute", open_streams.executing):
        event.listen(engine, "before_cursor_execute", open_streams.executing)
        event.listen(engine, "commit", open_streams.close_all)
        event.listen(engine, "rollback", open_streams.close_all)


def requests_of(engine: Engine) -> pool_requests.Requests:
    """Return the count of an engine's connection requests; it starts with the first call."""
    requests, is_new = pool_requests.counted(engine)
    if is_new:
        event.listen(engine, "engine_disposed", pool_requests.renewed)
    return requests
