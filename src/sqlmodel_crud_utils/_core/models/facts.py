"""Facts about a table model, collected once: its columns, key, relationships and storage.

Each model has one `Facts` object, like Django's `_meta`. It is passed along wherever a model is
worked on.
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

from sqlmodel_crud_utils._core.memoizing import cached
from sqlmodel_crud_utils._core.models.policies import Policy, Visibility, holding
from sqlmodel_crud_utils._core.sqlalchemy_internals import notes_of
from sqlmodel_crud_utils.exceptions import UnknownFieldError, ValidationError

_JOINED = frozenset({False, "joined"})
_EAGER = _JOINED | {"immediate", "selectin", "subquery"}


def facts_of(model: type[Any]) -> Facts:
    """Return the facts of a table model; anything else is a `ValidationError`."""
    # Something else, such as an instance of a model, may be unhashable.
    facts = _facts(model) if isinstance(model, type) else None
    if facts is None:
        raise ValidationError(
            f"{_described(model)} is not a table model; "
            "pass a SQLModel class that is declared with table=True",
            field="model",
        )
    return facts


def facts_of_row(row: Any) -> Facts:
    """Return the facts of a row's model; anything but a row is a `ValidationError`."""
    facts = _facts(type(row))
    if facts is None:
        kind = f"the class {row.__name__}" if isinstance(row, type) else type(row).__name__
        raise ValidationError(
            "a row must be an instance of a SQLModel class that is declared with table=True, "
            f"not {kind}",
            field="data_row",
        )
    return facts


@cached
def _facts(model: type[Any]) -> Facts | None:
    mapper = inspect(model, raiseerr=False)
    return Facts(model, mapper) if isinstance(mapper, Mapper) else None


def _described(model: Any) -> str:
    return model.__name__ if isinstance(model, type) else repr(type(model).__name__)


def expressions_of(mapper: Mapper[Any]) -> dict[str, ColumnElement[Any]]:
    """Return the expressions of a model (`column_property`) by the names of its fields."""
    found = {each.key: each.columns[0] for each in mapper.column_attrs}
    return {name: each for name, each in found.items() if not isinstance(each, Column)}


@dataclass(frozen=True, eq=False)
class Facts:
    """Facts about a table model.

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
        """The fields that a statement can write to.

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
        """The fields that are filled only if a query asks for them."""
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
        """Return the name of a column's field."""
        return self.mapper.get_property_by_column(column).key

    def names_of(self, columns: Sequence[str]) -> tuple[str, ...]:
        """Return the fields of columns, which are given by their names in the table."""
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

    # --- visibility ------------------------------------------------------------------------------

    @cached_property
    def policies(self) -> tuple[Policy, ...]:
        """The policies that apply to the rows of the model."""
        return self.policies_in(Visibility())

    def policies_in(self, visibility: Visibility) -> tuple[Policy, ...]:
        """Return the policies that apply to the rows of the model under this visibility."""
        return tuple(each for each in holding(visibility) if issubclass(self.model, each.base))

    # --- how rows are stored ---------------------------------------------------------------------

    @property
    def table(self) -> Table:
        """The table of the model, which must be stored in a single one."""
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
        """Whether one statement can write and return a whole row, with the result of a flush."""
        return (
            self.is_plain
            and self.table.implicit_returning
            and self.version is None
            and len(list(self.mapper.self_and_descendants)) == 1
            and not any(attribute.deferred for attribute in self.mapper.column_attrs)
        )

    @cached_property
    def has_on_update_values(self) -> bool:
        """Whether an UPDATE sets more than the given fields, so an empty one must not be sent."""
        columns = self.mapper.persist_selectable.columns
        return any(column.onupdate is not None or column.server_onupdate for column in columns)

    @cached_property
    def has_exact_key(self) -> bool:
        """Whether Python and the database agree on which keys are equal; on texts they may not."""
        return all(isinstance(each.type, Integer | Uuid) for each in self.mapper.primary_key)

    @cached_property
    def change_trackers(self) -> tuple[Callable[[InstanceState[Any]], object], ...]:
        """The listeners with which `Mutable` tracks in-place changes of a loaded row's values.

        SQLModel stores what it is given past the event in which `Mutable` wraps it.
        """
        listeners = manager_of_class(self.model).dispatch.load
        return tuple(each for each in listeners if each.__module__ == "sqlalchemy.ext.mutable")

    # --- related rows ----------------------------------------------------------------------------

    def reachable(self) -> AbstractSet[Mapper[Any]]:
        """Return the mappers that relationships lead to, with subclasses and the model's own."""
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
        """Return the mappers whose rows a query of the model may read.

        Besides those that relationships lead to, expressions name some (`column_property`).
        """
        reached = self.reachable()
        expressions = (each for mapper in reached for each in expressions_of(mapper).values())
        notes = (notes_of(part) for each in expressions for part in visitors.iterate(each))
        return reached | {each["parentmapper"] for each in notes if "parentmapper" in each}

    @cached_property
    def loads_alone(self) -> bool:
        """Whether a row is loaded without any related row."""
        return all(each.lazy not in _EAGER for each in self.relationships.values())

    @cached_property
    def loads_eagerly(self) -> bool:
        """Whether a mapping makes rows, or their related rows, load further related rows."""
        return any(
            relationship.lazy in _EAGER
            for mapper in self.reachable()
            for relationship in mapper.relationships
        )

    @cached_property
    def loaded_at_once(self) -> frozenset[str]:
        """The relationships that the mapping loads for all rows of a query at once.

        Each row is repeated for its related rows, or these come by a subquery.
        """
        related = self.relationships.items()
        return frozenset(name for name, each in related if _is_loaded_at_once(each, set()))

    @cached_property
    def loads_subclasses(self) -> bool:
        """Whether rows of subclasses are completed by queries of their own."""
        return any(each.polymorphic_load == "selectin" for each in self.mapper.self_and_descendants)

    @cached_property
    def referring(self) -> tuple[str, ...]:
        """The relationships whose rows are changed when a row is deleted."""
        return tuple(name for name, each in self.relationships.items() if not _is_left_alone(each))

    @cached_property
    def leaves_alone(self) -> bool:
        """Whether deleting a row leaves its related rows unchanged."""
        return not self.referring


def _is_loaded_at_once(
    relationship: RelationshipProperty[Any], seen: set[RelationshipProperty[Any]]
) -> bool:
    if relationship.lazy == "subquery":
        return True
    if relationship in seen or relationship.lazy not in _JOINED:
        return False
    seen.add(relationship)
    behind = relationship.mapper.relationships
    return bool(relationship.uselist) or any(_is_loaded_at_once(each, seen) for each in behind)


def _is_left_alone(relationship: RelationshipProperty[Any]) -> bool:
    return (
        relationship.viewonly
        or (relationship.direction is MANYTOONE and not relationship.cascade.delete)
        or (relationship.direction is ONETOMANY and bool(relationship.passive_deletes))
    )
