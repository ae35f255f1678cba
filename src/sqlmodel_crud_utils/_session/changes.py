"""What was written: the one place that hears of every write.

Whatever writes through a session says so here, after it is done and before the commit: flushes, the
library's statements past them, and the caller's own UPDATE, DELETE and INSERT statements. Who wants
to know subscribes (`_session.events.subscribe`) and says how much; as long as nobody does, a write
costs one truth test. Of `text()` no more is heard than that it may have written anything;
`session.connection()`, the database's own cascades and other programs are not heard.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any, Literal, NamedTuple, Protocol, cast, runtime_checkable

from sqlalchemy import ColumnElement, Connection, Delete, FromClause, Insert, TextClause, Update
from sqlalchemy.orm import InstanceState, ORMExecuteState, Session, SessionTransaction
from sqlalchemy.orm.attributes import instance_state

from sqlmodel_crud_utils._core.chunks import chunked
from sqlmodel_crud_utils._core.memoizing import cached
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.queries.keys import Key, among_keys, longest_key_list
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

WriteKind = Literal["create", "update", "delete"]

_TOLD = "sqlmodel_crud_utils_told"

TOLD: Mapping[str, Any] = {_TOLD: True}
"""The execution option of a statement whose writer says by itself what it writes."""


class Need(IntEnum):
    """How much a subscriber has to know; the more, the more a set-based write costs."""

    NOTHING = 0
    MODEL = 1  # whose rows were written; which ones, where that is known anyway
    KEYS = 2  # which rows were written
    ROWS = 3  # and what was written into each of them
    BEFORE = 4  # and, before the write, which rows it may reach


class Change(NamedTuple):
    """One or many rows of a model that were written.

    Attributes:
        model: The table model.
        operation: What happened to the rows. A soft deletion is an update.
        keys: The primary keys that the rows had before; None for some rows of the model, which
            ones nobody knows.
        values: For each key what was written by the names of the fields, all columns for a new
            row; None where that is not known.
    """

    model: type[Any]
    operation: WriteKind
    keys: Sequence[Key] | None = None
    values: Sequence[Mapping[str, Any]] | None = None


class TableChange(NamedTuple):
    """Rows that were written past every model: links of a many-to-many relationship, for instance.

    Attributes:
        table: Their table; None where SQL as text may have written anything.
    """

    table: FromClause | None


class Subscriber(Protocol):
    """Who wants to know of changes."""

    def need(self, model: type[Any]) -> Need:
        """Return how much has to be told of the rows of a model."""
        ...

    def written(self, session: Session, change: Change) -> None:
        """Hear of a change, in its transaction; what is raised undoes the write."""
        ...

    def committed(self, session: Session, changes: Sequence[Change]) -> None:
        """Hear of all changes of a transaction that is committed, in their order.

        The session is just ending the transaction: nothing can be queried with it.
        """
        ...


@runtime_checkable
class TableSubscriber(Subscriber, Protocol):
    """A subscriber that hears of tables without a model, too."""

    def tables_written(
        self, connections: Collection[Connection], changes: Sequence[Change | TableChange]
    ) -> None:
        """Hear of all changes of a transaction that is committed, in place of `committed`.

        So it does where the COMMIT was sent and nobody knows what became of it.
        """
        ...


class Witness(Subscriber, Protocol):
    """A subscriber that looks at rows before they are written; its need is `Need.BEFORE`."""

    def recording(
        self,
        session: Session,
        model: type[Any],
        statement: Update | Delete,
        criteria: Sequence[ColumnElement[bool]],
    ) -> Recording | None:
        """Return what records a set-based write before it, None if its rows have to be read."""
        ...

    def writing(
        self, session: Session, model: type[Any], criteria: Sequence[ColumnElement[bool]]
    ) -> None:
        """Hear, in the transaction, that rows which meet the criteria may be written next."""
        ...


Recording = Callable[[], int | None]
"""Records a write; returns how many rows were seen, None where nobody can intervene."""

subscribers: list[Subscriber] = []


def need_of(model: type[Any]) -> Need:
    """Return the largest need that anybody has to know of a model's rows."""
    return max((each.need(model) for each in subscribers), default=Need.NOTHING)


