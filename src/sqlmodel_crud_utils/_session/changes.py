"""Changes: each write through a session is reported here and passed on to subscribers.

Flushes, the library's own statements and the caller's UPDATE, DELETE and INSERT statements are
reported after they ran and before the commit. A subscriber (`_session.events.subscribe`) says how
much it needs to know; without subscribers, a write costs one truth test. `text()` is reported only
as a statement that may have written anything. Statements on `session.connection()`, the database's
own cascades and other programs are not seen.
"""

from __future__ import annotations

from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from enum import IntEnum
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

from sqlalchemy import ColumnElement, Connection, Delete, FromClause, Insert, TextClause, Update
from sqlalchemy.orm import InstanceState, ORMExecuteState, Session, SessionTransaction
from sqlalchemy.orm.attributes import instance_state

from sqlmodel_crud_utils._core.chunks import chunked
from sqlmodel_crud_utils._core.memoizing import cached
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.queries.keys import Key, among_keys, has_key, longest_key_list
from sqlmodel_crud_utils._core.sqlalchemy_internals import source_of
from sqlmodel_crud_utils._core.writes.table_writes import WriteKind, is_plain, table_writes
from sqlmodel_crud_utils._session.links import links_of
from sqlmodel_crud_utils._session.savepoints import (
    PerSavepoint,
    innermost_transaction,
    is_within,
)
from sqlmodel_crud_utils._session.sqlalchemy_internals import all_mappers
from sqlmodel_crud_utils._session.state import forget, noted, state_of
from sqlmodel_crud_utils._session.transaction_state import connections_in, connections_of
from sqlmodel_crud_utils._session.witnessing import (
    inserted,
    keys_among,
    keys_to_write,
    narrowed,
)
from sqlmodel_crud_utils.exceptions import ValidationError

_REPORTED = "sqlmodel_crud_utils_reported"

REPORTED: Mapping[str, Any] = {_REPORTED: True}
"""The execution option of a statement whose caller reports the change itself."""


class Need(IntEnum):
    """How much a subscriber needs to know; the more it is, the more a set-based write costs."""

    NOTHING = 0
    MODEL = 1  # the model whose rows were written; the keys only if they are known anyway
    KEYS = 2  # which rows were written
    ROWS = 3  # and the values written to each of them
    BEFORE = 4  # and which rows a write may reach, before it runs


class Change(NamedTuple):
    """One or many rows of a model that were written.

    Attributes:
        model: The table model.
        operation: What happened to the rows. A soft deletion is an update.
        keys: The primary keys that the rows had before the write; None if they are unknown.
        values: For each key the written values by field name, all columns for a new row; None if
            they are unknown.
    """

    model: type[Any]
    operation: WriteKind
    keys: Sequence[Key] | None = None
    values: Sequence[Mapping[str, Any]] | None = None


class TableChange(NamedTuple):
    """Rows written to a table without a model, such as links of a many-to-many relationship.

    Attributes:
        table: The table; None if SQL text may have written to any.
    """

    table: FromClause | None


class Subscriber(Protocol):
    """A receiver of changes."""

    def need(self, model: type[Any]) -> Need:
        """Return how much the subscriber needs to know about a model's rows."""
        ...

    def written(self, session: Session, change: Change) -> None:
        """Receive a change, inside its transaction; an exception undoes the write."""
        ...

    def committed(self, session: Session, changes: Sequence[Change]) -> None:
        """Receive all changes of a committed transaction, in order.

        The session is about to end the transaction and cannot query.
        """
        ...


@runtime_checkable
class TableSubscriber(Subscriber, Protocol):
    """A subscriber that also receives changes of tables without a model."""

    def tables_written(
        self, connections: Collection[Connection], changes: Sequence[Change | TableChange]
    ) -> None:
        """Receive all changes of a committed transaction; called instead of `committed`.

        It is also called if a COMMIT was sent and its outcome is unknown.
        """
        ...


