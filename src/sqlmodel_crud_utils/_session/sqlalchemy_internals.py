"""The one door to private parts of SQLAlchemy's sessions, transactions, connections and pools.

Nobody promises that they stay. Each function is one use; its test names the attribute and runs with
the oldest and the newest version, so that a version without it fails with a list of names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import Any

from sqlalchemy import Connection, Dialect, Result
from sqlalchemy.orm import (
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
    """Return whether a flush would have nothing to do, without a look at each object."""
    return session._is_clean()


def autoflush(session: Session) -> None:
    """Flush where the session flushes before a query."""
    session._autoflush()


def is_in_context_manager(session: Session) -> bool:
    """Return whether the session is in a `with session.begin()`, which commits at its exit."""
    return session._trans_context_manager is not None


@contextmanager
def flushing(session: Session) -> Iterator[None]:
    """Let the session believe that it flushes."""
    before, session._flushing = session._flushing, True
    try:
        yield
    finally:
        session._flushing = before


@contextmanager
def flush_transaction(session: Session) -> Iterator[None]:
    """Let a refusal inside end the transaction of the session as the one of a flush does."""
    transaction = session._autobegin_t()._begin()
    try:
        yield
        transaction.commit()
    except BaseException:
        transaction.rollback(_capture_exception=True)
        raise


def add_pending(session: Session, states: Iterable[InstanceState[Any]]) -> None:
    """Add new objects to the session, without those that hang on them."""
    for state in states:
        session._save_impl(state)


def register_persistent(session: Session, states: Iterable[InstanceState[Any]]) -> None:
    """Make pending objects persistent, as a flush does that has written them."""
    session._register_persistent(set(states))


def register_altered(session: Session, states: Iterable[InstanceState[Any]]) -> None:
    """Let the rollback of a savepoint expire objects, as after a flush that has written them."""
    session._register_altered(states)


def adopting(
    session: Session, mapper: Mapper[Any], names: Collection[str]
) -> Callable[[Any, dict[str, Any]], Any]:
    """Return what makes persistent objects of a session, as a query makes them from rows.

    It gets an identity key, of which the session holds no object, and the values of columns.

    Args:
        session: The session.
        mapper: The mapper of the objects' class.
        names: The attributes that get values.
    """
    manager, identity_map, owner = mapper.class_manager, session.identity_map, session.hash_key
    load = manager.dispatch.load
    # What the query left out is loaded when it is looked at; what is deferred is so by itself.
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


# --- transactions --------------------------------------------------------------------------------


def begun_connections(transaction: SessionTransaction) -> dict[Any, tuple[Any, ...]]:
    """Return what a session's transaction has begun on: tuples that start with a connection.

    Whether the transaction of the connection is the session's own is last in a tuple.
    """
    return transaction._connections


def rollback_exception(transaction: SessionTransaction) -> BaseException | None:
    """Return what ended a transaction in a flush, if anything did."""
    return transaction._rollback_exception


# --- connections and pools -----------------------------------------------------------------------


def is_autocommitting(connection: Connection) -> bool:
    """Return whether the isolation level of a connection is AUTOCOMMIT."""
    return connection._is_autocommit_isolation()


def innermost_savepoint(connection: Connection) -> str | None:
    """Return the name of the savepoint that was set last and has not ended."""
    return getattr(connection.get_nested_transaction(), "_savepoint", None)


def record_of(connection: Connection) -> Any:
    """Return what the pool keeps beside a connection of the driver."""
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
    """Return how many connections a pool may have beyond its size; -1 is any number."""
    return pool._max_overflow


def connections_of_threads(pool: SingletonThreadPool) -> list[Any]:
    """Return the connections of a pool that has one for each thread."""
    return list(pool._all_conns)


def unlock(connection: Any) -> None:
    """Take the lock around statements from an adapted connection of aiosqlite, if it has one."""
    with suppress(AttributeError):  # 2.0 has none
        connection._execute_mutex = nullcontext()


def close_cursor(result: Result[Any]) -> None:
    """Close the cursor of a result whose rows are fetched; reading them waits for nothing then.

    Only drivers of asyncio wait for it, in the greenlet that the statement ran in.
    """
    cursor: Any = getattr(getattr(result, "raw", None), "cursor", None)
    if hasattr(cursor, "_async_soft_close"):
        from sqlalchemy.util import await_only

        await_only(cursor._async_soft_close())


# --- objects and mappers -------------------------------------------------------------------------


def path_of(mapper: Mapper[Any]) -> Any:
    """Return the path of a query that loads rows of a model by itself."""
    return mapper._path_registry


def missing_columns(execution: ORMExecuteState) -> list[str]:
    """Return the columns that a load of more columns of a row is for."""
    statement: Any = execution.statement
    names = [column.key for column in statement.selected_columns]
    wanted = statement._compile_options._only_load_props
    return [name for name in names if wanted is None or name in wanted]


def all_mappers() -> Iterator[Mapper[Any]]:
    """Yield the mappers of all registries."""
    for registry in _all_registries():
        yield from registry.mappers


def keep_statements(mapper: Mapper[Any], keep: Callable[..., Any]) -> None:
    """Let a function keep the statements of flushes, which SQLAlchemy makes once for each table.

    Args:
        mapper: The base mapper of the table's models.
        keep: It gets the usual way to keep one, its kind and table, and what makes it.
    """
    keeper: Any = mapper
    keeper._memo = partial(keep, keeper._memo)
