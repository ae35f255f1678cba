"""How a statement leaves soft-deleted rows out: loader options, and criteria for tables."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Any, TypeVar, cast

from sqlalchemy import Column, ColumnElement, Executable, FromClause, false, inspect, true
from sqlalchemy.orm import (
    InstrumentedAttribute,
    LoaderCriteriaOption,
    Mapper,
    UserDefinedOption,
    aliased,
    registry,
)
from sqlalchemy.orm.interfaces import ORMOption

from sqlmodel_crud_utils._core.caching import Store, cached
from sqlmodel_crud_utils._core.mixins import SoftDeleteMixin
from sqlmodel_crud_utils._core.models.mapping import mapper_of
from sqlmodel_crud_utils._core.visibility import hidden_tables
from sqlmodel_crud_utils._core.visibility.soft_delete import _is_visible, is_soft_delete

_E = TypeVar("_E", bound=Executable)


@cached
def hiding_options(*models: type[Any]) -> tuple[ORMOption, ...]:
    """Return the options that leave deleted rows out of what a query of the models brings in."""
    return _options_for([mapper_of(model) for model in models])


def hide_deleted(statement: _E, model: type[Any]) -> _E:
    """Leave soft-deleted rows out of what a statement of the library returns.

    That goes for the model itself, joined entities and aliases, and related rows that come with
    the rows (selectin, joined) or later (lazy loading). A statement of models without the mixin
    comes back as it is.
    """
    return _with_first(statement, hiding_options(model))


def hide_deleted_anywhere(statement: _E, *models: type[Any]) -> _E:
    """Leave soft-deleted rows out of what a caller's statement returns.

    It may name more than the models: other entities, their tables, `any()` and `has()`.
    """
    flags = _flags(*{mapper_of(model).registry: None for model in models})
    if not flags:
        return statement
    if not any(map(is_soft_delete, models)) and _has_nothing_to_hide(statement, flags, models):
        return statement
    return _hidden_anywhere(statement, flags, models)


def _has_nothing_to_hide(
    statement: Any, flags: hidden_tables.Flags, models: tuple[type[Any], ...]
) -> bool:
    """Tell what takes longer to find out than to remember for all statements that are alike."""
    cache_key = statement._generate_cache_key()
    return cache_key is not None and _hiding_nothing.get(
        (models, cache_key.key),
        lambda: _hidden_anywhere(statement, flags, models) is statement,
    )


_hiding_nothing: Store[Hashable, bool] = Store()


def _hidden_anywhere(statement: _E, flags: hidden_tables.Flags, models: Iterable[type[Any]]) -> _E:
    mappers = {mapper_of(model) for model in models} | hidden_tables.mappers_in(statement)
    return _with_first(hidden_tables.hide(statement, flags), _options_for(mappers))


def _with_first(statement: _E, options: tuple[ORMOption, ...]) -> _E:
    """Return the statement with these options before its own.

    SQLAlchemy's cache doesn't count options that a program defines. With another number of them,
    it takes a statement for one that it knows, and drops the last options for later loads.
    """
    if not options:
        return statement
    own: tuple[ORMOption, ...] = getattr(statement, "_with_options", ())
    changed: Any = statement.options(*options)
    changed._with_options = (*options, *own)
    found: _E = changed
    return found


def models_in(statement: Executable) -> tuple[type[Any], ...]:
    """Return the models that a caller's statement names, always in the same order.

    None of them matters, and none is looked for, where no model has the mixin.
    """
    if not _flags():
        return ()
    models = (mapper.class_ for mapper in hidden_tables.mappers_in(statement))
    return tuple(sorted(models, key=_name))


def link_criteria(attribute: InstrumentedAttribute[Any]) -> list[ColumnElement[bool]]:
    """Return the criterion for the rows of a relationship's link table, if they can be deleted."""
    flag = _flags(attribute.property.parent.registry).get(attribute.property.secondary)
    return [] if flag is None else [flag == false()]


@cached
def _flags(*registries: registry) -> hidden_tables.Flags:
    """Return the tables whose rows can be soft-deleted, each with the column that says so.

    Those of all models that there are, if no registry is given.
    """
    mappers = [mapper for models in registries for mapper in models.mappers]
    models = [mapper.class_ for mapper in mappers] if registries else _heirs(SoftDeleteMixin)
    tables: dict[FromClause, Column[bool]] = {}
    for model in models:
        mapper = inspect(model, raiseerr=False)
        if mapper is not None and is_soft_delete(model):
            column = mapper.columns["is_deleted"]
            tables[column.table] = column
    return tables


