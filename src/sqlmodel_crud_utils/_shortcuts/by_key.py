"""Update or delete a row by its key with one statement, without a SELECT first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel
from sqlalchemy import (
    ColumnElement,
    Connection,
    Delete,
    Dialect,
    Executable,
    Update,
    bindparam,
    delete,
    select,
    update,
)
from sqlalchemy.orm import Session

from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.listeners import listens_to_fields, listens_to_rows
from sqlmodel_crud_utils._core.memoizing import cached
from sqlmodel_crud_utils._core.mixins import SoftDeleteMixin
from sqlmodel_crud_utils._core.models.facts import Facts
from sqlmodel_crud_utils._core.models.policies import Visibility, here
from sqlmodel_crud_utils._core.models.tenant_keys import TENANT
from sqlmodel_crud_utils._core.parameters import prefix_for
from sqlmodel_crud_utils._core.queries.keys import equals_key, has_key
from sqlmodel_crud_utils._core.returned_rows import Untouched
from sqlmodel_crud_utils._core.values.coercion import is_sql
from sqlmodel_crud_utils._core.visibility.criteria import visible_in
from sqlmodel_crud_utils._core.visibility.hiding import hiding_options
from sqlmodel_crud_utils._core.visibility.soft_delete import WITH_DELETED, deleted_values
from sqlmodel_crud_utils._core.writes.table_writes import WriteKind
from sqlmodel_crud_utils._session.changes import REPORTED, Change, Need, announce, need_of, report
from sqlmodel_crud_utils._session.databases import has_begun
from sqlmodel_crud_utils._session.sqlalchemy_internals import flush_transaction, is_clean
from sqlmodel_crud_utils._shortcuts.choosing import FLUSH, has_no_listeners, sets_plainly
from sqlmodel_crud_utils._shortcuts.stamping import can_stamp, stamp_values, stamps

_MARKS = ("is_deleted", "deleted_at", "deleted_by")


class Sought(NamedTuple):
    """A row that a write looks for.

    Attributes:
        session: The session that writes; nothing is queried with it here.
        dialect: The dialect of its database.
        facts: The facts of the model.
        names: The fields of the key.
        key: The caller's key.
        values: The key's values, converted to their columns' types.
    """

    session: Session
    dialect: Dialect
    facts: Facts
    names: tuple[str, ...]
    key: Any
    values: tuple[Any, ...]

    def is_written_alone(self, operation: str) -> bool:
        """Return whether an "update" or "delete" consists only of its statement."""
        facts, session = self.facts, self.session
        return (
            # For a missing row, the statement would lock the gap where it could be.
            not features_of(self.dialect).locks_gaps
            and facts.is_simple
            and facts.loads_alone
            and self.names == facts.key
            and _is_at_rest(session)
            and has_no_listeners(session, *FLUSH, "do_orm_execute")
            and not listens_to_rows(facts, operation)
            and not self._may_be_held()
        )

    def _may_be_held(self) -> bool:
        """Return whether the session may hold the row, whose object would have to be updated."""
        if not self.facts.has_exact_key:
            return len(self.session.identity_map) > 0
        identity = self.facts.mapper.identity_key_from_primary_key(self.values)
        return identity in self.session.identity_map

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the key."""
        prefix = prefix_for(self.facts.table)
        return {f"{prefix}{place}": value for place, value in enumerate(self.values)}


class ByKey(NamedTuple):
    """The statement that updates or deletes one row.

    Attributes:
        row: The row.
        statement: The statement.
        parameters: The values of its parameters.
        visibility: Which rows it may reach.
        changed: The fields that it changes in the row that it returns; empty if it returns none.
        written: The values that it writes; None if it deletes the row.
    """

    row: Sought
    statement: Executable
    parameters: Mapping[str, Any]
    visibility: Visibility
    changed: tuple[str, ...] = ()
    written: Mapping[str, Any] | None = None

    def run(self, inside: bool) -> list[Any] | Untouched:
        """Execute the statement; return the row if it returns one.

        Args:
            inside: Whether the session is in a block, which already holds SQLite's lock.
        """
        session, mapper = self.row.session, self.row.facts.mapper
        connection = session.connection(bind_arguments={"mapper": mapper})
        takes_lock = features_of(connection.dialect).single_writer and not inside
        if takes_lock and has_begun(connection):
            return Untouched.NOT_AT_ONCE
        self._announce()
        rows = self._executed(session, connection)
        if takes_lock and rows is Untouched.NOT_THERE:
            # A SELECT would not have taken the lock. The driver's transaction holds nothing else.
            connection.connection.rollback()
        if not isinstance(rows, Untouched):
            self._report(rows)
        return rows

    def _announce(self) -> None:
        facts, session = self.row.facts, self.row.session
        if need_of(facts.model) >= Need.BEFORE:
            visible = visible_in(facts.table, self.visibility)
            announce(session, facts.model, [*has_key(facts, self.row.values), *visible])

    def _report(self, rows: Sequence[Any]) -> None:
        facts, session = self.row.facts, self.row.session
        if need_of(facts.model):
            operation: WriteKind = "delete" if self.written is None else "update"
            written = self._written(rows)
            values = None if written is None else [written]
            report(session, Change(facts.model, operation, [self.row.values], values))

    def _written(self, rows: Sequence[Any]) -> Mapping[str, Any] | None:
        """Return the values that were written, or None if they are unknown."""
        facts = self.row.facts
        if self.written is None or not facts.has_on_update_values:
            return self.written
        names = (*self.changed, *facts.updated_always)
        return {name: getattr(rows[0], name) for name in names} if rows else None

    def _executed(self, session: Session, connection: Connection) -> list[Any] | Untouched:
        with flush_transaction(session):
            if not self.changed:
                result = connection.execute(self.statement, self.parameters)
                return [] if result.rowcount else Untouched.NOT_THERE
            rows = list(session.execute(self.statement, self.parameters).scalars())
        for row in rows:
            if isinstance(row, BaseModel):
                row.model_fields_set.update(self.changed)
        return rows or Untouched.NOT_THERE


