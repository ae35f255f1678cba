"""The rows of an upsert: converted, merged by key, and grouped into batches.

One statement writes a batch: rows with the same fields. The result is the same as writing the rows
one by one, in the order of the payload.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property
from itertools import groupby
from operator import attrgetter
from types import NoneType
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel
from sqlalchemy import ColumnDefault, Dialect, inspect

from sqlmodel_crud_utils._core.chunks import chunked, fitting
from sqlmodel_crud_utils._core.parameters import prefix_for
from sqlmodel_crud_utils._core.queries.keys import Key
from sqlmodel_crud_utils._core.values.coercion import is_storable, storable
from sqlmodel_crud_utils._core.values.payload import given_fields
from sqlmodel_crud_utils._core.visibility.soft_delete import SOFT_DELETION
from sqlmodel_crud_utils._core.visibility.tenancy import give_tenant
from sqlmodel_crud_utils._core.writes.shapes import Shape
from sqlmodel_crud_utils._core.writes.targets import Target
from sqlmodel_crud_utils._core.writes.upsert_statements import Parameters
from sqlmodel_crud_utils.exceptions import (
    ConstraintViolationError,
    QueryExecutionError,
    SQLModelCRUDError,
    UnknownFieldError,
    ValidationError,
)
from sqlmodel_crud_utils.results import UpsertCounts

T = TypeVar("T")
_E = TypeVar("_E", bound=SQLModelCRUDError)
_MISSING = object()


@dataclass(slots=True, eq=False)
class Entry:
    """A row to be written; several rows of the payload may have become one.

    Attributes:
        index: Where the payload has it first.
        values: The given values by field names, each of its column's type.
        key: The values of the key; None until the database has made them.
        rows: How many rows of the payload it stands for.
    """

    index: int
    values: dict[str, Any]
    key: Key | None
    rows: int = 0


class Payload(NamedTuple):
    """All rows of a call: the entries to write, and the entry of each row of the payload."""

    entries: list[Entry]
    places: list[Entry]


class Action(Enum):
    """How a batch is written."""

    INSERT = auto()  # the database generates the key, so no conflict is possible
    UPSERT = auto()
    UPDATE = auto()  # too few fields for a new row: it can only be an update


@dataclass(frozen=True)
class Batch:
    """Entries with the same fields."""

    target: Target
    names: tuple[str, ...]
    entries: list[Entry]

    @cached_property
    def action(self) -> Action:
        """How the batch is written."""
        if not set(self.target.key) <= set(self.names):
            return Action.INSERT
        return Action.UPSERT if self.target.required <= set(self.names) else Action.UPDATE

    @property
    def overwrites(self) -> bool:
        """Whether an existing row is written to."""
        return not self.target.overwritten.isdisjoint(self.names)

    def part(self, entries: list[Entry]) -> Batch:
        """Return a part of the entries."""
        return Batch(self.target, self.names, entries)

    def shape(self) -> Shape:
        """Return the rows by column, with defaults that only this library fills in."""
        columns = [[entry.values[name] for entry in self.entries] for name in self.names]
        fills = {k: fill for k, fill in self.target.fills.items() if k not in self.names}
        columns += [[fill(entry.values) for entry in self.entries] for fill in fills.values()]
        return Shape(0, len(self.entries), (*self.names, *fills), columns)

    def insert_parameters(self) -> Parameters:
        """Return the rows by column key, with defaults that only this library fills in."""
        columns = self.target.columns
        keys = [(name, columns[name].key) for name in self.names]
        rows = [{key: entry.values[name] for name, key in keys} for entry in self.entries]
        for name, fill in self.target.fills.items():
            if name not in self.names:
                for row, entry in zip(rows, self.entries, strict=True):
                    row[columns[name].key] = fill(entry.values)
        return rows

    def update_parameters(self) -> Parameters:
        """Return the rows as the parameters of `update_statement`."""
        prefix = prefix_for(self.target.table)
        names = {f"{prefix}{place}": name for place, name in enumerate(self.target.key)}
        names |= {f"{prefix}{name}": name for name in self.names if name in self.target.overwritten}
        return [
            {parameter: entry.values[name] for parameter, name in names.items()}
            for entry in self.entries
        ]


# --- normalised ----------------------------------------------------------------------------------


def check_payload(rows: Any) -> None:
    """Refuse anything but a list of rows."""
    if isinstance(rows, Mapping | str | bytes | BaseModel) or not isinstance(rows, Iterable):
        raise ValidationError(
            f"payload must be a list of mappings, not {type(rows).__name__}", field="payload"
        )


def payloads_of(target: Target, rows: Iterable[Any], size: int) -> Iterator[Payload]:
    """Yield a `payload_of` for each group of `size` rows."""
    start = 0
    for chunk in chunked(rows, size):
        yield payload_of(target, chunk, start)
        start += len(chunk)


def payload_of(target: Target, rows: Iterable[Any], start: int = 0) -> Payload:
    """Return the payload's rows checked, coerced to the columns' types and merged by key.

    Args:
        target: What is written to.
        rows: The rows.
        start: The place of the first one in the whole input.

    Raises:
        ValidationError: The payload is not a list of rows, a value is of a wrong type, or a row
            does not give its key.
        UnknownFieldError: A row gives something that is not a column of the model.
    """
    check_payload(rows)
    listed = list(rows)
    is_plain = _are_plain(target, listed)
    if is_plain and (distinct := _distinct(target, listed, start)):
        return Payload(distinct, list(distinct))
    payload = Payload([], [])
    latest: dict[Key, Entry] = {}
    for index, row in enumerate(listed, start):
        values = dict(row) if is_plain else _values(target, index, row)
        key = _key(target, index, values)
        entry = latest.get(key) if key is not None else None
        if entry is None or not _mergeable(target, entry.values, values):
            entry = Entry(index, values, key)
            payload.entries.append(entry)
            if key is not None:
                latest[key] = entry
        else:
            entry.values.update(
                (name, value) for name, value in values.items() if name in target.overwritten
            )
        entry.rows += 1
        payload.places.append(entry)
    return payload


def _are_plain(target: Target, rows: list[Any]) -> bool:
    """Return whether all rows are dicts with the same fields and values of the right types."""
    if target.stamped or target.policies:
        return False
    if set(map(type, rows)) != {dict} or len(set(map(len, rows))) != 1:
        return False
    written = target.facts.written
    for name in rows[0]:
        attribute = target.attributes.get(name)
        values = [row.get(name, _MISSING) for row in rows]
        kinds = set(map(type, values))
        if (
            attribute is None
            or name not in written
            or object in kinds
            or not is_storable(attribute, values, kinds)
        ):
            return False
        if name in target.self_filling and NoneType in kinds:
            return False
    return True


def _distinct(target: Target, rows: list[dict[str, Any]], start: int) -> list[Entry] | None:
    """Return an entry for each row, or None if keys are missing or repeated."""
    keys = [tuple(map(row.get, target.key)) for row in rows]
    if len(set(keys)) < len(keys) or any(None in key for key in keys):
        return None
    numbered = enumerate(zip(rows, keys, strict=True), start)
    return [Entry(index, dict(row), key, 1) for index, (row, key) in numbered]


def _mergeable(target: Target, earlier: Mapping[str, Any], later: Mapping[str, Any]) -> bool:
    """Return whether both rows can be merged at the earlier one's place with the same result."""
    decisive = later.keys() & target.entangled & target.overwritten
    return all(earlier.get(name, _MISSING) == later[name] for name in decisive)