def recording_of(
    session: Session,
    model: type[Any],
    statement: Update | Delete,
    criteria: Sequence[ColumnElement[bool]],
) -> Recording | None:
    """Return what records a set-based write without its rows, None if somebody needs these."""
    needing = [each for each in subscribers if each.need(model) >= Need.KEYS]
    if len(needing) > 1:
        return None
    return cast("Witness", needing[0]).recording(session, model, statement, criteria)


def announce(session: Session, model: type[Any], criteria: Sequence[ColumnElement[bool]]) -> None:
    """Tell those who look at rows before a write which rows it may reach."""
    for each in subscribers:
        if each.need(model) >= Need.BEFORE:
            cast("Witness", each).writing(session, model, criteria)


def announce_keys(session: Session, model: type[Any], keys: Sequence[Key]) -> None:
    """Tell those who look at rows before a write the keys of the rows that it may reach."""
    facts = facts_of(model)
    dialect = session.get_bind(facts.mapper).dialect
    for chunk in chunked(keys, longest_key_list(model, facts.key, dialect)):
        announce(session, model, [among_keys(model, facts.key, chunk, dialect)])


def happened(session: Session, change: Change) -> None:
    """Tell those who want to know that rows were written."""
    state = state_of(session)
    owner = innermost_transaction(session)
    for each in subscribers:
        need = each.need(change.model)
        if Need.NOTHING < need < Need.BEFORE:  # a witness is done with it at once
            state.changes = state.changes or PerSavepoint()
            state.changes.add(owner, (each, change))
        if need:
            each.written(session, change)


def tables_happened(session: Session, *tables: FromClause | None) -> None:
    """Tell those who want to know that rows of tables were written past every model."""
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
    """Return what the session has written and not committed yet, None for nothing."""
    return noted(session).changes


def tell_committed(session: Session) -> None:
    """Tell what was waiting for the commit."""
    pending = noted(session).changes
    forget(session, "changes")
    told = [] if pending is None else pending.take()
    for each in subscribers:
        found = [change for subscriber, change in told if subscriber is each]
        if found and isinstance(each, TableSubscriber):
            each.tables_written(connections_of(session), found)
        elif found:
            each.committed(session, [change for change in found if isinstance(change, Change)])


def tell_uncertain(session: Session, transaction: SessionTransaction) -> None:
    """Tell what was waiting for a commit that has failed on its way; it may be done for all that.

    The transaction has ended.
    """
    told = [thing for owner, thing in noted(session).changes or () if is_within(owner, transaction)]
    for each in subscribers:
        found = [change for subscriber, change in told if subscriber is each]
        if found and isinstance(each, TableSubscriber):
            each.tables_written(connections_in(transaction), found)


def tell_of_tables(transaction: SessionTransaction, tables: Iterable[FromClause]) -> None:
    """Tell of tables that were written though their transaction was rolled back, and has ended."""
    told: list[Change | TableChange] = [TableChange(table) for table in tables]
    told += [Change(model, "update") for table in tables for model in _models_of(table)]
    for each in subscribers:
        if isinstance(each, TableSubscriber):
            each.tables_written(connections_in(transaction), told)


# --- flushes -------------------------------------------------------------------------------------


def flushing(session: Session) -> None:
    """Announce what a flush is going to write, as far as that is known before it."""
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
    """Announce a row that only the flush itself finds: an orphan, a row that referred to one."""
    session = state.session
    if (
        session is not None
        and need_of(state.class_) >= Need.BEFORE
        and state not in (noted(session).announced or ())
    ):
        announce_keys(session, state.class_, [_identity(state)])


