"""Listeners to all mappers, sessions and engines, registered here and nowhere else.

The listeners of mixins are in `model_events`, those of single engines in `engine_events`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Update, event
from sqlalchemy.orm import (
    InstanceState,
    Mapper,
    ORMExecuteState,
    Session,
    SessionTransaction,
)
from sqlalchemy.orm.interfaces import EXT_CONTINUE
from sqlalchemy.sql.functions import FunctionElement

from sqlmodel_crud_utils._core.errors.translation import shared_session
from sqlmodel_crud_utils._core.listeners import own
from sqlmodel_crud_utils._core.memoizing import forget_all
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.models.policies import USUAL, elsewhere
from sqlmodel_crud_utils._core.sqlalchemy_internals import criteria_of, source_of
from sqlmodel_crud_utils._core.visibility.hiding import (
    concerns_callers,
    has_hidden_links,
    hide_anywhere,
    hide_in_refresh,
    hide_in_tables,
    hiding_of,
)
from sqlmodel_crud_utils._core.visibility.tenancy import has_tenant_models
from sqlmodel_crud_utils._session import (
    blocks,
    cached_rows,
    changes,
    commit_callbacks,
    lazy_loads,
    sent_statements,
    sharing,
    snapshots,
    sole_use,
    tenant_of_session,
    transaction_state,
)
from sqlmodel_crud_utils._session.databases import cast_addresses
from sqlmodel_crud_utils._session.replica_sessions import RoutedSession
from sqlmodel_crud_utils._session.state import forget
from sqlmodel_crud_utils._session.transaction_state import may_be_committed, sending_commit
from sqlmodel_crud_utils.exceptions import ValidationError


@own
def _on_execute(execution: ORMExecuteState) -> None:
    hiding = hiding_of(execution.user_defined_options)
    if isinstance(execution.statement, FunctionElement):
        execution.statement = execution.statement.select()  # as a connection executes it
    if has_tenant_models():
        tenant_of_session.check_statement(execution, hiding)
    if hiding is None:
        _check_reach(execution)
        execution.statement = hide_anywhere(execution.statement, elsewhere())
    if execution.is_column_load:
        execution.statement = hide_in_refresh(execution.statement, elsewhere())
    elif hiding is not None and execution.is_relationship_load:
        execution.statement = hide_in_tables(execution.statement, hiding.payload)


def _check_reach(execution: ORMExecuteState) -> None:
    """Refuse the ORM's bulk UPDATE by primary key, to which no criterion can be added."""
    statement, mapper = source_of(execution.statement), execution.bind_mapper
    if (
        isinstance(statement, Update)
        and isinstance(execution.parameters, list)
        and execution.is_orm_statement
        and mapper is not None
        and not criteria_of(statement)
        and facts_of(mapper.class_).policies_in(elsewhere())
    ):
        name = mapper.class_.__name__
        raise ValidationError(
            f"an update of {name} rows by key cannot be limited to the rows of one tenant; "
            "use bulk_update_rows, or an update() with where()",
            field="statement",
        )


@event.listens_for(Mapper, "after_configured")
def _on_configured() -> None:
    forget_all()
    listen_where_needed()


def listen_where_needed() -> None:
    """Listen to the statements of sessions if a policy applies to some of them.

    Programs without such a policy, and without a link table under one, pay for no listener.
    """
    needed = concerns_callers() or has_hidden_links(USUAL)
    if needed and not event.contains(Session, "do_orm_execute", _on_execute):
        event.listen(Session, "do_orm_execute", _on_execute, insert=True)
    if has_tenant_models() and not event.contains(Session, "before_flush", _on_flushing):
        event.listen(Session, "before_flush", _on_flushing)


@own
def _on_flushing(session: Session, *_: Any) -> None:
    tenant_of_session.check_flush(session)


def listen_to_loads() -> None:
    """Listen to lazy loads; a program without strict sessions pays for no listener."""
    if not event.contains(Session, "do_orm_execute", _on_load):
        event.listen(Session, "do_orm_execute", _on_load)


@own
def _on_load(execution: ORMExecuteState) -> None:
    if execution.is_relationship_load or execution.is_column_load:
        lazy_loads.check_load(execution)


def listen_to_shared_reads() -> None:
    """Listen to the reads of shared sessions; a program without one pays for no listener."""
    if not event.contains(Session, "do_orm_execute", _on_shared_read):
        event.listen(Session, "do_orm_execute", _on_shared_read)


@own
def _on_shared_read(execution: ORMExecuteState) -> Any:
    return sharing.execute_in_shared_read(execution)


# --- transactions --------------------------------------------------------------------------------

# On the class `Session`: listeners on each session would cost more than the rest of a block.