def _values(target: Target, index: int, row: Any) -> dict[str, Any]:
    values = dict(_given(index, row))
    attributes = target.attributes
    name = ""
    try:
        for name, value in values.items():
            values[name] = storable(attributes[name], value)
            target.facts.check_written(name, value)
    except KeyError:
        raise placed(UnknownFieldError(target.model, name, attributes), index) from None
    except ValidationError as refused:
        reason = str(refused).partition(": ")[2]
        raise ValidationError(
            f"row {index} of the payload: {reason}", field=name, value=refused.value
        ) from None
    for name in target.self_filling:
        if values.get(name, _MISSING) is None:
            del values[name]
    give_tenant(target.model, values)
    if SOFT_DELETION in target.policies and values.get("is_deleted"):
        raise ValidationError(
            f"row {index} of the payload: ({', '.join(target.key)}) identifies only rows "
            "that are not deleted; delete with soft_delete_row",
            field="is_deleted",
        )
    return values


def placed(error: _E, index: int) -> _E:
    """Add to an error's text which row of the payload it is about."""
    head, _, reason = str(error).partition(": ")
    error.args = (f"{head}: row {index} of the payload: {reason}",)
    return error


def _given(index: int, row: Any) -> Mapping[str, Any]:
    if isinstance(row, Mapping):
        return row
    if not isinstance(row, BaseModel):
        raise ValidationError(
            f"row {index} of the payload must be a mapping or a Pydantic object, "
            f"not {type(row).__name__}",
            field="payload",
        )
    state = inspect(row, raiseerr=False)
    if state is not None and state.has_identity:
        # Nothing shows which of its fields are meant to be written.
        raise ValidationError(
            f"row {index} of the payload was read from the database; "
            "change it and commit, or pass the fields to write as a mapping",
            field="payload",
        )
    return given_fields(row)


def _key(target: Target, index: int, values: dict[str, Any]) -> Key | None:
    key = tuple(map(values.get, target.key))
    return _completed_key(target, index, values) if None in key else key


