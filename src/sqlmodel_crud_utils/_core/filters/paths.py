"""The filter language: turns `age__gt=30`, `team__name="x"` and the like into SQL criteria.

A filter's name is a path of relationships, a field and a lookup, with `__` or a dot between them;
without a lookup it means equality. A field whose own name contains `__` is found first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from sqlalchemy import BindParameter, ColumnElement, Dialect, bindparam, exists, not_, select
from sqlalchemy.orm import InstrumentedAttribute, RelationshipProperty, aliased

from sqlmodel_crud_utils._core.filters.lookups import (
    LOOKUPS,
    asks_for_null,
    compared_value,
    criterion,
)
from sqlmodel_crud_utils._core.memoizing import cached
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.models.policies import USUAL, Visibility
from sqlmodel_crud_utils._core.visibility.criteria import visible
from sqlmodel_crud_utils._core.visibility.hiding import link_criteria
from sqlmodel_crud_utils.exceptions import UnknownFieldError, ValidationError

_LONGEST = 40  # SQLAlchemy walks nested criteria recursively.
# Overlapping, so that "a___b" splits into "a" and "_b" as well as "a_" and "b".
_SEPARATOR = r"(?=(__|\.))"
_BETWEEN_NAMES = r"__|\."


class Path(NamedTuple):
    """What a filter's name refers to.

    Attributes:
        relationships: The relationships that lead to the field.
        name: The field, or a relationship that is compared with None itself.
        lookup: The lookup.
    """

    relationships: tuple[str, ...]
    name: str
    lookup: str


def where_clauses(
    model: type[Any],
    filters: Mapping[str, Any],
    dialect: Dialect,
    visibility: Visibility = USUAL,
) -> list[ColumnElement[bool]]:
    """Return the criteria of filters; a row has to meet all of them.

    A filter on a related model says that there is such a related row (EXISTS). Two filters on
    the same to-many relationship may be met by two different rows.

    Args:
        model: The table model whose rows are filtered.
        filters: Names with lookups, and values.
        dialect: The dialect of the database that runs the statement.
        visibility: Which related rows count.

    Raises:
        UnknownFieldError: If a name is not a field or relationship of the model.
        ValidationError: If a lookup is unknown or doesn't fit, or a value can't be coerced.

    Example:
        >>> statement = select(Hero).where(
        ...     *where_clauses(Hero, {"age__gt": 30, "team__city": "Oslo"}, engine.dialect)
        ... )
    """
    return [
        _criterion(model, path_of(model, name), value, dialect, visibility)
        for name, value in filters.items()
    ]


def compared_values(model: type[Any], filters: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """Return the coerced values of filters, or None if one is not a plain comparison.

    Filters of these names with other such values are the same SQL, apart from its parameters.

    Raises:
        UnknownFieldError: If a name is not a field or relationship of the model.
        ValidationError: If a lookup is unknown, or a value can't be coerced.
    """
    values = []
    for name, value in filters.items():
        attribute, lookup = _compared(model, name)
        found = None if attribute is None else compared_value(attribute, lookup, value)
        if found is None:
            return None
        values.append(found)
    return tuple(values)


def with_parameters(
    model: type[Any], names: Iterable[str], prefix: str
) -> dict[str, BindParameter[Any]]:
    """Return filters of these names whose values are parameters: `prefix_0` and so on."""
    found = {}
    for number, name in enumerate(names):
        attribute: Any = _compared(model, name)[0]
        type_ = attribute.property.columns[0].type
        found[name] = bindparam(f"{prefix}_{number}", type_=type_)
    return found


@cached
def _compared(model: type[Any], name: str) -> tuple[InstrumentedAttribute[Any] | None, str]:
    """Return the field of a filter, None for a relationship, and its lookup."""
    path = path_of(model, name)
    for each in path.relationships:
        model = facts_of(model).relationships[each].mapper.class_
    return facts_of(model).attributes.get(path.name), path.lookup


@cached
def path_of(model: type[Any], text: str) -> Path:
    """Return what a filter's name refers to.

    Raises:
        UnknownFieldError: If a part of it is not a field or relationship.
        ValidationError: If the lookup is unknown.
    """
    if not isinstance(text, str):
        raise ValidationError(f"names of filters must be strings, not {type(text).__name__}")
    names = names_in(text)
    facts = facts_of(model)
    columns, relationships = facts.columns, facts.relationships
    first_error: ValidationError | None = None
    for head, rest in splits(text):
        try:
            if head in columns:
                return Path((), head, _lookup(model, head, rest))
            if head in relationships:
                return _through(model, head, rest)
        except ValidationError as error:
            first_error = first_error or error
    # The reading that gets furthest explains the mistake best.
    raise first_error or UnknownFieldError(model, names[0], (*columns, *relationships))


def names_in(path: str) -> list[str]:
    """Split a path into names, on the assumption that no name contains a separator.

    Raises:
        ValidationError: A path that is too long.
    """
    names = re.split(_BETWEEN_NAMES, path)
    if len(names) - 1 > _LONGEST:
        raise ValidationError(f"a path can have at most {_LONGEST} names")
    return names


def splits(path: str) -> Iterator[tuple[str, str | None]]:
    """Split a path into a head and a rest in every way, the longest head first."""
    yield path, None
    for match in reversed(list(re.finditer(_SEPARATOR, path))):
        yield path[: match.start()], path[match.end(1) :]


def _lookup(model: type[Any], name: str, lookup: str | None) -> str:
    if lookup is None:
        return "eq"
    if lookup not in LOOKUPS:
        raise ValidationError(
            f"{model.__name__}.{name} has no lookup {lookup!r}; "
            f"the lookups are {', '.join(LOOKUPS)}",
            name,
        )
    return lookup


def _through(model: type[Any], name: str, rest: str | None) -> Path:
    if rest is None:
        return Path((), name, "eq")
    target = facts_of(model).relationships[name].mapper.class_
    try:
        path = path_of(target, rest)
    except UnknownFieldError:
        if rest in LOOKUPS:
            return Path((), name, rest)
        raise
    return Path((name, *path.relationships), path.name, path.lookup)


def _criterion(
    model: type[Any], path: Path, value: Any, dialect: Dialect, visibility: Visibility
) -> ColumnElement[bool]:
    steps = [
        _step(model, path.relationships[:length], visibility)
        for length in range(1, len(path.relationships) + 1)
    ]
    attribute = getattr(steps[-1].target if steps else model, path.name)
    if isinstance(attribute.property, RelationshipProperty):
        last = _step(model, (*path.relationships, path.name), visibility)
        found = last.exists()
        if _wants_none(attribute, path.lookup, value):
            found = not_(found)
    else:
        found = criterion(attribute, path.lookup, value, dialect)
    for step in reversed(steps):
        found = step.exists(found)
    return found


def _wants_none(relationship: InstrumentedAttribute[Any], lookup: str, value: Any) -> bool:
    wanted = asks_for_null(relationship, lookup, value)
    if wanted is None:
        name = relationship.key
        fields = facts_of(relationship.property.mapper.class_).columns
        raise ValidationError(
            f"{relationship.parent.mapper.class_.__name__}.{name} is a relationship; filter by "
            f"a field of it ({', '.join(f'{name}__{field}' for field in fields)}), "
            f"or by {name}__is_null=True or False",
            name,
            value,
        )
    return wanted


class _Step(NamedTuple):
    """One relationship of a path.

    Attributes:
        target: An alias of the related model. A path may come back to a table that it began
            with, and the caller's statement may join the table too.
        related: The criteria that a row of `target` is related, and visible.
    """

    target: Any
    related: tuple[Any, ...]

    def exists(self, *criteria: ColumnElement[bool]) -> ColumnElement[bool]:
        """Return the criterion that a related row meets the criteria."""
        return exists(select(1).select_from(self.target).where(*self.related, *criteria))


# Cached: aliases and relationship criteria take longer to build than everything else.
@cached
def _step(model: type[Any], names: tuple[str, ...], visibility: Visibility) -> _Step:
    *earlier, name = names
    parent = _step(model, tuple(earlier), visibility).target if earlier else model
    relationship = getattr(parent, name)
    target = aliased(relationship.property.mapper.class_)
    related = relationship.of_type(target)
    # Criteria inside and_() are adapted to the alias of the link table.
    related = related.and_(*link_criteria(relationship, visibility))
    shown = visible(target, visibility)
    return _Step(target, (related,) if shown is None else (related, shown))
