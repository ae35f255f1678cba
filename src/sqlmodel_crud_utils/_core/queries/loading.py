"""How related rows are loaded: relationship names to SQLAlchemy's loader options."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from sqlalchemy.orm import (
    InstrumentedAttribute,
    joinedload,
    lazyload,
    selectinload,
)

from sqlmodel_crud_utils._core.filters.paths import splits
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.models.policies import USUAL, Visibility
from sqlmodel_crud_utils._core.sqlalchemy_internals import LoaderOption
from sqlmodel_crud_utils._core.visibility.hiding import link_criteria, revealing
from sqlmodel_crud_utils._core.visibility.soft_delete import SOFT_DELETION, is_soft_delete
from sqlmodel_crud_utils.exceptions import UnknownFieldError, ValidationError

_SEPARATOR = r"\.|__"

Strategy = Literal["joined", "lazy", "selectin", "selectin_with_deleted"]
RelationshipNames = str | Iterable[str] | None
RelationshipPath = list[InstrumentedAttribute[Any]]
_Steps = tuple[InstrumentedAttribute[Any], ...]


def loading_for(
    model: type[Any],
    selectin: bool,
    select_in_keys: RelationshipNames,
    lazy: bool,
    lazy_load_keys: RelationshipNames,
) -> Loading:
    """Return how a read loads relationships; as in v0.1.0, names count only with their flag.

    A relationship that is asked for in both ways is left for later.
    """
    loading = Loading()
    if selectin:
        paths = relationship_paths(model, select_in_keys, "select_in_keys")
        loading = loading.adding("selectin", paths)
    if lazy:
        loading = loading.adding(
            "lazy", relationship_paths(model, lazy_load_keys, "lazy_load_keys")
        )
    return loading


def field_path(model: type[Any], name: str) -> tuple[RelationshipPath, str]:
    """Return the relationships that a name leads through, and the field at its end.

    Raises:
        UnknownFieldError: A part of the name is not a field or relationship.
    """
    facts = facts_of(model)
    for head, rest in splits(name) if isinstance(name, str) else ():
        if rest is None and head in facts.columns:
            return [], head
        if rest is not None and head in facts.relationships:
            attribute = facts.relationship(head)
            path, field_name = field_path(attribute.property.mapper.class_, rest)
            return [attribute, *path], field_name
    raise UnknownFieldError(model, name, facts.columns)


def relationship_paths(
    model: type[Any], names: RelationshipNames, parameter: str
) -> list[RelationshipPath]:
    """Return the relationships that each name leads through; "team.city" and "team__city" do.

    Args:
        model: The model that the names start from.
        names: The names.
        parameter: What the caller gave them as, for the error.

    Raises:
        UnknownFieldError: A name that is not a relationship.
        ValidationError: Something that is not a name.
    """
    if names is None:
        return []
    if isinstance(names, bool) or not isinstance(names, Iterable):
        raise ValidationError(
            f"relationships must be given by name, not as {type(names).__name__}; "
            "pass a name or a list of names",
            field=parameter,
        )
    listed = [names] if isinstance(names, str) else names
    return [_path(model, name, parameter) for name in listed]


def _path(model: type[Any], name: Any, parameter: str) -> RelationshipPath:
    if not isinstance(name, str):
        raise ValidationError(
            f"relationships must be given by name, not as {type(name).__name__}", field=parameter
        )
    facts = facts_of(model)
    parts = [name] if name in facts.relationships else re.split(_SEPARATOR, name)
    path: RelationshipPath = []
    for part in parts:
        attribute = facts_of(model).relationship(part)
        path.append(attribute)
        model = attribute.property.mapper.class_
    return path


class Loading(NamedTuple):
    """How each of several relationships is loaded.

    Attributes:
        ways: How each relationship is loaded, by the path of relationships that ends with it.
        fields: The fields of related rows to load, by path; without an entry, all of them.
    """

    ways: Mapping[_Steps, Strategy] = MappingProxyType({})
    fields: Mapping[_Steps, tuple[str, ...]] = MappingProxyType({})

    def adding(self, way: Strategy, paths: Iterable[RelationshipPath]) -> Loading:
        """Return a copy with more relationships; of two ways for the same one, the last counts."""
        ways = dict(self.ways)
        for path in map(tuple, paths):
            ways[path] = way
            for length in range(1, len(path)):
                # A relationship on the way to another keeps the way it was given.
                ways.setdefault(path[:length], way)
        return self._replace(ways=ways)

    def only(self, path: RelationshipPath, name: str) -> Loading:
        """Return a copy that adds a field to those that are loaded of a relationship's rows."""
        steps = tuple(path)
        names = dict.fromkeys((*self.fields.get(steps, ()), name))
        loading = self if steps in self.ways else self.adding("selectin", [path])
        return loading._replace(fields={**self.fields, steps: tuple(names)})

    def revealing(self, paths: Iterable[RelationshipPath]) -> Loading:
        """Return a copy in which these relationships include soft-deleted rows."""
        ways: dict[_Steps, Strategy] = dict(self.ways)
        for path in map(tuple, paths):
            if is_soft_delete(facts_of(path[-1].property.mapper.class_)):
                ways[path] = "selectin_with_deleted"
        return self._replace(ways=ways)

    @property
    def joins_many(self) -> bool:
        """Whether a row is repeated, once for each related row."""
        return any(way == "joined" and path[-1].property.uselist for path, way in self.ways.items())

    @property
    def selects(self) -> bool:
        """Whether related rows need more queries."""
        return not _WITH_QUERIES.isdisjoint(self.ways.values())

    @property
    def reaches_twice(self) -> bool:
        """Whether a row can be reached in two ways, for example from another row of its model."""
        steps = {path[:length] for path in self.ways for length in range(1, len(path) + 1)}
        roots = {path[0].property.parent.base_mapper for path in self.ways}
        return len({path[-1].property.mapper.base_mapper for path in steps} | roots) < (
            len(steps) + len(roots)
        )

    def options(self, visibility: Visibility = USUAL) -> list[LoaderOption]:
        """Return the loader options."""
        return [self._option(path, visibility) for path in self.ways]

    @property
    def key(self) -> Hashable:
        """A hashable form, equal for equal loading."""
        return tuple(self.ways.items()), tuple(self.fields.items())

    def _option(self, path: _Steps, visibility: Visibility) -> LoaderOption:
        option: Any = None
        parent: Any = None
        for length, step in enumerate(path, 1):
            way = self.ways[path[:length]]
            loader = _LOADERS[way] if option is None else getattr(option, _LOADERS[way].__name__)
            attribute = step if parent is None else getattr(parent, step.key)
            parent = None
            # In other queries, the hiding option reaches the rows of link tables.
            links = link_criteria(attribute, visibility) if way == "joined" else []
            if way == "selectin_with_deleted":
                parent = revealing(attribute.property.mapper.class_, SOFT_DELETION)
                attribute = attribute.of_type(parent)
            option = loader(attribute.and_(*links) if links else attribute)
        if path in self.fields:
            entity = parent or path[-1].property.mapper.class_
            option = option.load_only(*(getattr(entity, name) for name in self.fields[path]))
        found: LoaderOption = option
        return found


NO_LOADING = Loading()

_LOADERS: dict[Strategy, Callable[..., LoaderOption]] = {
    "joined": joinedload,
    "lazy": lazyload,
    "selectin": selectinload,
    "selectin_with_deleted": selectinload,
}
_WITH_QUERIES = frozenset(("selectin", "selectin_with_deleted"))
