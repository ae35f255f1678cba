"""A new row inserted with one statement, and made persistent without a flush."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Column, CursorResult, Dialect, Insert, insert
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import instance_state, set_committed_value

from sqlmodel_crud_utils._core.dialects import Features, features_of, insert_of
from sqlmodel_crud_utils._core.listeners import listens_to_rows
from sqlmodel_crud_utils._core.memoizing import cached
from sqlmodel_crud_utils._core.models.facts import Facts
from sqlmodel_crud_utils._core.values.coercion import is_sql
from sqlmodel_crud_utils._core.writes.targets import deferrable_keys
from sqlmodel_crud_utils._session import changes
from sqlmodel_crud_utils._session.changes import Change
from sqlmodel_crud_utils._session.databases import sees_commits
from sqlmodel_crud_utils._session.sqlalchemy_internals import (
    flush_transaction,
    is_clean,
    register_persistent,
)
from sqlmodel_crud_utils._shortcuts.choosing import FLUSH, has_no_listeners


class NewRow(NamedTuple):
    """The statement that inserts a row.

    Attributes:
        facts: The facts of its model.
        row: The row.
        statement: The INSERT.
        parameters: The values of the row's columns.
        missing: The fields that the database fills in and the statement returns.
        skip_existing: Whether to insert nothing if a row with one of the unique values exists.
    """

    facts: Facts
    row: Any
    statement: Insert
    parameters: Mapping[str, Any]
    missing: tuple[str, ...]
    skip_existing: bool

    def run(self, session: Session) -> bool | None:
        """Insert the row; return whether it was inserted.

        Returns:
            False if a row with one of the unique values exists; None if nothing was done, because a
            savepoint and a flush are needed.
        """
        connection = session.connection(bind_arguments={"mapper": self.facts.mapper})
        if self.skip_existing and not sees_commits(connection):
            return None  # PostgreSQL refuses to skip a row that the snapshot does not see
        session.add(self.row)
        with flush_transaction(session):
            returned = _returned(connection.execute(self.statement, self.parameters))
            if returned is None:
                session.expunge(self.row)
                return False
            self._persist(session, returned)
        return True

    def _persist(self, session: Session, returned: Sequence[Any]) -> None:
        for name, value in zip(self.missing, returned, strict=False):
            set_committed_value(self.row, name, value)
        state = instance_state(self.row)
        register_persistent(session, [state])
        model = self.facts.model
        if changes.need_of(model):
            values = {name: getattr(self.row, name) for name in self.facts.columns}
            change = Change(model, "create", [tuple(state.identity or ())], [values])
            changes.report(session, change)


def _returned(result: CursorResult[Any]) -> Sequence[Any] | None:
    if result.returns_rows:
        return result.one_or_none()
    return result.inserted_primary_key if result.rowcount else None


def insert_at_once(
    session: Session, dialect: Dialect, facts: Facts, row: Any, *, skip_existing: bool
) -> NewRow | None:
    """Return the INSERT of a row, or None if a flush is needed.

    Args:
        session: The session that writes; nothing is queried here.
        dialect: The dialect of its database.
        facts: The facts of the row's model.
        row: The row; it may be pending in the session.
        skip_existing: Whether to insert nothing if a row with one of the unique values exists.
    """
    state = instance_state(row)
    if (
        state.key is not None
        or not _is_inserted_alone(facts, dialect, skip_existing)
        or any(name in state.dict for name in facts.relationships)
        or _has_other_changes(session, row)
        or not has_no_listeners(session, *FLUSH)
        or listens_to_rows(facts, "insert")
        or bool(state.manager.dispatch.refresh_flush)
    ):
        return None
    given = _given(facts, state.dict)
    if given is None:
        return None
    parameters, missing = given
    if not missing and state.mapper.identity_key_from_instance(row) in session.identity_map:
        return None  # a flush warns about that
    statement = _insert(facts, missing, skip_existing, dialect)
    return NewRow(facts, row, statement, parameters, missing, skip_existing)


def _is_inserted_alone(facts: Facts, dialect: Dialect, skip_existing: bool) -> bool:
    if not facts.is_simple:
        return False
    if skip_existing:
        knows_conflicts = features_of(dialect).conflict == "ON CONFLICT"
        return knows_conflicts and not deferrable_keys(facts.table)
    return dialect.insert_returning


def _has_other_changes(session: Session, row: Any) -> bool:
    if is_clean(session):
        return False
    new = session.new
    return bool(session.dirty or session.deleted or len(new) > 1 or row not in new)


def _given(
    facts: Facts, values: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...]] | None:
    """Return a new row's column values and the fields left to the database, as in a flush."""
    parameters: dict[str, Any] = {}
    missing: list[str] = []
    for name, column in facts.columns.items():
        value = values.get(name)
        if is_sql(value):
            return None
        if value is not None or (name in values and column.type.should_evaluate_none):
            parameters[column.key] = value
        elif not _is_filled(column):
            parameters[column.key] = None
        elif column.primary_key and not _makes_key(column):
            return None
        else:
            missing.append(name)
    return parameters, tuple(missing)


def _is_filled(column: Column[Any]) -> bool:
    """Return whether a column without a value may become anything but NULL."""
    has_default = column.default is not None or column.server_default is not None
    return has_default or column.primary_key or column.type.should_evaluate_none


def _makes_key(column: Column[Any]) -> bool:
    has_default = column.default is not None or column.server_default is not None
    return has_default or column is column.table.autoincrement_column


def _insert(facts: Facts, missing: tuple[str, ...], skip_existing: bool, dialect: Any) -> Insert:
    # As in a flush: the last inserted id saves SQLite a fetch.
    by_last_id = dialect.postfetch_lastrowid and not dialect.favor_returning_over_lastrowid
    return _insert_on(facts, missing, skip_existing, features_of(dialect), by_last_id)


@cached
def _insert_on(
    facts: Facts,
    missing: tuple[str, ...],
    skip_existing: bool,
    features: Features,
    by_last_id: bool,
) -> Insert:
    table = facts.table
    statement: Insert = insert(table)
    if skip_existing:
        statement = insert_of(features)(table).on_conflict_do_nothing()
    returned = [facts.columns[name] for name in missing]
    if by_last_id and len(returned) == 1 and returned[0] is table.autoincrement_column:
        return statement
    # Always returns a column, so that a skipped row can be recognized.
    return statement.returning(*(returned or table.primary_key))
