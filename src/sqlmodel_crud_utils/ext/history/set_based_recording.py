"""Record a set-based write entirely in the database, without reading rows into Python.

The record is computed before the write, from the rows and from the statement's values. So these
must be constants or sums of the row's own columns, of types that the database converts to the same
text as `values.text_of` does. Otherwise the rows are read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

from sqlalchemy import (
    CHAR,
    NCHAR,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Delete,
    Dialect,
    Enum,
    Integer,
    LargeBinary,
    Numeric,
    String,
    Table,
    Text,
    Update,
    bindparam,
    case,
    cast,
    func,
    insert,
    literal,
    null,
    or_,
    select,
)
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, Grouping
from sqlalchemy.types import Float, TypeEngine
from sqlmodel import AutoString

from sqlmodel_crud_utils._core.dialects import Features, features_of
from sqlmodel_crud_utils._core.models.facts import Facts
from sqlmodel_crud_utils._core.models.tenant_keys import TENANT
from sqlmodel_crud_utils._core.sqlalchemy_internals import values_of
from sqlmodel_crud_utils._core.visibility.tenancy import belongs_to_tenants
from sqlmodel_crud_utils.ext.history.json_values import stored_type, text_of
from sqlmodel_crud_utils.mixins import UTCDateTime

_SUMS = frozenset((operators.add, operators.sub, operators.mul))
_NULL = "null"
_DIGITS_OF_FLOAT = 15

Text_ = ColumnElement[str]


class NeedsRowsError(Exception):
    """The database cannot compute what a write changes."""


@dataclass(frozen=True)
class SetBased:
    """The record of a set-based write.

    Attributes:
        statement: The INSERT into the history; None if no recorded field changes.
        is_counted: Whether the statement returns how many rows it has seen and locked.
    """

    statement: Any
    is_counted: bool = False

    def run(self, connection: Connection) -> int | None:
        """Record the write; return how many rows it may reach, or None if no one can intervene."""
        if self.statement is None:
            return None
        result = connection.execute(self.statement)
        return int(result.scalar_one()) if self.is_counted else None


def recorded_by_database(
    facts: Facts,
    dialect: Dialect,
    statement: Update | Delete,
    criteria: Sequence[ColumnElement[bool]],
    history: Table,
    same: Mapping[str, Any],
) -> SetBased:
    """Return the record of a write that is about to run.

    Args:
        facts: The facts of the rows' model.
        dialect: The dialect of the database.
        statement: The UPDATE or DELETE.
        criteria: Its criteria.
        history: The history table.
        same: The history columns that are equal for all changes.

    Raises:
        NeedsRowsError: The rows must be read.
    """
    texts = _Texts(facts, dialect)
    fields = dict(texts.fields(statement))
    if not fields:
        return SetBased(None)
    changes = _object(fields, facts.model.__track_redact__)
    differs = or_(*(each.differs for each in fields.values()))
    rows = (
        select(
            texts.key().label("row_key"),
            changes.label("changes"),
            texts.tenant().label("tenant_id"),
        )
        .select_from(facts.table)
        .where(*criteria)
        .with_for_update()
    )
    constants = {name: literal(value, history.c[name].type) for name, value in same.items()}
    features = features_of(dialect)
    if features.locks_gaps or features.single_writer:
        return SetBased(_insert(history, rows.where(differs), constants))
    # Rows that others insert meanwhile are not locked; comparing the counts reveals them.
    seen = rows.add_columns(differs.label("differs")).cte("seen")
    changed = select(seen.c.row_key, cast(seen.c.changes, history.c.changes.type), seen.c.tenant_id)
    recorded = _insert(history, changed.where(seen.c.differs), constants).cte("recorded")
    return SetBased(select(func.count()).select_from(seen).add_cte(recorded), True)


def _insert(history: Table, rows: Any, constants: Mapping[str, Any]) -> Any:
    names = ["row_key", "changes", "tenant_id", *constants]
    return insert(history).from_select(names, rows.add_columns(*constants.values()))


class _Field(NamedTuple):
    """The change of a field by a write.

    Attributes:
        values: The parts of the JSON list of the old value and the new one.
        differs: Whether the write changes it.
    """

    values: Sequence[str | Text_]
    differs: ColumnElement[bool]


def _object(fields: Mapping[str, _Field], hidden: Collection[str]) -> Text_:
    """Return the JSON text of the changed fields of a row."""
    pairs = {name: _pair(name, each, name in hidden) for name, each in fields.items()}
    if len(pairs) == 1:  # unconditional: rows without a difference are not recorded
        [pair] = pairs.values()
        return _joined("{", *pair, "}")
    parts = [
        case((fields[name].differs, _joined(",", *pair)), else_="") for name, pair in pairs.items()
    ]
    return _joined("{", func.substr(_joined(*parts), 2), "}")


def _pair(name: str, field: _Field, is_hidden: bool) -> Sequence[str | Text_]:
    """Return a field's name, old value and new value as parts of a JSON text."""
    start = f"{json.dumps(name)}:"
    return [f'{start}["…","…"]'] if is_hidden else [start, *field.values]