def update_at_once(
    sought: Sought, changes: Mapping[str, Any], visibility: Visibility
) -> ByKey | None:
    """Return an UPDATE that returns the updated row, or None if a flush is needed.

    Args:
        sought: The row.
        changes: The new values, converted to the columns' types.
        visibility: Which rows may be updated.
    """
    facts, own = sought.facts, sought.facts.key
    changed = tuple(name for name in changes if name not in own)
    if TENANT in changed or not _can_be_set(facts, changed) or any(map(is_sql, changes.values())):
        return None
    if facts.has_on_update_values and not _can_be_stamped(facts, changes):
        return None
    if not sought.is_written_alone("update") or listens_to_fields(facts, changed):
        return None
    if any(
        changes.get(name, value) != value for name, value in zip(own, sought.values, strict=True)
    ):
        return None
    statement = _update(facts, changed, visibility)
    written = {name: changes[name] for name in changed}
    parameters = sought.parameters | _new(facts, changes, changed)
    if facts.has_on_update_values:
        found = stamp_values(facts, changes)
        parameters |= _new(facts, found, found)
    return ByKey(sought, statement, parameters, visibility, changed, written)


def marking_at_once(sought: Sought, deleted_by: str | None) -> ByKey | None:
    """Return the UPDATE that marks a row as deleted, or None if a flush is needed."""
    facts = sought.facts
    if (
        not sought.is_written_alone("update")
        or not _marks_plainly(facts.model)
        or listens_to_fields(facts, _MARKS)
    ):
        return None
    values = deleted_values(deleted_by)
    parameters = sought.parameters | _new(facts, values, _MARKS)
    return ByKey(sought, _mark(facts, here()), parameters, here(), written=values)


def delete_at_once(sought: Sought) -> ByKey | None:
    """Return the DELETE of a row, or None if a flush is needed."""
    if not sought.facts.leaves_alone or not sought.is_written_alone("delete"):
        return None
    visibility = here(WITH_DELETED)
    return ByKey(sought, _delete(sought.facts, visibility), sought.parameters, visibility)


@cached
def _can_be_set(facts: Facts, names: tuple[str, ...]) -> bool:
    """Return whether there are such fields, and an UPDATE can set all of them."""
    return bool(
        names and all(name in facts.columns for name in names) and sets_plainly(facts.model, names)
    )


def _can_be_stamped(facts: Facts, changes: Mapping[str, Any]) -> bool:
    """Return whether the UPDATE can set the stamps."""
    return (
        can_stamp(facts, tuple(changes))
        # NaN differs from itself.
        and all(value == value for value in changes.values())  # noqa: PLR0124
    )


def _new(facts: Facts, values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    prefix = prefix_for(facts.table)
    return {f"{prefix}{name}": values[name] for name in names}


@cached
def _update(facts: Facts, names: tuple[str, ...], visibility: Visibility) -> Executable:
    new = _new_values(facts, names)
    statement = _setting(facts, new, visibility)
    statement = statement.values(stamps(facts, new, prefix_for(facts.table)))
    returning = statement.returning(*facts.columns.values())
    options = {**REPORTED, "populate_existing": True}
    rows = select(facts.model).from_statement(returning).execution_options(**options)
    # The statement itself says which rows are visible.
    return rows.options(*hiding_options(visibility, facts.model))


@cached
def _mark(facts: Facts, visibility: Visibility) -> Update:
    return _setting(facts, _new_values(facts, _MARKS), visibility)


def _new_values(facts: Facts, names: Iterable[str]) -> dict[str, ColumnElement[Any]]:
    prefix = prefix_for(facts.table)
    return {name: bindparam(f"{prefix}{name}", type_=facts.columns[name].type) for name in names}


def _setting(facts: Facts, new: Mapping[str, ColumnElement[Any]], visibility: Visibility) -> Update:
    statement = update(facts.table).where(*_has_key(facts), *visible_in(facts.table, visibility))
    return statement.values({facts.columns[name]: value for name, value in new.items()})


@cached
def _delete(facts: Facts, visibility: Visibility) -> Delete:
    criteria = visible_in(facts.table, visibility)
    return delete(facts.table).where(*_has_key(facts), *criteria)


def _has_key(facts: Facts) -> list[ColumnElement[bool]]:
    own = [facts.columns[name] for name in facts.key]
    return equals_key(own, prefix_for(facts.table))


def _marks_plainly(model: type[Any]) -> bool:
    """Return whether a soft deletion has no side effects in the model's class."""
    return getattr(model, "soft_delete", None) is SoftDeleteMixin.soft_delete and sets_plainly(
        model, _MARKS
    )


def _is_at_rest(session: Session) -> bool:
    """Return whether a session has nothing to flush and is in no savepoint."""
    # The rollback of a savepoint expires flushed rows, but not rows written by a shortcut.
    return is_clean(session) and not session.in_nested_transaction()
