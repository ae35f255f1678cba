"""The target of a bulk write: the columns, keys and defaults of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    ColumnDefault,
    ColumnElement,
    Dialect,
    ForeignKeyConstraint,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
)
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.schema import ColumnCollectionConstraint
from sqlalchemy.sql import visitors

from sqlmodel_crud_utils._core.dialects import FEATURES, features_of
from sqlmodel_crud_utils._core.memoizing import cached
from sqlmodel_crud_utils._core.models.facts import Facts, facts_of
from sqlmodel_crud_utils._core.models.policies import Policy
from sqlmodel_crud_utils.exceptions import UnknownFieldError, ValidationError

ColumnNames = str | Sequence[str] | None


@dataclass(frozen=True, eq=False)
class Target:
    """The target of an upsert or a bulk insert.

    Attributes:
        facts: What the model is.
        columns: The columns of the table by the names of the model's fields.
        key: The fields of the unique key that tells whether a row is already there.
        policies: Those that the key belongs to: it is unique among the rows that they show.
        beside: The columns that the key has because of these, which the caller doesn't name.
        overwritten: The fields that an upsert may change in a row that is already there.
    """

    facts: Facts
    columns: Mapping[str, Column[Any]]
    key: tuple[str, ...]
    policies: tuple[Policy, ...]
    beside: tuple[Column[Any], ...]
    overwritten: frozenset[str]

    @property
    def model(self) -> type[Any]:
        """The table model."""
        return self.facts.model

    @property
    def table(self) -> Table:
        """The model's table."""
        return self.facts.table

    @cached_property
    def attributes(self) -> Mapping[str, InstrumentedAttribute[Any]]:
        """The model's attributes of these columns."""
        return {name: self.facts.attributes[name] for name in self.columns}

    @cached_property
    def conflicting(self) -> list[Column[Any]]:
        """The columns of the unique key in the database."""
        return [*(self.columns[name] for name in self.key), *self.beside]

    @cached_property
    def criteria(self) -> list[ColumnElement[bool]]:
        """The criteria that an existing row has to meet besides having the key."""
        return [policy.criterion(self.model) for policy in self.policies]

    @cached_property
    def stamped(self) -> frozenset[str]:
        """The fields that are set once, when a row is created."""
        return _stamps(self.facts)

    @cached_property
    def is_shared(self) -> bool:
        """Whether a row that is not visible here, one of another tenant, may have the key."""
        policies = [each for each in self.facts.policies if each.everywhere]
        names = {name for policy in policies for name in policy.key_columns}
        return bool(names) and names.isdisjoint(column.name for column in self.conflicting)

    @cached_property
    def generated(self) -> frozenset[str]:
        """The fields of the key that the database fills in when a row gives none."""
        if set(self.key) != set(self.facts.key):
            return frozenset()
        return frozenset(name for name in self.key if _fills_in(self.columns[name]))

    @cached_property
    def self_filling(self) -> frozenset[str]:
        """The fields for which None means "not given".

        The ORM takes None so where a default is there to replace it, and a stamp of the last
        update is not wiped out because the payload came from rows that had none yet.
        """
        return frozenset(
            name
            for name, column in self.columns.items()
            if column.onupdate is not None
            or (
                (column.primary_key or not column.nullable)
                and (_has_default(column) or _fills_in(column))
            )
        )

    @cached_property
    def required(self) -> frozenset[str]:
        """The fields without which a new row cannot be inserted."""
        return frozenset(
            name
            for name, column in self.columns.items()
            if not column.nullable
            and not _has_default(column)
            and not _fills_in(column)
            and name not in self.fills
        )

    @cached_property
    def empty(self) -> frozenset[str]:
        """The fields that are NULL in a new row whether it gives None or nothing."""
        return frozenset(
            name
            for name, column in self.columns.items()
            if column.nullable
            and not _has_default(column)
            and name not in self.fills
            and not column.type.should_evaluate_none  # JSON's own null is something else
        )

    @cached_property
    def fills(self) -> Mapping[str, Callable[[Mapping[str, Any]], Any]]:
        """The values of a new row for columns that neither the caller nor the table fills.

        That is what the ORM and the model's constructor would fill in: the first version, the
        discriminator of an inheritance, the defaults that only Pydantic knows.
        """
        found: dict[str, Callable[[Mapping[str, Any]], Any]] = {}
        for name, column in self.columns.items():
            default = None if _has_default(column) else _pydantic_default(self.model, name)
            if default is not None:
                found[name] = default
        version, first = self.facts.version, self.facts.mapper.version_id_generator
        if version is not None and callable(first):
            found[version] = lambda _: first(None)
        mapper = self.facts.mapper
        discriminator, identity = mapper.polymorphic_on, mapper.polymorphic_identity
        if isinstance(discriminator, Column) and identity is not None:
            found[self.facts.name_of(discriminator)] = lambda _: identity
        return found

    @cached_property
    def entangled(self) -> frozenset[str]:
        """The fields that make the order of rows significant.

        Rows of different keys can be written in any order unless they meet in another unique key,
        or one refers to another.
        """
        met = [
            columns
            for columns in _exclusive_columns(self.table)
            if columns != frozenset(self.conflicting)
        ]
        if any(column.computed is not None for columns in met for column in columns):
            return frozenset(self.columns)  # it may be computed from any of them
        referring = {key.parent for key in self.table.foreign_keys if key.references(self.table)}
        return self._names_of(referring.union(*met))

    @cached_property
    def other_keys(self) -> tuple[tuple[str, ...], ...]:
        """The other unique keys of the table, to which MySQL reacts too."""
        mapped = frozenset(self.columns.values())
        own = frozenset(self.conflicting)
        keys = [key for key in unique_keys(self.table) if key <= mapped and key != own]
        return tuple(tuple(sorted(self._names_of(key))) for key in keys)

    def _names_of(self, columns: Iterable[Column[Any]]) -> frozenset[str]:
        wanted = set(columns)
        return frozenset(name for name, column in self.columns.items() if column in wanted)