def _heirs(base: type[Any]) -> Iterator[type[Any]]:
    for heir in base.__subclasses__():
        yield heir
        yield from _heirs(heir)


def _options_for(mappers: Iterable[Mapper[Any]]) -> tuple[ORMOption, ...]:
    reached = reachable(mappers)
    options: list[ORMOption] = [_hide_rows(mapper.class_) for mapper in _soft_deleting(reached)]
    linked = next((mapper for mapper in reached if _has_soft_delete_link(mapper)), None)
    return tuple(options) if linked is None else (*options, _hide_links(linked.class_))


class _HideRows(LoaderCriteriaOption):
    """The criterion of one model; it goes along with the rows, so it can be pickled with them."""

    _traverse_internals = LoaderCriteriaOption._traverse_internals  # what its cache key consists of

    def _resolve_where_criteria(self, ext_info: Any) -> ColumnElement[bool]:
        if ext_info.is_aliased_class and ext_info.name == _REVEALING:
            return true()
        return super()._resolve_where_criteria(ext_info)

    def __reduce__(self) -> tuple[Any, ...]:
        return _hide_rows, (inspect(self.entity).mapper.class_,)


@cached
def _hide_rows(model: type[Any]) -> _HideRows:
    # A function, not the criterion itself: that one would never be adapted to an alias in a join.
    return _HideRows(model, _is_visible, include_aliases=True)


@cached
def revealing(model: type[Any]) -> Any:
    """Return the alias under which a query for related rows brings in the soft-deleted ones.

    It is known by its name, which is a part of what SQLAlchemy keeps compiled statements by.
    """
    return aliased(model, name=_REVEALING)


_REVEALING = "with_deleted"


def reachable(mappers: Iterable[Mapper[Any]]) -> set[Mapper[Any]]:
    """Return the mappers and those that relationships lead to, subclasses included."""
    found: set[Mapper[Any]] = set()
    waiting = list(mappers)
    while waiting:
        mapper = waiting.pop()
        if mapper not in found:
            found.add(mapper)
            waiting.extend(mapper.self_and_descendants)
            waiting.extend(relationship.mapper for relationship in mapper.relationships)
    return found


def _soft_deleting(mappers: set[Mapper[Any]]) -> list[Mapper[Any]]:
    """Return those whose rows can be soft-deleted, without what a base class covers already.

    They are sorted, so that equal statements stay equal for SQLAlchemy's cache.
    """
    found = {mapper for mapper in mappers if is_soft_delete(mapper.class_)}
    topmost = [mapper for mapper in found if mapper.inherits not in found]
    return sorted(topmost, key=lambda mapper: _name(mapper.class_))


def _name(model: type[Any]) -> tuple[str, str]:
    return model.__module__, model.__qualname__


class _HideLinks(UserDefinedOption):
    """Tells later loads of relationships to leave out deleted rows of link tables."""

    propagate_to_loaders = True

    def __reduce__(self) -> tuple[Any, ...]:
        return _hide_links, (self.payload,)


def _hide_links(model: type[Any]) -> _HideLinks:
    return _HideLinks(model)


def has_soft_delete_links() -> bool:
    """Return whether any relationship goes through a link table whose rows can be deleted."""
    mappers = (inspect(model, raiseerr=False) for model in _heirs(SoftDeleteMixin))
    registries = {mapper.registry for mapper in mappers if mapper is not None}
    return any(_has_soft_delete_link(mapper) for each in registries for mapper in each.mappers)


def without_deleted_links(statement: _E, options: Iterable[Any]) -> _E:
    """Leave deleted rows of link tables out of a relationship's load, if its options say so."""
    for option in options:
        if isinstance(option, _HideLinks):
            flags = _flags(mapper_of(cast("type[Any]", option.payload)).registry)
            statement = hidden_tables.hide(statement, flags)
    return statement


def is_hiding(option: ORMOption) -> bool:
    """Tell whether an option is one of those that leave deleted rows out."""
    return isinstance(option, _HideRows | _HideLinks)


def _has_soft_delete_link(mapper: Mapper[Any]) -> bool:
    flags = _flags(mapper.registry)
    return any(relationship.secondary in flags for relationship in mapper.relationships)
