"""What was written: the one place that hears of every write.

Whatever writes through a session says so here, after it is done and before the commit: flushes, the
library's statements past them, and the caller's own UPDATE, DELETE and INSERT statements. Who wants
to know subscribes (`_session.events.subscribe`) and says how much; as long as nobody does, a write
costs one truth test. `text()`, `session.connection()`, the database's own cascades and other
programs are not heard.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal, Protocol

from sqlalchemy import Delete, FromClause, Insert, Update
from sqlalchemy.orm import InstanceState, ORMExecuteState, Session
from sqlalchemy.orm.mapper import _all_registries

from sqlmodel_crud_utils._core.caching import cached
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._session.savepoints import PerSavepoint, innermost_transaction

Key = tuple[Any, ...]
Operation = Literal["create", "update", "delete"]

_KEY = "sqlmodel_crud_utils.changes"
_TOLD = "sqlmodel_crud_utils_told"

TOLD: Mapping[str, Any] = {_TOLD: True}
"""The execution option of a statement whose writer says by itself what it writes."""


class Need(IntEnum):
    """How much a subscriber has to know; the more, the more a set-based write costs."""

    NOTHING = 0
    MODEL = 1  # whose rows were written; which ones, where that is known anyway
    KEYS = 2  # which rows were written
    ROWS = 3  # and what was written into each of them


@dataclass(frozen=True, slots=True)
class Change:
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
    operation: Operation
    keys: Sequence[Key] | None = None
    values: Sequence[Mapping[str, Any]] | None = None


class Subscriber(Protocol):
    """Who wants to know of changes."""

    def need(self, model: type[Any]) -> Need:
        """Return how much has to be told of the rows of a model."""
        ...

    def written(self, session: Session, change: Change) -> None:
        """Hear of a change, in its transaction; what is raised undoes the write."""
        ...

    def committed(self, changes: Sequence[Change]) -> None:
        """Hear of all changes of a transaction that is committed, in their order."""
        ...


subscribers: list[Subscriber] = []


def need_of(model: type[Any]) -> Need:
    """Return the largest need that anybody has to know of a model's rows."""
    return max((each.need(model) for each in subscribers), default=Need.NOTHING)


def happened(session: Session, change: Change) -> None:
    """Tell those who want to know that rows were written."""
    concerned = [each for each in subscribers if each.need(change.model)]
    if not concerned:
        return
    pending = _pending(session)
    owner = innermost_transaction(session)
    for each in concerned:
        pending.add(owner, (each, change))
        each.written(session, change)


def pending_of(session: Session) -> PerSavepoint[tuple[Subscriber, Change]] | None:
    """Return what the session has written and not committed yet, None for nothing."""
    return session.info.get(_KEY)


def _pending(session: Session) -> PerSavepoint[tuple[Subscriber, Change]]:
    found: PerSavepoint[tuple[Subscriber, Change]] = session.info.setdefault(_KEY, PerSavepoint())
    return found


def tell_committed(session: Session) -> None:
    """Tell what was waiting for the commit."""
    pending = session.info.pop(_KEY, None)
    told = [] if pending is None else pending.take()
    for each in subscribers:
        if found := [change for subscriber, change in told if subscriber is each]:
            each.committed(found)


# --- flushes -------------------------------------------------------------------------------------


def flushed(session: Session, context: Any) -> None:
    """Tell what a flush has written."""
    for state, (is_deleted, listed_only) in list(context.states.items()):
        if listed_only or not need_of(state.class_):
            continue
        for change in _of_state(state, is_deleted):
            happened(session, change)


def _of_state(state: InstanceState[Any], is_deleted: bool) -> Iterator[Change]:
    model = state.class_
    if is_deleted:
        yield Change(model, "delete", [_identity(state)])
    elif state.key is None:
        yield Change(model, "create", [_key_of(state)], [_values(state, facts_of(model).columns)])
    elif names := _written_names(state):
        yield Change(model, "update", [_identity(state)], [_values(state, names)])


def _identity(state: InstanceState[Any]) -> Key:
    return tuple(state.identity or ())


def _key_of(state: InstanceState[Any]) -> Key:
    return tuple(state.mapper.primary_key_from_instance(state.obj()))


def _written_names(state: InstanceState[Any]) -> list[str]:
    """Return the columns that an UPDATE of the flush has set, by the program or by itself."""
    changed = {name for name in state.committed_state if state.attrs[name].history.has_changes()}
    facts = facts_of(state.class_)
    if changed.isdisjoint(facts.columns):
        return []
    changed |= {*state.expired_attributes, *facts.updated_always}
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
    if not isinstance(statement, Update | Delete | Insert):
        return None
    if is_told(execution):
        return None
    models = [model for model in _models_of(statement.table) if need_of(model)]
    if not models:
        return None
    result = execution.invoke_statement()
    for model in models:
        happened(execution.session, Change(model, _OPERATIONS[type(statement).__visit_name__]))
    return result


_OPERATIONS: Mapping[str, Operation] = {"insert": "create", "update": "update", "delete": "delete"}


@cached
def _models_of(table: FromClause) -> tuple[type[Any], ...]:
    return tuple(
        mapper.class_
        for each in _all_registries()
        for mapper in each.mappers
        if table in mapper.tables
    )