class Witness(Subscriber, Protocol):
    """A subscriber that reads rows before they are written; it needs `Need.BEFORE`."""

    def recording(
        self,
        session: Session,
        model: type[Any],
        statement: Update | Delete,
        criteria: Sequence[ColumnElement[bool]],
    ) -> Recording | None:
        """Return a function that records a set-based write, or None if its rows must be read."""
        ...

    def writing(
        self, session: Session, model: type[Any], criteria: Sequence[ColumnElement[bool]]
    ) -> None:
        """Learn, inside the transaction, that the next write may reach rows that match."""
        ...


Recording = Callable[[], int | None]
"""Records a write; returns how many rows were seen, or None if no other writer can intervene."""

subscribers: list[Subscriber] = []


def need_of(model: type[Any]) -> Need:
    """Return the largest need of any subscriber for a model's rows."""
    return max((each.need(model) for each in subscribers), default=Need.NOTHING)


def recording_of(
    session: Session,
    model: type[Any],
    statement: Update | Delete,
    criteria: Sequence[ColumnElement[bool]],
) -> Recording | None:
    """Return a function that records a set-based write, or None if its rows must be read."""
    needing = [each for each in subscribers if each.need(model) >= Need.KEYS]
    if len(needing) > 1:
        return None
    return cast("Witness", needing[0]).recording(session, model, statement, criteria)


def announce(session: Session, model: type[Any], criteria: Sequence[ColumnElement[bool]]) -> None:
    """Pass the criteria of a write that is about to run to the witnesses."""
    for each in subscribers:
        if each.need(model) >= Need.BEFORE:
            cast("Witness", each).writing(session, model, criteria)


def announce_keys(session: Session, model: type[Any], keys: Sequence[Key]) -> None:
    """Pass the keys of the rows that a write may reach to the witnesses."""
    facts = facts_of(model)
    if len(keys) == 1:
        announce(session, model, has_key(facts, keys[0]))
        return
    dialect = session.get_bind(facts.mapper).dialect
    for chunk in chunked(keys, longest_key_list(model, facts.key, dialect)):
        announce(session, model, [among_keys(model, facts.key, chunk, dialect)])


def report(session: Session, change: Change) -> None:
    """Report to subscribers that rows were written."""
    state = state_of(session)
    owner = innermost_transaction(session)
    for each in subscribers:
        need = each.need(change.model)
        if Need.NOTHING < need < Need.BEFORE:  # a witness needs no second call at the commit
            state.changes = state.changes or PerSavepoint()
            state.changes.add(owner, (each, change))
        if need:
            each.written(session, change)


def report_tables(session: Session, *tables: FromClause | None) -> None:
    """Report to subscribers that rows of tables without a model were written."""
    owner = innermost_transaction(session)
    for each in subscribers:
        if isinstance(each, TableSubscriber):
            state = state_of(session)
            state.changes = state.changes or PerSavepoint()
            for table in tables:
                state.changes.add(owner, (each, TableChange(table)))


def pending_of(
    session: Session,
) -> PerSavepoint[tuple[Subscriber, Change | TableChange]] | None:
    """Return the session's uncommitted changes, or None."""
    return noted(session).changes


def notify_committed(session: Session) -> None:
    """Pass on the changes of a transaction that was committed."""
    pending = noted(session).changes
    forget(session, "changes")
    told = [] if pending is None else pending.take()
    for each in subscribers:
        found = [change for subscriber, change in told if subscriber is each]
        if found and isinstance(each, TableSubscriber):
            each.tables_written(connections_of(session), found)
        elif found:
            each.committed(session, [change for change in found if isinstance(change, Change)])


def notify_uncertain(session: Session, transaction: SessionTransaction) -> None:
    """Pass on the changes of an ended transaction whose COMMIT failed but may have taken effect."""
    told = [thing for owner, thing in noted(session).changes or () if is_within(owner, transaction)]
    for each in subscribers:
        found = [change for subscriber, change in told if subscriber is each]
        if found and isinstance(each, TableSubscriber):
            each.tables_written(connections_in(transaction), found)


def notify_of_tables(transaction: SessionTransaction, tables: Iterable[FromClause]) -> None:
    """Report tables that were written although their transaction was rolled back."""
    told: list[Change | TableChange] = [TableChange(table) for table in tables]
    told += [Change(model, "update") for table in tables for model in _models_of(table)]
    for each in subscribers:
        if isinstance(each, TableSubscriber):
            each.tables_written(connections_in(transaction), told)


