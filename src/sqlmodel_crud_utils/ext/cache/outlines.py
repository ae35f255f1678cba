"""The constant parts of a SELECT: its text, the tables it reads, its result types."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Column, Dialect, Select, TableClause
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.orm import RelationshipProperty
from sqlalchemy.sql import visitors

from sqlmodel_crud_utils._core.cached_reads import Question
from sqlmodel_crud_utils._core.memoizing import cached
from sqlmodel_crud_utils._core.models.facts import Facts, facts_of
from sqlmodel_crud_utils._core.sqlalchemy_internals import notes_of
from sqlmodel_crud_utils._core.visibility.sql_texts import texts_in
from sqlmodel_crud_utils.ext.cache.store_names import tables_of
from sqlmodel_crud_utils.ext.cache.stored_values import is_cacheable

# The drivers of a database compile the same statement differently, so one dialect is used.
_CLASSES: Mapping[str, Any] = {
    "mariadb": mysql.dialect,
    "mysql": mysql.dialect,
    "postgresql": postgresql.dialect,
    "sqlite": sqlite.dialect,
}
_DIALECTS: Mapping[str, Dialect] = {
    name: dialect(paramstyle="named") for name, dialect in _CLASSES.items()
}
_OTHER = DefaultDialect(paramstyle="named")


@dataclass(frozen=True, slots=True)
class Outline:
    """The parts of a SELECT that are the same for each read.

    Attributes:
        digest: A hash of its SQL and the kinds of its columns, short enough for a name.
        tables: The tables that it reads.
        is_known: Whether these are all; SQL text may read others.
        parameters: The values of fixed parameters.
        callables: Functions that return the values of the statement's other parameters.
        types: The types of the result's columns; None for a model.
    """

    digest: str
    tables: frozenset[str]
    is_known: bool
    parameters: Mapping[str, Any] = field(default_factory=dict)
    callables: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    types: tuple[Any, ...] = ()

    def values(self, given: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the values of all parameters."""
        called = {name: value() for name, value in self.callables.items()}
        return {**self.parameters, **called, **(given or {})}


# Statements from templates are reused.
_outlines: weakref.WeakKeyDictionary[Select[Any], Outline] = weakref.WeakKeyDictionary()


def outline_of(question: Question, dialect: Dialect) -> Outline:
    """Return the outline of a question's SELECT."""
    statement = question.statement
    found = _outlines.get(statement)
    if found is None:
        found = _outlines[statement] = _outline(statement, dialect)
    return found


def _outline(statement: Select[Any], dialect: Dialect) -> Outline:
    compiled: Any = statement.compile(dialect=_DIALECTS.get(dialect.name, _OTHER))
    binds = {name: bind for bind, name in compiled.bind_names.items()}
    parts = (statement, compiled.compile_state.statement)
    elements = [each for part in parts for each in visitors.iterate(part)]
    described = statement.column_descriptions
    types = tuple(None if each["expr"] is each["entity"] else each["type"] for each in described)
    # A SELECT of a model and one of its columns may have the same SQL.
    kinds = "".join("r" if type_ is None else "v" for type_ in types)
    return Outline(
        hashlib.blake2b(f"{kinds} {compiled.string}".encode(), digest_size=16).hexdigest(),
        _tables(elements),
        not any(text for each in elements for text in texts_in(each)),
        {name: bind.value for name, bind in binds.items() if bind.callable is None},
        {name: bind.callable for name, bind in binds.items() if bind.callable is not None},
        types,
    )


def _tables(elements: Iterable[Any]) -> frozenset[str]:
    found: set[str] = set()
    for element in elements:
        if isinstance(element, TableClause):
            found.add(str(element))
        elif isinstance(element, Column) and element.table is not None:
            found.add(str(element.table))
        mapper = notes_of(element).get("parentmapper")
        if mapper is not None:
            found |= tables_of(mapper)
    return frozenset(found)


@cached
def computes(facts: Facts) -> bool:
    """Return whether a query computes fields of a model, perhaps from other rows."""
    return not all(isinstance(column, Column) for column in facts.columns.values())


def loaded_tables(question: Question) -> frozenset[str]:
    """Return the tables of related rows that are loaded."""
    facts = facts_of(question.model)
    if facts.loads_eagerly:
        return _all_tables_behind(facts)
    steps = [step for path, _ in question.loading for step in path]
    return _NONE.union(*(_tables_behind(step.property) for step in steps)) if steps else _NONE


_NONE = frozenset[str]()


@cached
def _all_tables_behind(facts: Facts) -> frozenset[str]:
    """Return the tables of all rows that are related to a model's, however indirectly."""
    relationships = {each for mapper in facts.reachable() for each in mapper.relationships}
    return _NONE.union(*map(_tables_behind, relationships))


@cached
def _tables_behind(relationship: RelationshipProperty[Any]) -> frozenset[str]:
    """Return the tables that loading a relationship reads."""
    joined = (relationship.primaryjoin, relationship.secondaryjoin, relationship.secondary)
    parts = [*joined, relationship.entity.selectable, *(relationship.order_by or ())]
    columns = (
        column
        for mapper in relationship.mapper.self_and_descendants
        for column in facts_of(mapper.class_).columns.values()
    )
    elements = (
        each for part in (*parts, *columns) if part is not None for each in visitors.iterate(part)
    )
    return tables_of(relationship.mapper) | _tables(elements)


def are_columns_cacheable(question: Question) -> bool:
    """Return whether all columns that a read may return can be stored without pickling."""
    facts = facts_of(question.model)
    return _are_cacheable(facts, bool(question.loading) or facts.loads_eagerly)


@cached
def _are_cacheable(facts: Facts, with_related: bool) -> bool:
    mappers = facts.reachable() if with_related else [facts.mapper]
    columns = (
        column
        for mapper in mappers
        for each in mapper.self_and_descendants
        for column in facts_of(each.class_).columns.values()
    )
    return all(is_cacheable(column.type) for column in columns)
