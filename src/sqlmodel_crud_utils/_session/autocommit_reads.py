"""Reads that are sent to PostgreSQL without BEGIN and ROLLBACK.

Under READ COMMITTED each statement sees what is committed when it begins, with or without a
transaction. So a read that needs no transaction is sent alone: one round trip instead of three,
and no transaction stays open.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.orm import Session, SessionTransactionOrigin

from sqlmodel_crud_utils._core.connections.engine_settings import EnginePlan
from sqlmodel_crud_utils._core.queries.reading import is_harmless
from sqlmodel_crud_utils._session.blocks import is_inside
from sqlmodel_crud_utils._session.databases import IN_TRANSACTION, level_of

_WANTED = "sqlmodel_crud_utils.autocommit"
_ALONE: Mapping[str, Any] = {_WANTED: True}

NO_OPTIONS: Mapping[str, Any] = {}

# These drivers begin transactions themselves, each with a round trip.
_DRIVERS = ("asyncpg", "psycopg")

# Settings for poolers, which may switch server connections after each transaction. Without a
# transaction, a statement could be prepared on one of them and executed on another.
_FOR_POOLERS = (
    "statement_cache_size",
    "prepared_statement_cache_size",
    "prepared_statement_name_func",
    "prepare_threshold",
)


def may_read_alone(plan: EnginePlan) -> bool:
    """Return whether an engine's reads may be sent without a transaction."""
    settings = {*plan.arguments["connect_args"], *plan.url.query}
    return plan.url.get_driver_name() in _DRIVERS and settings.isdisjoint(_FOR_POOLERS)


def with_autocommit(session: Session, options: Mapping[str, Any] = NO_OPTIONS) -> Mapping[str, Any]:
    """Return options that let a read be sent without a transaction, unless one was begun."""
    transaction = session.get_transaction()
    if (
        is_inside(session)
        # A session on a connection joins the transaction of the connection's owner.
        or not isinstance(session.bind, Engine)
        or (
            transaction is not None and transaction.origin is not SessionTransactionOrigin.AUTOBEGIN
        )
    ):
        return options
    return {**options, **_ALONE} if options else _ALONE


def is_sent_alone(context: Any) -> bool:
    """Return whether a statement that is about to be sent is a read without a transaction."""
    options = context.execution_options
    if _WANTED not in options or context.compiled is None or not is_harmless(context.compiled):
        return False
    connection = context.root_connection
    is_begun = IN_TRANSACTION[connection.dialect.driver]
    return (
        not is_begun(connection.connection.driver_connection)
        and level_of(connection) == "READ COMMITTED"
        # A cursor on the server lives in a transaction.
        and not (options.get("yield_per") or options.get("stream_results"))
    )


@contextmanager
def autocommitting(dbapi_connection: Any) -> Iterator[None]:
    """Keep a connection from beginning a transaction inside.

    After an interruption, SQLAlchemy discards the connection.
    """
    dbapi_connection.autocommit = True
    try:
        yield
    except Exception:
        _begin_again(dbapi_connection)
        raise
    _begin_again(dbapi_connection)


def _begin_again(dbapi_connection: Any) -> None:
    try:
        dbapi_connection.autocommit = False
    except Exception:  # noqa: BLE001 - psycopg refuses it on a lost or busy connection
        dbapi_connection.close()