@event.listens_for(Session, "after_begin")
def _on_begin(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    cast_addresses(connection.dialect)
    sole_use.begun(session, connection)
    blocks.begun(session, transaction, connection)


@event.listens_for(Session, "before_commit")
@own
def _before_commit(session: Session) -> None:
    # Others may send statements after this commit; an interrupted transaction has lost a part.
    if sole_use.is_used_by_others(session) or sole_use.is_interrupted(session):
        raise shared_session()


# Before the caller's listeners: one that fails would hide the commit.
@event.listens_for(Session, "after_commit", insert=True)
def _on_commit(session: Session) -> None:
    # SQLAlchemy also fires this event for released savepoints.
    transaction_state.committed(session)
    blocks.committed(session)
    commit_callbacks.committed(session, session.get_nested_transaction())


@event.listens_for(Session, "after_transaction_end")
def _on_end(session: Session, transaction: SessionTransaction) -> None:
    sole_use.ended(session, transaction)
    blocks.ended(session, transaction)
    commit_callbacks.ended(session, transaction)


@event.listens_for(Session, "before_flush")
@own
def _before_any_flush(session: Session, *_: Any) -> None:
    if sole_use.is_used_by_others(session):  # it would write their pending changes
        raise shared_session()
    forget(session, "claims")


@event.listens_for(Engine, "savepoint")
def _on_savepoint(connection: Connection, _name: str) -> None:
    blocks.before_savepoint(connection)


event.listen(Engine, "rollback", sole_use.rolling_back)
event.listen(Engine, "rollback_twophase", sole_use.rolling_back)

# Statements are interrupted outside blocks, too.
event.listen(Engine, "handle_error", blocks.refused)


# --- replicas ------------------------------------------------------------------------------------


@event.listens_for(RoutedSession, "do_orm_execute")
@own
def _on_routed(execution: ORMExecuteState) -> Any:
    session: Any = execution.session
    return session.route(execution)


@event.listens_for(RoutedSession, "before_flush")
@own
def _stay_with_primary(session: Any, *_: Any) -> None:
    session.stay_with_primary()


@event.listens_for(RoutedSession, "before_commit")
def _leave_replica(session: Any) -> None:
    if not session.in_nested_transaction():
        session.leave_replica()


# --- statements ----------------------------------------------------------------------------------


@contextmanager
def listening_to_statements(listener: sent_statements.Listener) -> Iterator[None]:
    """Call a listener with each statement sent inside the block, by any engine and thread."""
    if not event.contains(Engine, "before_cursor_execute", _on_statement):
        event.listen(Engine, "before_cursor_execute", _on_statement)
    sent_statements.add(listener)
    try:
        yield
    finally:
        sent_statements.remove(listener)


@own
def _on_statement(_connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
    sent_statements.notify(statement)


# --- changes -------------------------------------------------------------------------------------


def subscribe(subscriber: changes.Subscriber) -> None:
    """Add a subscriber to changes; a program without subscribers pays for no listener."""
    if not changes.subscribers:
        for target, name, listener in _CHANGES:
            # Otherwise SQLAlchemy would wrap a listener for mappers. The shortcuts would not
            # recognize the wrapper as the library's, and would not be taken.
            plainly = {"raw": True, "retval": True} if target is Mapper else {}
            event.listen(target, name, listener, **plainly)
    changes.subscribers.append(subscriber)


def unsubscribe(subscriber: changes.Subscriber) -> None:
    """Remove a subscriber."""
    changes.subscribers.remove(subscriber)
    if not changes.subscribers:
        for target, name, listener in _CHANGES:
            event.remove(target, name, listener)


@own
def _before_flush(session: Session, _context: Any, _instances: Any) -> None:
    changes.flushing(session)


@own
def _before_row(_mapper: Mapper[Any], _connection: Any, state: InstanceState[Any]) -> Any:
    changes.flushing_row(state)
    return EXT_CONTINUE


@own
def _on_flush(session: Session, context: Any) -> None:
    changes.flushed(session, context)


@own
def _on_write(execution: ORMExecuteState) -> Any:
    return changes.executed(execution)


@own
def _notify_on_commit(session: Session) -> None:
    pending = changes.pending_of(session)
    if pending is None:
        return
    savepoint = session.get_nested_transaction()
    if savepoint is None:
        changes.notify_committed(session)
    else:  # SQLAlchemy also fires this event for released savepoints
        pending.release(savepoint)


@own
def _drop_on_end(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None and (tables := snapshots.take_committed(transaction)):
        changes.notify_of_tables(transaction, tables)
    pending = changes.pending_of(session)
    if pending is None:
        return
    if transaction.parent is None and may_be_committed(transaction):
        changes.notify_uncertain(session, transaction)
    pending.drop(transaction)


_CHANGES: tuple[tuple[Any, str, Any], ...] = (
    (Session, "before_flush", _before_flush),
    (Mapper, "before_update", _before_row),
    (Mapper, "before_delete", _before_row),
    (Session, "after_flush", _on_flush),
    (Session, "do_orm_execute", _on_write),
    (Session, "after_commit", _notify_on_commit),
    (Session, "after_transaction_end", _drop_on_end),
    (Engine, "commit", sending_commit),
    (Engine, "commit_twophase", sending_commit),
)


# --- rows from a cache ---------------------------------------------------------------------------


def listen_to_cached_rows() -> None:
    """Register the listeners that rows from a cache need; programs without one pay nothing."""
    for target, name, listener, how in _CACHED_ROWS:
        if not event.contains(target, name, listener):
            event.listen(target, name, listener, **how)


def ignore_cached_rows() -> None:
    """Remove the listeners for rows from a cache."""
    for target, name, listener, _ in _CACHED_ROWS:
        if event.contains(target, name, listener):
            event.remove(target, name, listener)


@own
def _refuse_cached(session: Session, *_: Any) -> None:
    cached_rows.check_flush(session)


_CACHED_ROWS: tuple[tuple[Any, str, Any, dict[str, bool]], ...] = (
    (Session, "before_flush", _refuse_cached, {}),
    (Mapper, "refresh", cached_rows.refreshed, {"raw": True}),
    (Engine, "before_cursor_execute", snapshots.executing, {}),
    (Engine, "commit", snapshots.committing, {}),
    (Engine, "commit_twophase", snapshots.committing, {}),
    (Engine, "rollback", snapshots.rolled_back, {}),
    (Engine, "rollback_savepoint", snapshots.rolled_back, {}),
    (Engine, "rollback_twophase", snapshots.rolled_back, {}),
)
