"""The only access to private parts of SQLAlchemy's sessions, transactions, connections and pools.

SQLAlchemy may remove them at any time. Each function is one use; its test names the attribute and
runs with the oldest and the newest version, so a version without it fails with a list of names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import Any, cast

from sqlalchemy import Connection, Dialect, Result
from sqlalchemy.orm import (
    FromStatement,
    InstanceState,
    Mapper,
    ORMExecuteState,
    Session,
    SessionTransaction,
)
from sqlalchemy.orm.attributes import instance_dict, instance_state
from sqlalchemy.orm.mapper import _all_registries
from sqlalchemy.pool import QueuePool, SingletonThreadPool

# --- sessions ------------------------------------------------------------------------------------


def is_clean(session: Session) -> bool:
    """Return whether a flush would have nothing to do, without checking each object."""
    return session._is_clean()


def autoflush(session: Session) -> None:
    """Flush if the session would flush before a query."""
    session._autoflush()


def is_in_context_manager(session: Session) -> bool:
    """Return whether the session is in a `with session.begin()`, which commits on exit."""
    return session._trans_context_manager is not None


@contextmanager
def flushing(session: Session) -> Iterator[None]:
    """Make the session act as if it were flushing."""
    before, session._flushing = session._flushing, True
    try:
        yield
    finally:
        session._flushing = before


@contextmanager
def flush_transaction(session: Session) -> Iterator[None]:
    """Make an error inside end the session's transaction as an error in a flush does."""
    transaction = session._autobegin_t()._begin()
    try:
        yield
        transaction.commit()
    except BaseException:
        transaction.rollback(_capture_exception=True)
        raise


def add_pending(session: Session, states: Iterable[InstanceState[Any]]) -> None:
    """Add new objects to the session, without cascading to related ones."""
    for state in states:
        session._save_impl(state)


def register_persistent(session: Session, states: Iterable[InstanceState[Any]]) -> None:
    """Make pending objects persistent, as after a flush that has written them."""
    session._register_persistent(set(states))


def register_altered(session: Session, states: Iterable[InstanceState[Any]]) -> None:
    """Make the rollback of a savepoint expire objects, as after a flush that has written them."""
    session._register_altered(states)


def adopting(
    session: Session, mapper: Mapper[Any], names: Collection[str]
) -> Callable[[Any, dict[str, Any]], Any]:
    """Return a function that creates persistent objects, as a query does from rows.

    It takes an identity key, which must not be in the session yet, and the columns' values.

    Args:
        session: The session.
        mapper: The mapper of the objects' class.
        names: The attributes that get values.
    """
    manager, identity_map, owner = mapper.class_manager, session.identity_map, session.hash_key
    load = manager.dispatch.load
    # Columns that the query left out load on access; deferred columns do so anyway.
    missing = [
        each.key for each in mapper.column_attrs if each.key not in names and not each.deferred
    ]

    def adopt(key: Any, values: dict[str, Any]) -> Any:
        instance = manager.new_instance()
        state = instance_state(instance)
        state.key = key
        state.session_id = owner
        instance_dict(instance).update(values)
        state.expired_attributes.update(missing)
        identity_map.add(state)
        if load:
            load(state, None)
        return instance

    return adopt


def has_deleted(session: Session) -> bool:
    """Return whether the session's transaction has deleted objects, which a commit detaches."""
    transaction = session.get_nested_transaction() or session.get_transaction()
    return transaction is not None and bool(transaction._deleted)


# --- transactions --------------------------------------------------------------------------------


def begun_connections(transaction: SessionTransaction) -> dict[Any, tuple[Any, ...]]:
    """Return the connections on which a session's transaction has begun, in tuples.

    Each starts with a connection and ends with whether the connection's transaction is the
    session's own.
    """
    return transaction._connections


def rollback_exception(transaction: SessionTransaction) -> BaseException | None:
    """Return the error that ended a transaction in a flush, if any."""
    return transaction._rollback_exception


# --- connections and pools -----------------------------------------------------------------------


def is_autocommitting(connection: Connection) -> bool:
    """Return whether the isolation level of a connection is AUTOCOMMIT."""
    return connection._is_autocommit_isolation()


def innermost_savepoint(connection: Connection) -> str | None:
    """Return the name of the innermost open savepoint."""
    return getattr(connection.get_nested_transaction(), "_savepoint", None)


def record_of(connection: Connection) -> Any:
    """Return the pool's record of a driver connection."""
    proxy: Any = connection.connection
    return proxy._connection_record


def level_on_connect(dialect: Dialect) -> str | None:
    """Return the isolation level that an engine sets on every connection."""
    known: Any = dialect
    found: str | None = known._on_connect_isolation_level
    return found


def forget_types(dialect: Dialect) -> None:
    """Let a dialect work out again how it binds each type."""
    known: Any = dialect
    known._type_memos.clear()


def max_overflow(pool: QueuePool) -> int:
    """Return how many connections a pool may open beyond its size; -1 means no limit."""
    return pool._max_overflow


def connections_of_threads(pool: SingletonThreadPool) -> list[Any]:
    """Return the connections of a pool that keeps one for each thread."""
    return list(pool._all_conns)


def unlock(connection: Any) -> None:
    """Remove the lock around statements from an adapted connection of aiosqlite, if present."""
    with suppress(AttributeError):  # SQLAlchemy 2.0 has no such lock
        connection._execute_mutex = nullcontext()


def close_cursor(result: Result[Any]) -> None:
    """Close the cursor of a result with fetched rows, so that reading them needs no waiting.

    Only asyncio drivers wait for the close, in the greenlet that ran the statement.
    """
    cursor: Any = getattr(getattr(result, "raw", None), "cursor", None)
    if hasattr(cursor, "_async_soft_close"):
        from sqlalchemy.util import await_only

        await_only(cursor._async_soft_close())


# --- objects and mappers -------------------------------------------------------------------------


def path_of(mapper: Mapper[Any]) -> Any:
    """Return the loader path of a query whose entity is the model."""
    return mapper._path_registry


def missing_columns(execution: ORMExecuteState) -> list[str]:
    """Return the columns that a load of missing columns fetches."""
    statement: Any = execution.statement
    wanted = statement._compile_options._only_load_props
    if isinstance(statement, FromStatement):  # of a subclass, for which there is a shorter SELECT
        mapper, shorter = cast("Any", execution.bind_mapper), cast("Any", statement.element)
        names = [mapper.get_property_by_column(each).key for each in shorter.selected_columns]
    else:
        names = [column.key for column in statement.selected_columns]
    return [name for name in names if wanted is None or name in wanted]


def all_mappers() -> Iterator[Mapper[Any]]:
    """Yield the mappers of all registries."""
    for registry in _all_registries():
        yield from registry.mappers


def keep_statements(mapper: Mapper[Any], keep: Callable[..., Any]) -> None:
    """Replace how a mapper memoizes the statements of flushes, one of each kind for a table.

    Args:
        mapper: The base mapper of the table's models.
        keep: Takes the mapper's own memoizing function, the statement's kind and table, and the
            function that builds the statement.
    """
    keeper: Any = mapper
    keeper._memo = partial(keep, keeper._memo)