def _completed_key(target: Target, index: int, values: dict[str, Any]) -> Key | None:
    for name in target.key:
        if values.get(name) is None and (default := _python_default(target, name)) is not None:
            values[name] = default
    missing = [name for name in target.key if values.get(name) is None]
    if not missing:
        return tuple(values[name] for name in target.key)
    if not target.generated.issuperset(missing):
        raise ValidationError(
            f"row {index} of the payload has no {missing[0]}; rows are identified "
            f"by {', '.join(target.key)}",
            field=missing[0],
        )
    return None


def _python_default(target: Target, name: str) -> Any:
    default = target.columns[name].default
    if isinstance(default, ColumnDefault) and default.is_callable:
        return default.arg(None)
    if isinstance(default, ColumnDefault) and default.is_scalar:
        return default.arg
    fill = target.fills.get(name)
    return None if fill is None else fill({})


# --- in batches ----------------------------------------------------------------------------------


def batches(target: Target, entries: list[Entry], size: int, dialect: Dialect) -> Iterator[Batch]:
    """Group entries with the same fields into batches of at most `size`.

    Where the order matters only neighbours share a batch.
    """
    keyless = [entry for entry in entries if entry.key is None]
    _level(target, keyless)
    given: set[str] = set().union(*(entry.values for entry in entries))
    if target.entangled.isdisjoint(given):
        # Rows without a key come last, so that no generated key collides with a later row's.
        keyed = [entry for entry in entries if entry.key is not None]
        groups = [*_by_shape(keyed), *_neighbours(keyless)]
    else:
        groups = _neighbours(entries)
    for group in groups:
        names = tuple(name for name in target.columns if name in group[0].values)
        for chunk in fitting(group, size, dialect, lambda entry: entry.values.values()):
            yield Batch(target, names, chunk)


def _level(target: Target, entries: list[Entry]) -> None:
    """Give new rows the same fields, so that one statement can write them in their order."""
    given: set[str] = set().union(*(entry.values for entry in entries))
    for entry in entries:
        entry.values.update(dict.fromkeys(given & target.empty - entry.values.keys()))


def _by_shape(entries: list[Entry]) -> list[list[Entry]]:
    groups: dict[frozenset[str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault(frozenset(entry.values), []).append(entry)
    return list(groups.values())


def _neighbours(entries: list[Entry]) -> list[list[Entry]]:
    groups = groupby(entries, key=lambda entry: frozenset(entry.values))
    return [list(group) for _, group in groups]


# --- counted -------------------------------------------------------------------------------------


class Tally:
    """Counts the written rows, each once; it takes eight bytes for each."""

    def __init__(self) -> None:
        self._created = 0
        self._left_alone = 0
        self._keys = [array("q") for _ in range(256)]

    def add(self, batch: Batch, there: int) -> None:
        """Count a batch, given how many of its rows existed before."""
        self._created += len(batch.entries) - there
        if not batch.overwrites:
            self._left_alone += there
        for entry in batch.entries:
            # hash(-1) equals hash(-2).
            digest = hash(tuple((value, value == -1) for value in entry.key or ()))
            self._keys[digest & 255].append(digest)

    def counts(self) -> UpsertCounts:
        """Return the counts."""
        rows = sum(len(set(keys)) for keys in self._keys)
        return UpsertCounts(self._created, rows - self._created - self._left_alone)


# --- read back -----------------------------------------------------------------------------------


def unique_values(
    target: Target, names: tuple[str, ...], entries: Iterable[Entry]
) -> dict[Entry, Key]:
    """Return the entries' values of a unique key, without the entries that lack one of them.

    The database may have generated the values of the key that identifies the rows.
    """
    if names == target.key:
        return {entry: entry.key for entry in entries if entry.key is not None}
    keys = {entry: tuple(map(entry.values.get, names)) for entry in entries}
    return {entry: key for entry, key in keys.items() if None not in key}


def matched(names: tuple[str, ...], keys: Mapping[Entry, Key], rows: Iterable[T]) -> dict[Entry, T]:
    """Return the row of each entry whose key is among those of the rows."""
    key_of, alone = attrgetter(*names), len(names) == 1
    by_key = {key_of(row): row for row in rows}
    return {
        entry: by_key[found]
        for entry, key in keys.items()
        if (found := key[0] if alone else key) in by_key
    }


def not_read_back(target: Target, entry: Entry) -> SQLModelCRUDError:
    """Return the error for a row that was written but cannot be read back."""
    if target.is_shared:
        return ConstraintViolationError(
            f"row {entry.index} of the payload: another {target.model.__name__} row has the same "
            f"{', '.join(target.key)}",
            field=target.key[0],
            kind="unique",
            columns=[column.name for column in target.conflicting],
        )
    return QueryExecutionError(
        f"row {entry.index} of the payload was written, but no {target.model.__name__} has its "
        f"key ({', '.join(target.key)}) now; a trigger or a policy of the database may have "
        "changed it, or the column rounds its values"
    )