def flushed(session: Session, context: Any) -> None:
    """Tell what a flush has written."""
    forget(session, "announced")
    # A row that takes the place of a deleted one comes after it.
    written: dict[WriteKind, list[InstanceState[Any]]] = {"delete": [], "update": [], "create": []}
    for state, (is_deleted, listed_only) in list(context.states.items()):
        if not listed_only and need_of(state.class_):
            written[_operation_of(state, is_deleted)].append(state)
    for operation, states in written.items():
        for model, group in _by_model(states).items():
            for change in _of_states(model, operation, group):
                happened(session, change)
    tables_happened(session, *_links_written(context.states))
    flushed_now = [(state, gone) for state, (gone, listed) in context.states.items() if not listed]
    for model, links in links_of(flushed_now, _witnessed_of).items():
        if links.removed:
            happened(session, Change(model, "delete", list(links.removed)))
        if links.added:
            happened(session, Change(model, "create", list(links.added)))


def _witnessed_of(table: FromClause) -> list[type[Any]]:
    """Return the models of a link table whose rows somebody looks at before they are written."""
    return [model for model in _models_of(table) if need_of(model) >= Need.BEFORE]


def _links_written(states: Mapping[InstanceState[Any], tuple[bool, bool]]) -> set[FromClause]:
    """Return the link tables to which a flush may have written."""
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
    # What is not asked for is not read, either: that may take a query.
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
    """Return the columns that an UPDATE of the flush has set, by the program or by itself."""
    changed = {name for name in state.committed_state if state.attrs[name].history.has_changes()}
    changed |= state.expired_attributes  # what was set to SQL is among them
    facts = facts_of(state.class_)
    if changed.isdisjoint(facts.columns):
        return []
    changed |= {*facts.updated_always}
    return [name for name in facts.columns if name in changed]


def _values(state: InstanceState[Any], names: Iterable[str]) -> dict[str, Any]:
    # What the database has filled in is read here.
    row = state.obj()
    return {name: getattr(row, name) for name in names}


# --- statements of the caller's ------------------------------------------------------------------


def is_told(execution: ORMExecuteState) -> bool:
    """Return whether a statement is the library's, which says by itself what it writes."""
    return bool(execution.execution_options.get(_TOLD))


def executed(execution: ORMExecuteState) -> Any:
    """Run a statement that writes, and tell whose rows it wrote."""
    statement = execution.statement
    if is_told(execution):
        return None
    if isinstance(statement, TextClause):
        tables_happened(execution.session, None)
    if not isinstance(statement, Update | Delete | Insert):
        return None
    of_table = _models_of(statement.table)
    if not of_table:
        tables_happened(execution.session, statement.table)
    models = [model for model in of_table if need_of(model)]
    if not models:
        return None
    if watched := [model for model in models if need_of(model) >= Need.BEFORE]:
        # The base of those that share a table: its key is that of all.
        return _witnessed(execution, min(watched, key=lambda model: len(model.__mro__)))
    result = execution.invoke_statement()
    for model in models:
        happened(execution.session, Change(model, _OPERATIONS[type(statement).__visit_name__]))
    return result


_OPERATIONS: Mapping[str, WriteKind] = {"insert": "create", "update": "update", "delete": "delete"}


def _witnessed(execution: ORMExecuteState, model: type[Any]) -> Any:
    session, facts = execution.session, facts_of(model)
    if isinstance(execution.statement, Insert):
        result, keys = inserted(execution, facts)
        happened(session, Change(model, "create", keys))
        return result
    keys = keys_to_write(execution, facts)
    announce_keys(session, model, keys)
    result = execution.invoke_statement(statement=narrowed(execution, facts, keys))
    operation = _OPERATIONS[type(execution.statement).__visit_name__]
    if operation == "delete":
        left = set(keys_among(session, facts, keys))
        keys = [key for key in keys if key not in left]
    happened(session, Change(model, operation, keys))
    return result


@cached
def _models_of(table: FromClause) -> tuple[type[Any], ...]:
    return tuple(mapper.class_ for mapper in all_mappers() if table in mapper.tables)