def target_of(
    model: type[Any], pk_fields: ColumnNames = None, update_columns: ColumnNames = None
) -> Target:
    """Return what an upsert of this model writes to.

    Raises:
        UnknownFieldError: A name is not a column of the model.
        ValidationError: `pk_fields` is not a unique key of the table, `update_columns` would change
            the primary key or the version, or the model spans several tables.
    """
    facts = facts_of(model)
    _check_table(facts)
    columns = {
        name: column
        for name, column in facts.columns.items()
        if isinstance(column, Column) and column.table is facts.table
    }
    key, beside = _key(facts, columns, _listed("pk_fields", pk_fields))
    policies = tuple(
        policy
        for policy in facts.policies
        if any(column.name in policy.key_columns for column in beside)
    )
    changeable = set(columns) - set(key) - _fixed(facts)
    wished = _listed("update_columns", update_columns)
    if wished is not None:
        _check_names(model, columns, wished)
        _check_changeable(model, set(wished) - set(key) - changeable)
        changeable &= set(wished)
    return Target(facts, columns, key, policies, beside, frozenset(changeable))


def unique_keys(table: Table) -> list[frozenset[Column[Any]]]:
    """Return the unique keys of a table that hold for all its rows, the primary key first."""
    keys = [frozenset(table.primary_key.columns)] if table.primary_key.columns else []
    keys += [
        frozenset(constraint.columns)
        for constraint in sorted(table.constraints, key=_constraint_name)
        if isinstance(constraint, UniqueConstraint)
    ]
    keys += [
        frozenset(index.columns)
        for index in sorted(table.indexes, key=lambda index: str(index.name))
        if index.unique
        and all(isinstance(expression, Column) for expression in index.expressions)
        and not any(option.endswith("_where") for option in index.dialect_kwargs)
    ]
    return keys


def _constraint_name(constraint: Any) -> str:
    return str(constraint.name)


def _check_table(facts: Facts) -> None:
    if not facts.is_one_table:
        raise ValidationError(
            f"{facts.model.__name__} is not stored in one table of its own; "
            "write its rows with insert_data_rows, or one by one",
            field="model",
        )


def _listed(parameter: str, names: ColumnNames) -> list[str] | None:
    if names is None or isinstance(names, str):
        return None if names is None else [names]
    if not isinstance(names, Iterable):
        raise ValidationError(
            f"{parameter} takes names of columns, not {type(names).__name__}", field=parameter
        )
    return list(names)


def _key(
    facts: Facts, columns: Mapping[str, Column[Any]], wished: list[str] | None
) -> tuple[tuple[str, ...], tuple[Column[Any], ...]]:
    """Return the fields of the key, and the columns that it has because of policies."""
    unique = unique_keys(facts.table)
    if wished is None:
        # v0.1.0's default, if the model has such a field.
        by_id = "id" in columns and frozenset((columns["id"],)) in unique
        return ("id",) if by_id else facts.key, ()
    _check_names(facts.model, columns, wished)
    names = tuple(dict.fromkeys(wished))
    wished_columns = frozenset(columns[name] for name in names)
    if wished_columns in unique:
        return names, ()
    added = {name for policy in facts.policies for name in policy.key_columns}
    for each in unique:
        beside = each - wished_columns
        if wished_columns <= each and added.issuperset(column.name for column in beside):
            return names, tuple(beside)
    raise ValidationError(
        f"({', '.join(wished)}) is not a unique key of {facts.model.__name__}; "
        f"the unique {'key is' if len(unique) == 1 else 'keys are'} {_described(columns, unique)}",
        field="pk_fields",
        value=wished,
    )