def _joined(*parts: str | Text_) -> Text_:
    """Concatenate parts of a text, merging adjacent constants."""
    known, texts = "", []
    for part in parts:
        if isinstance(part, str):
            known += part
        else:
            texts += [literal(known, Text), part] if known else [part]
            known = ""
    texts += [literal(known, Text)] if known else []
    return reduce(lambda left, right: left.concat(right), texts)


@dataclass(frozen=True)
class _Texts:
    """The JSON texts of a model's fields, as the database writes them."""

    facts: Facts
    dialect: Dialect

    @property
    def features(self) -> Features:
        """The features of the database."""
        return features_of(self.dialect)

    def key(self) -> Text_:
        """Return the text of the primary key."""
        columns = [self.facts.columns[name] for name in self.facts.key]
        if len(columns) > 1 or not isinstance(columns[0].type, Integer):
            raise NeedsRowsError
        return self._text(columns[0])

    def tenant(self) -> Text_:
        """Return the text of the tenant, or NULL for rows without one."""
        if not belongs_to_tenants(self.facts.model):
            return cast(null(), Text)
        column = self.facts.columns[TENANT]
        if not isinstance(column.type, Integer | String):
            raise NeedsRowsError
        return self._text(column)

    def fields(self, statement: Update | Delete) -> Iterator[tuple[str, _Field]]:
        """Yield the change of each field that may change."""
        excluded = self.facts.model.__track_exclude__
        assigned = self._assigned(statement) if isinstance(statement, Update) else None
        for name, column in self.facts.columns.items():
            if name in excluded or name not in self.facts.written:
                continue
            if assigned is None:
                yield name, self._field(column, null(), literal(_NULL, Text))
            elif name in assigned:
                value = assigned[name]
                yield name, self._field(column, value, self._of_value(column, value))

    def _field(self, column: Column[Any], value: Any, new: Text_) -> _Field:
        old = self._of_column(column)
        values: list[str | Text_] = ["[", old, ",", new, "]"]
        if not isinstance(stored_type(column.type, self.dialect), Integer):
            return _Field(values, self._differ(old, new))
        if self.features.has_json_quote:
            values = [func.json_array(column, value, type_=Text)]
        return _Field(values, column.is_distinct_from(value))  # cheaper than their texts

    def _differ(self, old: Text_, new: Text_) -> ColumnElement[bool]:
        """Return whether two texts differ, ignoring the collation."""
        if self.features.text == "BINARY":
            binary: ColumnElement[bool] = cast(old, LargeBinary) != cast(new, LargeBinary)
            return binary
        return old != new

    def _assigned(self, statement: Update) -> Mapping[str, Any]:
        columns = {name: self.facts.columns[name] for name in self.facts.written}
        own = {column.key: name for name, column in columns.items()}
        values = values_of(statement)
        assigned = {own[column.key]: value for column, value in values.items()}
        for name, column in columns.items():
            if column.server_onupdate is not None or (column.onupdate and name not in assigned):
                raise NeedsRowsError
        if self.features.assigns_in_order:
            for name, value in assigned.items():
                used = {own[each.key] for each in _columns(value)}
                if used & (assigned.keys() - {name}):
                    raise NeedsRowsError
        return assigned

    def _of_column(self, column: ColumnElement[Any]) -> Text_:
        return func.coalesce(self._json(column, column.type), _NULL)

    def _of_value(self, column: Column[Any], value: Any) -> Text_:
        type_ = stored_type(column.type, self.dialect)
        if not isinstance(value, BindParameter):
            if not isinstance(type_, Integer) or not _is_sum(value):
                raise NeedsRowsError
            return func.coalesce(self._text(value), _NULL)
        constant = value.effective_value
        if constant is None:
            return literal(_NULL, Text)
        if type_ is not column.type and not isinstance(column.type, AutoString):
            raise NeedsRowsError  # the type may convert equal values differently
        if isinstance(type_, Integer | Boolean | UTCDateTime | Enum):
            return literal(json.dumps(text_of(constant)), Text)
        return self._json(cast(bindparam(None, constant, type_=type_, unique=True), type_), type_)

    def _json(self, value: ColumnElement[Any], type_: TypeEngine[Any]) -> Text_:
        """Return the JSON text of a value; NULL for NULL."""
        stored = stored_type(type_, self.dialect)
        if isinstance(stored, Boolean):
            return case((value.is_(True), "true"), (value.is_(False), "false"))
        if isinstance(stored, Integer):
            return self._text(value)
        if isinstance(stored, UTCDateTime):
            return self._moment(value)
        if isinstance(stored, Numeric) and stored.scale and self._is_exact(stored):
            return self._number(value, stored.scale)
        if isinstance(stored, Enum):
            if stored.values_callable is not None or stored.enum_class is None:
                raise NeedsRowsError
            return self._quoted(self._text(value))
        if isinstance(stored, String) and not isinstance(stored, CHAR | NCHAR):  # they are padded
            return self._quoted(value)
        raise NeedsRowsError

    def _text(self, value: ColumnElement[Any]) -> Text_:
        return cast(value, Text)

    def _quoted(self, value: ColumnElement[Any]) -> Text_:
        if self.features.has_json_quote:
            return func.json_quote(value)
        return cast(func.to_json(cast(value, Text)), Text)

    def _moment(self, value: ColumnElement[Any]) -> Text_:
        if self.features.time_zones:
            text = func.to_char(func.timezone("UTC", value), 'YYYY-MM-DD"T"HH24:MI:SS.US')
        elif "datetime" in self.features.stored_as:
            text = func.replace(cast(value, Text), " ", "T")
        else:
            text = func.date_format(value, "%Y-%m-%dT%H:%i:%s.%f")
        return literal('"', Text).concat(text).concat('+00:00"')

    def _is_exact(self, type_: Numeric[Any]) -> bool:
        """Return whether the database writes a number with all digits of its scale."""
        if isinstance(type_, Float) or not type_.asdecimal:
            return False
        longest = _DIGITS_OF_FLOAT if "decimal" in self.features.stored_as else math.inf
        return (type_.precision or math.inf) <= longest

    def _number(self, value: ColumnElement[Any], scale: int) -> Text_:
        text = self._text(value)
        if "decimal" in self.features.stored_as:
            # printf() would write NULL as 0.
            text = case((value.is_not(None), func.printf(f"%.{scale}f", value)))
        return literal('"', Text).concat(text).concat('"')


def _columns(value: Any) -> Iterator[Any]:
    return (each for each in visitors.iterate(value) if isinstance(each, Column))


def _is_sum(value: Any) -> bool:
    """Return whether a value consists only of sums of integers: of columns and constants."""
    if isinstance(value, Grouping):
        return _is_sum(value.element)
    if isinstance(value, BinaryExpression):
        return value.operator in _SUMS and _is_sum(value.left) and _is_sum(value.right)
    if isinstance(value, BindParameter):
        return isinstance(value.effective_value, int)
    return isinstance(value, Column) and isinstance(value.type, Integer)
