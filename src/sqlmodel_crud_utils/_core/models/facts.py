"""What a table model is, found out once: its columns, its key, its relationships, how it is stored.

There is one object of facts for each model, as Django has its `_meta`. Whatever runs for a model
carries it, so that nobody has to ask again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from sqlalchemy import Column, ColumnElement, Integer, Table, Uuid, inspect
from sqlalchemy.orm import InstanceState, InstrumentedAttribute, Mapper, RelationshipProperty
from sqlalchemy.orm.attributes import manager_of_class
from sqlalchemy.orm.interfaces import MANYTOONE, ONETOMANY
from sqlalchemy.sql import visitors

from sqlmodel_crud_utils._core.caching import cached
from sqlmodel_crud_utils._core.models.policies import Policy, Visibility, holding
from sqlmodel_crud_utils._core.sqlalchemy_internals import notes_of
from sqlmodel_crud_utils.exceptions import UnknownFieldError, ValidationError

_EAGER = frozenset({False, "immediate", "joined", "selectin", "subquery"})


def facts_of(model: type[Any]) -> Facts:
    """Return the facts of a table model; anything else is a `ValidationError`."""
    # What is not a class may be unhashable, an instance of a model for example.
    facts = _facts(model) if isinstance(model, type) else None
    if facts is None:
        raise ValidationError(
            f"{_described(model)} is not a table model; "
            "pass a SQLModel class that is declared with table=True",
            field="model",
        )
    return facts


@cached
def _facts(model: type[Any]) -> Facts | None:
    mapper = inspect(model, raiseerr=False)
    return Facts(model, mapper) if isinstance(mapper, Mapper) else None


def _described(model: Any) -> str:
    return model.__name__ if isinstance(model, type) else repr(type(model).__name__)


def expressions_of(mapper: Mapper[Any]) -> dict[str, ColumnElement[Any]]:
    """Return what queries of a model work out (`column_property`), by the names of its fields."""
    found = {each.key: each.columns[0] for each in mapper.column_attrs}
    return {name: each for name, each in found.items() if not isinstance(each, Column)}


@dataclass(frozen=True, eq=False)
class Facts:
    """What a table model is.

    Attributes:
        model: The model.
        mapper: Its mapper.
    """

    model: type[Any]
    mapper: Mapper[Any]

    # --- fields ----------------------------------------------------------------------------------

    @cached_property
    def columns(self) -> Mapping[str, Column[Any]]:
        """The columns by the names of their fields, in the order of declaration.

        Among them may be expressions that a query works out (`column_property`).
        """
        return {each.key: cast("Column[Any]", each.columns[0]) for each in self.mapper.column_attrs}

    @cached_property
    def attributes(self) -> Mapping[str, InstrumentedAttribute[Any]]:
        """The attributes of the columns by the names of their fields."""
        return {name: getattr(self.model, name) for name in self.columns}

    @cached_property
    def relationships(self) -> Mapping[str, RelationshipProperty[Any]]:
        """The relationships by name."""
        return dict(self.mapper.relationships.items())

    @cached_property
    def key(self) -> tuple[str, ...]:
        """The fields of the primary key, in the order of its columns."""
        return tuple(map(self.name_of, self.mapper.primary_key))

    @cached_property
    def key_attributes(self) -> tuple[InstrumentedAttribute[Any], ...]:
        """The attributes of the primary key, in the order of its columns."""
        return tuple(self.attributes[name] for name in self.key)

    @cached_property
    def version(self) -> str | None:
        """The field that counts the versions of a row, if the model has one."""
        column = self.mapper.version_id_col
        return None if column is None else self.name_of(column)

    @cached_property
    def written(self) -> frozenset[str]:
        """The fields that a statement can write.

        Not among them are expressions that a query works out, and columns that the database
        computes.
        """
        return frozenset(
            name
            for name, column in self.columns.items()
            if isinstance(column, Column) and column.computed is None
        )

    @cached_property
    def queried(self) -> frozenset[str]:
        """The fields that hold something only where a query asks for it."""
        expression = (("query_expression", True),)
        attributes = self.mapper.column_attrs
        return frozenset(each.key for each in attributes if each.strategy_key == expression)

    @cached_property
    def updated_always(self) -> Sequence[str]:
        """The fields that every UPDATE sets: the version, and those with an on-update value."""
        return tuple(
            name
            for name, column in self.columns.items()
            if name == self.version or getattr(column, "onupdate", None) is not None
        )

    def name_of(self, column: Any) -> str:
        """Return the field of a column."""
        return self.mapper.get_property_by_column(column).key

    def names_of(self, columns: Sequence[str]) -> tuple[str, ...]:
        """Return the fields for columns of the model's table that are given by name."""
        return tuple(name for name, column in self.columns.items() if column.name in columns)

    def attribute(self, name: str) -> InstrumentedAttribute[Any]:
        """Return a column's attribute by name; an unknown name is an `UnknownFieldError`."""
        if name not in self.columns:
            raise UnknownFieldError(self.model, name, self.columns)
        return self.attributes[name]

    def relationship(self, name: str) -> InstrumentedAttribute[Any]:
        """Return a relationship's attribute by name; an unknown name is an `UnknownFieldError`."""
        if name not in self.relationships:
            raise UnknownFieldError(self.model, name, self.relationships, what="relationship")
        attribute: InstrumentedAttribute[Any] = getattr(self.model, name)
        return attribute

    def check_written(self, name: str, value: Any) -> None:
        """Refuse a value for a field that no statement can write."""
        if name not in self.written:
            raise ValidationError(
                f"{self.model.__name__}.{name} is computed by the database; leave it out",
                name,
                value,
            )

    # --- which rows there are --------------------------------------------------------------------

    @cached_property
    def policies(self) -> tuple[Policy, ...]:
        """The policies for the rows of the model."""
        return self.policies_in(Visibility())

    def policies_in(self, visibility: Visibility) -> tuple[Policy, ...]:
        """Return the policies that hold for the rows of the model in a call."""
        return tuple(each for each in holding(visibility) if issubclass(self.model, each.base))

    # --- how rows are stored ---------------------------------------------------------------------

    @property
    def table(self) -> Table:
        """The table of a model that is stored in one."""
        return cast("Table", self.mapper.persist_selectable)

    @cached_property
    def is_one_table(self) -> bool:
        """Whether one statement can write to the model's rows."""
        table = self.mapper.local_table
        return isinstance(table, Table) and self.mapper.persist_selectable is table

    @cached_property
    def is_plain(self) -> bool:
        """Whether rows consist of the columns of one table, and nothing else."""
        mapper = self.mapper
        if not self.is_one_table or mapper.composites:
            return False
        own = set(self.table.columns)
        shared = mapper.inherits is not None or mapper.polymorphic_on is not None
        mapped = [attribute.columns for attribute in mapper.column_attrs]
        return not shared and all(len(columns) == 1 and columns[0] in own for columns in mapped)

    @cached_property
    def is_simple(self) -> bool:
        """Whether a single statement writes a row, and returns all of it, as a flush would."""
        return (
            self.is_plain
            and self.table.implicit_returning
            and self.version is None
            and len(list(self.mapper.self_and_descendants)) == 1
            and not any(attribute.deferred for attribute in self.mapper.column_attrs)
        )

    @cached_property
    def has_on_update_values(self) -> bool:
        """Whether an UPDATE changes more than it names; one that changes nothing must not."""
        columns = self.mapper.persist_selectable.columns
        return any(column.onupdate is not None or column.server_onupdate for column in columns)

    @cached_property
    def has_exact_key(self) -> bool:
        """Whether equal keys are equal in the database too; texts may not be."""
        return all(isinstance(each.type, Integer | Uuid) for each in self.mapper.primary_key)

    @cached_property
    def change_trackers(self) -> tuple[Callable[[InstanceState[Any]], object], ...]:
        """What `Mutable` does when a row is loaded, so as to see changes in place of its values.

        SQLModel stores what it is given past the event in which `Mutable` wraps it.
        """
        listeners = manager_of_class(self.model).dispatch.load
        return tuple(each for each in listeners if each.__module__ == "sqlalchemy.ext.mutable")

    # --- related rows ----------------------------------------------------------------------------

    def reachable(self) -> AbstractSet[Mapper[Any]]:
        """Return the mappers that relationships lead to, subclasses and the own one included."""
        found: set[Mapper[Any]] = set()
        waiting = [self.mapper]
        while waiting:
            mapper = waiting.pop()
            if mapper not in found:
                found.add(mapper)
                waiting.extend(mapper.self_and_descendants)
                waiting.extend(relationship.mapper for relationship in mapper.relationships)
        return found

    def read_along(self) -> AbstractSet[Mapper[Any]]:
        """Return the mappers that a query of the model may read rows of.

        Besides those that relationships lead to, expressions name some (`column_property`).
        """
        reached = self.reachable()
        expressions = (each for mapper in reached for each in expressions_of(mapper).values())
        notes = (notes_of(part) for each in expressions for part in visitors.iterate(each))
        return reached | {each["parentmapper"] for each in notes if "parentmapper" in each}

    @cached_property
    def loads_alone(self) -> bool:
        """Whether no related row is loaded with a row."""
        return all(each.lazy not in _EAGER for each in self.relationships.values())

    @cached_property
    def loads_eagerly(self) -> bool:
        """Whether rows bring in related rows, and these others, because a mapping says so."""
        return any(
            relationship.lazy in _EAGER
            for mapper in self.reachable()
            for relationship in mapper.relationships
        )

    @cached_property
    def leaves_alone(self) -> bool:
        """Whether the related rows stay as they are when a row is deleted."""
        return all(
            each.viewonly
            or (each.direction is MANYTOONE and not each.cascade.delete)
            or (each.direction is ONETOMANY and bool(each.passive_deletes))
            for each in self.relationships.values()
        )