# --- flushes -------------------------------------------------------------------------------------


def flushing(session: Session) -> None:
    """Announce the rows that a flush will write, as far as they are known beforehand."""
    changed = (each for each in session.dirty if session.is_modified(each))
    states = map(instance_state, [*changed, *session.deleted])
    waiting = [each for each in states if need_of(each.class_) >= Need.BEFORE]
    state_of(session).announced = set(waiting)
    for model, group in _by_model(waiting).items():
        announce_keys(session, model, list(map(_identity, group)))
    persistent = [(instance_state(each), False) for each in session.dirty]
    persistent += [(instance_state(each), True) for each in session.deleted]
    for model, links in links_of(persistent, _witnessed_of).items():
        announce_keys(session, model, list(links.removed))


def flushing_row(state: InstanceState[Any]) -> None:
    """Announce a row found only during the flush: an orphan, or a row that referred to one."""
    session = state.session
    if (
        session is not None
        and need_of(state.class_) >= Need.BEFORE
        and state not in (noted(session).announced or ())
    ):
        announce_keys(session, state.class_, [_identity(state)])


def flushed(session: Session, context: Any) -> None:
    """Report what a flush has written."""
    forget(session, "announced")
    # Deletions come first: a new row may replace a deleted one.
    written: dict[WriteKind, list[InstanceState[Any]]] = {"delete": [], "update": [], "create": []}
    replacing = _replacing(context.states)
    for state, (is_deleted, listed_only) in list(context.states.items()):
        if not listed_only and need_of(state.class_) and state not in replacing:
            written[_operation_of(state, is_deleted)].append(state)
    for operation, states in written.items():
        for model, group in _by_model(states).items():
            for change in _of_states(model, operation, group):
                report(session, change)
    for model, group in _by_model(replacing).items():
        report(session, Change(model, "update", list(map(_key_of, group))))
    report_tables(session, *_links_written(context.states))
    flushed_now = [(state, gone) for state, (gone, listed) in context.states.items() if not listed]
    for model, links in links_of(flushed_now, _witnessed_of).items():
        if links.removed:
            report(session, Change(model, "delete", list(links.removed)))
        if links.added:
            report(session, Change(model, "create", list(links.added)))


def _witnessed_of(table: FromClause) -> list[type[Any]]:
    """Return the models of a link table whose rows a witness reads before they are written."""
    return [model for model in _models_of(table) if need_of(model) >= Need.BEFORE]


def _replacing(
    states: Mapping[InstanceState[Any], tuple[bool, bool]],
) -> Collection[InstanceState[Any]]:
    """Return the new objects that take the keys of deleted ones, for which a flush updates rows."""
    kept = {state.key for state, flags in states.items() if flags == _KEPT}
    new = [state for state in states if state.key is None] if kept else ()
    return {state for state in new if state.mapper.identity_key_from_instance(state.obj()) in kept}


_KEPT = (True, True)  # to be deleted, but with nothing to do


def _links_written(states: Mapping[InstanceState[Any], tuple[bool, bool]]) -> set[FromClause]:
    """Return the link tables that a flush may have written to."""
    return {
        link for state, (is_deleted, _) in states.items() for link in _links_of(state, is_deleted)
    }


def _links_of(state: InstanceState[Any], is_deleted: bool) -> Iterator[FromClause]:
    for relationship in state.mapper.relationships:
        link = relationship.secondary
        if link is None or relationship.viewonly:
            continue
        if is_deleted or state.attrs[relationship.key].history.has_changes():
            yield link


def _by_model(
    states: Iterable[InstanceState[Any]],
) -> Mapping[type[Any], list[InstanceState[Any]]]:
    found: dict[type[Any], list[InstanceState[Any]]] = {}
    for state in states:
        found.setdefault(state.class_, []).append(state)
    return found


def _operation_of(state: InstanceState[Any], is_deleted: bool) -> WriteKind:
    if is_deleted:
        return "delete"
    return "create" if state.key is None else "update"