def _described(columns: Mapping[str, Column[Any]], keys: list[frozenset[Column[Any]]]) -> str:
    described = [
        ", ".join(sorted(name for name, column in columns.items() if column in key)) for key in keys
    ]
    return f"({'), ('.join(described)})"


def _check_names(model: type[Any], columns: Mapping[str, Column[Any]], names: list[str]) -> None:
    for name in names:
        if name not in columns:
            raise UnknownFieldError(model, name, columns)


def _fixed(facts: Facts) -> set[str]:
    """Return the fields that a conflict never overwrites: key, version and policies' stamps."""
    version = set() if facts.version is None else {facts.version}
    return {*facts.key, *_stamps(facts)} | version


def _stamps(facts: Facts) -> frozenset[str]:
    return frozenset(name for policy in facts.policies for name in policy.stamps)


def _check_changeable(model: type[Any], refused: set[str]) -> None:
    if refused:
        raise ValidationError(
            f"an upsert cannot change {', '.join(sorted(refused))} of an existing "
            f"{model.__name__}; leave the primary key and the version out of update_columns",
            field="update_columns",
        )


def _has_default(column: Column[Any]) -> bool:
    return column.default is not None or column.server_default is not None


def _fills_in(column: Column[Any]) -> bool:
    """Return whether the database makes a value for a row that gives none."""
    made_by_sql = column.default is not None and not isinstance(column.default, ColumnDefault)
    if isinstance(column.default, ColumnDefault):
        made_by_sql = column.default.is_clause_element
    return (
        made_by_sql
        or column.server_default is not None
        or column is column.table.autoincrement_column
    )


def _pydantic_default(model: type[Any], name: str) -> Callable[[Mapping[str, Any]], Any] | None:
    # SQLModel passes a field's default to columns that it creates, but not to a sa_column.
    field = getattr(model, "model_fields", {}).get(name)
    if field is None or field.is_required():
        return None
    factory, default = field.default_factory, field.default
    if factory is None:
        return None if default is None else lambda _: default
    if getattr(field, "default_factory_takes_validated_data", False):
        return lambda values: factory(dict(values))
    return lambda _: factory()


def _exclusive_columns(table: Table) -> Iterator[frozenset[Column[Any]]]:
    """Yield the columns of each constraint that allows one row only: unique and exclusion."""
    harmless = (ForeignKeyConstraint, CheckConstraint)
    for constraint in table.constraints:
        if isinstance(constraint, ColumnCollectionConstraint) and not isinstance(
            constraint, harmless
        ):
            if isinstance(constraint, PrimaryKeyConstraint) and not constraint.columns:
                continue
            # An exclusion constraint may name its columns without the table.
            yield frozenset(table.columns[column.name] for column in constraint.columns)
    for index in table.indexes:
        if index.unique:
            yield frozenset(
                column
                for expression in index.expressions
                if isinstance(expression, ColumnElement)
                for column in visitors.iterate(expression)
                if isinstance(column, Column)
            )


def check_dialect(dialect: Dialect) -> None:
    """Refuse a database for which the library has no upsert."""
    if features_of(dialect).conflict is None:
        *others, last = (features.title for features in FEATURES.values())
        raise ValidationError(
            f"upserts are not supported on {dialect.name}; "
            f"{', '.join(others)} and {last} are supported",
            field="session_inst",
        )


@cached
def deferrable_keys(table: Table) -> list[ColumnCollectionConstraint]:
    """Return the deferrable unique and exclusion constraints.

    PostgreSQL refuses an ON CONFLICT for these, and one that names no key where there is any.
    """
    return [
        constraint
        for constraint in table.constraints
        if isinstance(constraint, ColumnCollectionConstraint)
        and not isinstance(constraint, ForeignKeyConstraint | CheckConstraint)
        and constraint.deferrable
    ]


def check_skipping(target: Target, dialect: Dialect) -> None:
    """Refuse to skip duplicates where the database cannot."""
    features, deferrable = features_of(dialect), deferrable_keys(target.table)
    if deferrable and not features.conflict_skips_deferrable:
        raise ValidationError(
            f"{features.title} cannot skip duplicates of {target.model.__name__}, whose constraint "
            f"on ({', '.join(deferrable[0].columns.keys())}) is deferrable; declare it as not "
            "deferrable, or use bulk_upsert_mappings with another key",
            field="on_conflict",
        )


def check_key(target: Target, dialect: Dialect) -> None:
    """Refuse a key by which the database cannot detect an existing row."""
    features = features_of(dialect)
    keys = [set(constraint.columns) for constraint in deferrable_keys(target.table)]
    if set(target.conflicting) in keys and not features.conflict_skips_deferrable:
        raise ValidationError(
            f"({', '.join(target.key)}) of {target.model.__name__} is a deferrable constraint, "
            f"which {features.title} does not support in an upsert; declare it as not deferrable, "
            "or name another key",
            field="pk_fields",
        )
