"""Record the history: read rows before and after a write, and store the differences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    ColumnElement,
    Connection,
    Delete,
    Dialect,
    Select,
    Table,
    Update,
    insert,
    select,
)
from sqlalchemy.orm import Session, SessionTransaction

from sqlmodel_crud_utils._core.chunks import chunked
from sqlmodel_crud_utils._core.memoizing import cached
from sqlmodel_crud_utils._core.models.facts import Facts, facts_of
from sqlmodel_crud_utils._core.models.tenant_keys import TENANT
from sqlmodel_crud_utils._core.queries.keys import Key, among_keys, longest_key_list
from sqlmodel_crud_utils._core.values.actors import current_actor
from sqlmodel_crud_utils._core.values.datetimes import utc_now
from sqlmodel_crud_utils._core.visibility.tenancy import belongs_to_tenants
from sqlmodel_crud_utils._core.writes.table_writes import WriteKind
from sqlmodel_crud_utils._session.changes import Change, Need, Recording
from sqlmodel_crud_utils._session.databases import begin_immediate
from sqlmodel_crud_utils._session.routing import as_writing
from sqlmodel_crud_utils.ext.history.json_values import (
    as_stored,
    is_rounded,
    is_stored_as_is,
    key_text,
    shortest,
    text_of,
)
from sqlmodel_crud_utils.ext.history.set_based_recording import NeedsRowsError, recorded_by_database

_KEY = "sqlmodel_crud_utils.history"
_HIDDEN = "…"
_ROWS_AT_ONCE = 1_000

Values = Mapping[str, Any]


@dataclass
class _Transaction:
    """The state of the history for a session's transaction.

    Attributes:
        transaction: The transaction.
        key: The `transaction_key` of all its changes.
        before: For each table, the rows about to be written, by the texts of their keys.
    """

    transaction: SessionTransaction | None
    key: UUID = field(default_factory=uuid4)
    before: dict[str, dict[str, Values]] = field(default_factory=dict)


class History:
    """Records the changes of all tracked models.

    Attributes:
        table: The history table.
    """

    table: Table

    def need(self, model: type[Any]) -> Need:
        """Return `Need.BEFORE` for a tracked model."""
        return Need.BEFORE if hasattr(model, "__track_exclude__") else Need.NOTHING

    def writing(
        self, session: Session, model: type[Any], criteria: Sequence[ColumnElement[bool]]
    ) -> None:
        """Read and lock rows before a write."""
        facts = facts_of(model)
        before = _transaction_of(session).before.setdefault(table_name(facts), {})
        connection = _connection(session, facts)
        begin_immediate(connection)
        statement = _rows(facts, connection.dialect).where(*criteria).with_for_update()
        before.update(_read(connection, facts, statement))

    def recording(
        self,
        session: Session,
        model: type[Any],
        statement: Update | Delete,
        criteria: Sequence[ColumnElement[bool]],
    ) -> Recording | None:
        """Return a function that makes the database record a write; None if it must read rows."""
        facts = facts_of(model)
        operation: WriteKind = "update" if isinstance(statement, Update) else "delete"
        same = _in_common(session, facts, operation)
        dialect = session.get_bind(facts.mapper).dialect
        try:
            found = recorded_by_database(facts, dialect, statement, criteria, self.table, same)
        except NeedsRowsError:
            return None
        return lambda: found.run(_connection(session, facts))

    def written(self, session: Session, change: Change) -> None:
        """Record the changes of a write, a chunk at a time."""
        same = _in_common(session, facts_of(change.model), change.operation)
        for part in _parts(change):
            self._record(session, part, same)

    def _record(self, session: Session, change: Change, same: Values) -> None:
        facts = facts_of(change.model)
        connection = _connection(session, facts)
        now = _keys_now(facts, change)
        seen = _transaction_of(session).before.get(table_name(facts), {})
        before = {row_key: seen.pop(row_key) for row_key in now if row_key in seen}
        if change.operation == "create":
            before = {}  # of an earlier row with this key
        after = _rows_after(facts, change, now, before)
        if after is None:
            found = _by_keys(connection, facts, now.values())
            after = {row_key: found.get(key_text(facts, key), {}) for row_key, key in now.items()}
        entries = [
            {
                "row_key": row_key,
                "changes": differences,
                "tenant_id": _tenant_of(facts, before.get(row_key) or after[row_key]),
                **same,
            }
            for row_key in now
            if (differences := _differences(facts, before.get(row_key, {}), after.get(row_key, {})))
        ]
        if entries:
            connection.execute(insert(self.table), entries)

    def committed(self, session: Session, changes: Sequence[Change]) -> None:
        """Do nothing: all changes are recorded by then."""


HISTORY = History()


def table_name(facts: Facts) -> str:
    """Return the name under which a model's changes are recorded: its base model's table."""
    return str(facts.mapper.base_mapper.local_table)


def _transaction_of(session: Session) -> _Transaction:
    found: _Transaction | None = session.info.get(_KEY)
    current = session.get_transaction()
    if found is None or found.transaction is not current:
        found = session.info[_KEY] = _Transaction(current)
    return found


def _in_common(session: Session, facts: Facts, operation: WriteKind) -> Values:
    """Return the history columns that are equal for all rows of a write."""
    return {
        "table_name": table_name(facts),
        "operation": operation,
        "changed_by": current_actor(),
        "changed_at": utc_now(),
        "transaction_key": _transaction_of(session).key,
    }


def _tenant_of(facts: Facts, values: Values) -> str | None:
    return str(values[TENANT]) if belongs_to_tenants(facts.model) else None


def _connection(session: Session, facts: Facts) -> Connection:
    """Return the connection for writes to the model, where no criteria are added to statements."""
    with as_writing(session):
        return session.connection(bind_arguments={"mapper": facts.mapper})


@cached
def _names(facts: Facts) -> list[str]:
    excluded = facts.model.__track_exclude__
    return [name for name in facts.columns if name in facts.written and name not in excluded]


@cached
def _rows(facts: Facts, dialect: Dialect) -> Select[Any]:
    """Return the SELECT of rows: the key, then the fields as they are stored."""
    columns = facts.columns
    key = [columns[name] for name in facts.key]
    fields = [as_stored(columns[name], dialect) for name in _names(facts)]
    return select(*key, *fields).select_from(facts.mapper.persist_selectable)


def _read(
    connection: Connection, facts: Facts, statement: Select[Any]
) -> Iterator[tuple[str, Values]]:
    """Yield the text of each row's key with the row's values."""
    width, names = len(facts.key), _names(facts)
    types = {name: facts.columns[name].type for name in names}
    rounded = {name for name, type_ in types.items() if is_rounded(type_, connection.dialect)}
    for row in connection.execute(statement):
        values = dict(zip(names, row[width:], strict=True))
        values |= {name: shortest(values[name]) for name in rounded}
        texts = {name: text_of(value) for name, value in values.items()}
        yield key_text(facts, row[:width]), texts


def _by_keys(connection: Connection, facts: Facts, keys: Iterable[Key]) -> Mapping[str, Values]:
    found: dict[str, Values] = {}
    longest = longest_key_list(facts.model, facts.key, connection.dialect)
    for chunk in chunked(keys, longest):
        criterion = among_keys(facts.model, facts.key, chunk, connection.dialect)
        found.update(_read(connection, facts, _rows(facts, connection.dialect).where(criterion)))
    return found


def _parts(change: Change) -> Iterator[Change]:
    """Split a change into parts, to limit how many rows are read and recorded at once."""
    keys, values = change.keys or (), change.values
    for start in range(0, len(keys), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        yield change._replace(keys=keys[part], values=None if values is None else values[part])


def _keys_now(facts: Facts, change: Change) -> Mapping[str, Key]:
    """Return the keys that a change's rows have after it, by the texts of those before it."""
    values = change.values or [{}] * len(change.keys or ())
    return {
        key_text(facts, key): tuple(map(written.get, facts.key, key))
        for key, written in zip(change.keys or (), values, strict=True)
    }


def _rows_after(
    facts: Facts, change: Change, row_keys: Iterable[str], before: Mapping[str, Values]
) -> Mapping[str, Values] | None:
    """Return the rows after a change, or None if they must be read."""
    if change.operation == "delete":
        return {}
    if change.values is None:
        return None
    names = set(_names(facts))
    found: dict[str, Values] = {}
    for row_key, values in zip(row_keys, change.values, strict=True):
        written = {name: value for name, value in values.items() if name in names}
        types = {name: facts.columns[name].type for name in written}
        if not all(is_stored_as_is(types[name], value) for name, value in written.items()):
            return None
        texts = {name: text_of(value) for name, value in written.items()}
        found[row_key] = {**before.get(row_key, {}), **texts}
    return found


def _differences(facts: Facts, old: Values, new: Values) -> dict[str, list[Any]]:
    """Return the differences by field name, with the values of redacted fields hidden."""
    redacted = facts.model.__track_redact__
    changed = ((name, [old.get(name), new.get(name)]) for name in _names(facts))
    return {
        name: [_HIDDEN, _HIDDEN] if name in redacted else pair
        for name, pair in changed
        if pair[0] != pair[1] or type(pair[0]) is not type(pair[1])
    }