def _of_states(
    model: type[Any], operation: WriteKind, states: Sequence[InstanceState[Any]]
) -> Iterator[Change]:
    if operation == "delete":
        yield Change(model, operation, list(map(_identity, states)))
        return
    facts = facts_of(model)
    # Read only what a subscriber needs: reading may take a query.
    told = facts.columns if need_of(model) >= Need.ROWS else facts.key
    if operation == "create":
        rows = [(_key_of(state), _values(state, told)) for state in states]
    else:
        written = ((state, _written_names(state)) for state in states)
        rows = [
            (_identity(state), _values(state, [name for name in names if name in told]))
            for state, names in written
            if names
        ]
    if rows:
        yield Change(model, operation, [key for key, _ in rows], [values for _, values in rows])


def _identity(state: InstanceState[Any]) -> Key:
    return tuple(state.identity or ())


def _key_of(state: InstanceState[Any]) -> Key:
    return tuple(state.mapper.primary_key_from_instance(state.obj()))


def _written_names(state: InstanceState[Any]) -> list[str]:
    """Return the columns that the flush's UPDATE has set, including on-update values."""
    changed = {name for name in state.committed_state if state.attrs[name].history.has_changes()}
    changed |= state.expired_attributes  # columns set to SQL are among them
    facts = facts_of(state.class_)
    if changed.isdisjoint(facts.columns):
        return []
    changed |= {*facts.updated_always}
    return [name for name in facts.columns if name in changed]


def _values(state: InstanceState[Any], names: Iterable[str]) -> dict[str, Any]:
    # This loads values that the database generated.
    row = state.obj()
    return {name: getattr(row, name) for name in names}


# --- the caller's statements ---------------------------------------------------------------------


def is_reported(execution: ORMExecuteState) -> bool:
    """Return whether a statement is the library's, which reports its change itself."""
    return bool(execution.execution_options.get(_REPORTED))


def executed(execution: ORMExecuteState) -> Any:
    """Run a statement that writes, and report the models whose rows it wrote."""
    session, statement = execution.session, source_of(execution.statement)
    if is_reported(execution):
        return None
    if isinstance(statement, TextClause):
        report_tables(session, None)
    writes = table_writes(statement)
    report_tables(session, *(table for table, _ in writes if not _models_of(table)))
    changes = [
        Change(model, kind)
        for table, kind in writes
        for model in _models_of(table)
        if need_of(model)
    ]
    if not changes:
        return None
    if watched := [each.model for each in changes if need_of(each.model) >= Need.BEFORE]:
        # The base of the models that share a table: they all have its key.
        return _witnessed(execution, min(watched, key=lambda model: len(model.__mro__)))
    result = execution.invoke_statement()
    for change in changes:
        report(session, change)
    return result


def _witnessed(execution: ORMExecuteState, model: type[Any]) -> Any:
    session, facts = execution.session, facts_of(model)
    if not is_plain(execution.statement, facts.mapper.tables):
        raise ValidationError(
            f"{model.__name__} rows have a history, which cannot follow this statement: name the "
            "model itself, not an alias, and write to one table with each statement, outside "
            "from_statement(), lambdas and CTEs, without REPLACE",
            field="statement",
        )
    if isinstance(execution.statement, Insert):
        result, keys = inserted(execution, facts)
        report(session, Change(model, "create", keys))
        return result
    keys = keys_to_write(execution, facts)
    announce_keys(session, model, keys)
    result = execution.invoke_statement(statement=narrowed(execution, facts, keys))
    operation: WriteKind = "delete" if isinstance(execution.statement, Delete) else "update"
    if operation == "delete":
        left = set(keys_among(session, facts, keys))
        keys = [key for key in keys if key not in left]
    report(session, Change(model, operation, keys))
    return result


@cached
def _models_of(table: FromClause) -> tuple[type[Any], ...]:
    """Return the models of a table, which a caller may also name with `table()` or reflect."""
    found = [mapper for mapper in all_mappers() if table in mapper.tables]
    if not found:
        found = [mapper for mapper in all_mappers() if str(table) in map(str, mapper.tables)]
    return tuple(mapper.class_ for mapper in found)
