"""Sort terms: the same order on every database, NULLs included.

NULLs come last in both directions. By default PostgreSQL treats them as the largest values, SQLite
and MySQL as the smallest. To sort by a related row's field, the row is joined; a missing or
soft-deleted one counts as NULLs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

from sqlalchemy import (
    Column,
    ColumnElement,
    Dialect,
    Double,
    Enum,
    Float,
    Select,
    String,
    TextClause,
    UnaryExpression,
    cast as sql_cast,
    literal_column,
)
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import InstrumentedAttribute, aliased
from sqlalchemy.sql import coercions, operators, roles
from sqlalchemy.types import TypeDecorator, TypeEngine

from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.filters.paths import names_in, splits
from sqlmodel_crud_utils._core.memoizing import cached
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.models.policies import USUAL, Visibility
from sqlmodel_crud_utils._core.sqlalchemy_internals import notes_of
from sqlmodel_crud_utils._core.values.expressions import require_own
from sqlmodel_crud_utils._core.visibility.hiding import (
    hide_in_tables,
    link_criteria,
    of_caller,
)
from sqlmodel_crud_utils.exceptions import UnknownFieldError, ValidationError


class Step(NamedTuple):
    """A related row that is joined, so that rows are sorted by it.

    Attributes:
        parent: The model that has the relationship, or the alias of one that is joined before.
        name: The relationship.
        target: The alias under which the related row is joined. A path may come back to a table
            that it began with, and the caller's statement may join the table too.
    """

    parent: Any
    name: str
    target: Any

    def relationship(self, visibility: Visibility) -> Any:
        """Return the relationship to join the row by."""
        relationship = getattr(self.parent, self.name)
        joined = relationship.of_type(self.target)
        links = link_criteria(relationship, visibility)
        return joined.and_(*links) if links else joined


class Term(NamedTuple):
    """One criterion of an order.

    Attributes:
        expression: What is compared, as SQL.
        descending: Whether the largest comes first.
        nulls_first: Whether NULLs come before everything else.
        nullable: Whether there can be NULLs.
        name: The name of the field, where it is one.
        steps: The related rows that lead to the field.
    """

    expression: ColumnElement[Any]
    descending: bool = False
    nulls_first: bool = False
    nullable: bool = True
    name: str | None = None
    steps: tuple[Step, ...] = ()

    def clauses(self, dialect: Dialect) -> list[ColumnElement[Any]]:
        """Return the ORDER BY clauses of the term on this database."""
        value = sortable(self.expression, dialect)
        sorted_value = value.desc() if self.descending else value
        if not self.nullable or self._is_native(dialect):
            return [sorted_value]
        if not features_of(dialect).has_null_order:
            null = self.expression.is_(None)
            return [null.desc() if self.nulls_first else null, sorted_value]
        return [sorted_value.nulls_first() if self.nulls_first else sorted_value.nulls_last()]

    def _is_native(self, dialect: Dialect) -> bool:
        """Return whether the database's default puts NULLs in the wanted place."""
        is_largest = features_of(dialect).nulls_largest
        comes_first_natively = self.descending if is_largest else not self.descending
        return comes_first_natively == self.nulls_first


def sortable(expression: ColumnElement[Any], dialect: Dialect) -> ColumnElement[Any]:
    """Return the expression as one that sorts as it compares with a value.

    MySQL sorts an ENUM by its index and compares it as a text; its FLOAT, and PostgreSQL's REAL,
    are equal to no number that can be written down.
    """
    type_, features = _plain(expression.type), features_of(dialect)
    if isinstance(type_, Enum) and type_.native_enum and features.sorts_enums_by_place:
        return sql_cast(expression, String(255))
    if isinstance(type_, Float) and not isinstance(type_, Double):
        if features.widens_floats == "addition":
            return expression.op("+")(literal_column("0e0", Double()))
        if features.widens_floats == "cast":
            return sql_cast(expression, Double())
    return expression


def _plain(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    return type_.impl_instance if isinstance(type_, TypeDecorator) else type_


def key_terms(model: type[Any], terms: Sequence[Term]) -> tuple[Term, ...]:
    """Return the terms, followed by the missing ones of the primary key.

    So no two rows are equal in the order, and it is the same each time.
    """
    named = {term.name for term in terms}
    return (*terms, *(term for term in _terms_of_key(model) if term.name not in named))


@cached
def _terms_of_key(model: type[Any]) -> tuple[Term, ...]:
    return tuple(_of_column(attribute) for attribute in facts_of(model).key_attributes)


def term_of(model: type[Any], given: Any, *, desc: bool) -> Term:
    """Return an argument of `order_by` as a term.

    Args:
        model: The model that is sorted.
        given: The name of a field, with "-" in front for the largest first, also one of a related
            row; or an expression.
        desc: Whether the call says that the largest comes first.

    Raises:
        UnknownFieldError: A name that is not a field.
        ValidationError: A relationship, a path through one to many rows, a contradiction, or
            something that can't be sorted by.
    """
    term = _named(model, given) if isinstance(given, str) else _expressed(model, given)
    if not desc:
        return term
    if term.descending:
        raise ValidationError(
            "descending order is given twice; drop either desc=True or the leading '-'",
            field="order_by",
        )
    return term._replace(descending=True)


@cached
def _named(model: type[Any], name: str) -> Term:
    plain = name.removeprefix("-")
    *path, field = _names(model, plain)
    steps: tuple[Step, ...] = ()
    for relationship in path:
        steps += (_step(steps[-1].target if steps else model, relationship),)
    term = _of_column(getattr(steps[-1].target if steps else model, field))
    if steps:
        term = term._replace(name="__".join((*path, field)), nullable=True, steps=steps)
    return term._replace(descending=plain != name)


@cached
def _step(parent: Any, name: str) -> Step:
    relationship = getattr(parent, name)
    return Step(parent, name, aliased(relationship.property.mapper.class_))


def _names(model: type[Any], path: str) -> tuple[str, ...]:
    """Return the relationships of a path and the field at its end."""
    facts = facts_of(model)
    columns, relationships = facts.columns, facts.relationships
    names_in(path)
    for head, rest in splits(path):
        if rest is None and head in columns:
            return (head,)
        if head in relationships:
            if rest is None:
                raise _not_by_relationship(model, head)
            return (head, *_names(_target_of(model, head), rest))
    raise UnknownFieldError(model, path, columns)


def _target_of(model: type[Any], relationship: str) -> type[Any]:
    found = facts_of(model).relationships[relationship]
    if found.uselist:
        raise ValidationError(
            f"{model.__name__}.{relationship} may have several rows per {model.__name__}, "
            "so rows cannot be sorted by it",
            field="order_by",
        )
    target: type[Any] = found.mapper.class_
    return target


def sorted_by(
    statement: Select[Any],
    terms: Iterable[Term],
    dialect: Dialect,
    visibility: Visibility = USUAL,
) -> Select[Any]:
    """Sort a SELECT of a model's rows.

    Args:
        statement: The SELECT; it leaves out hidden rows already, joined ones too.
        terms: What they are sorted by.
        dialect: The dialect of the database that runs it.
        visibility: Which rows of link tables count.
    """
    terms = list(terms)
    for step in dict.fromkeys(step for term in terms for step in term.steps):
        statement = statement.outerjoin(step.relationship(visibility))
    shown = [term if term.name else _hiding(term, visibility) for term in terms]
    statement = statement.order_by(*(clause for term in shown for clause in term.clauses(dialect)))
    return statement if all(term.name for term in terms) else of_caller(statement)


def _hiding(term: Term, visibility: Visibility) -> Term:
    """Return a term whose expression, the caller's, reads no hidden rows."""
    return term._replace(expression=hide_in_tables(term.expression, visibility))


def _not_by_relationship(model: type[Any], name: str) -> ValidationError:
    return ValidationError(
        f"{model.__name__}.{name} is a relationship, but rows can only be sorted by fields; "
        f"available: {', '.join(facts_of(model).columns)}",
        field="order_by",
    )


def _of_column(attribute: InstrumentedAttribute[Any]) -> Term:
    column = attribute.property.columns[0]
    nullable = bool(column.nullable) if isinstance(column, Column) else True
    return Term(_element(attribute), nullable=nullable, name=attribute.key)


def _element(attribute: Any) -> ColumnElement[Any]:
    return cast("ColumnElement[Any]", attribute.__clause_element__())


def _expressed(model: type[Any], given: Any) -> Term:
    """Split an expression into its direction, its place for NULLs, and what is compared."""
    found = _attribute_term(model, given)
    if found is not None:
        return found
    try:
        expression: Any = coercions.expect(roles.ByOfRole, given)
    except ArgumentError as error:
        raise _not_sortable(given) from error
    if isinstance(expression, TextClause):  # may be several expressions, without a direction
        raise _not_sortable(given)
    term = Term(expression)
    while isinstance(expression, UnaryExpression) and expression.modifier in _MODIFIERS:
        term = term._replace(**_MODIFIERS[expression.modifier])
        expression = expression.element
    named = _attribute_term(model, expression)
    if named is None:
        require_own(model, expression, "order_by")
        return term._replace(expression=expression)
    return named._replace(descending=term.descending, nulls_first=term.nulls_first)


_MODIFIERS: dict[Any, dict[str, Any]] = {
    operators.desc_op: {"descending": True},
    operators.asc_op: {"descending": False},
    operators.nulls_first_op: {"nulls_first": True},
    operators.nulls_last_op: {"nulls_first": False},
}


def _attribute_term(model: type[Any], given: Any) -> Term | None:
    """Return the term of a field of the model, given as an attribute or as the SQL of one."""
    if isinstance(given, InstrumentedAttribute):
        if not _is_of(model, given):
            return None
        facts = facts_of(model)
        if given.key in facts.relationships:
            raise _not_by_relationship(model, given.key)
        return _of_column(given) if given.key in facts.columns else None
    notes = notes_of(given)
    attribute = facts_of(model).attributes.get(notes.get("proxy_key", ""))
    if attribute is None or notes.get("parententity") is None:
        return None
    return _of_column(attribute) if _element(attribute).compare(given) else None


def _is_of(model: type[Any], attribute: InstrumentedAttribute[Any]) -> bool:
    """Return whether it is an attribute of the model itself, not of an alias or another model."""
    parent = attribute.parent
    return not parent.is_aliased_class and issubclass(model, parent.mapper.class_)


def _not_sortable(given: Any) -> ValidationError:
    return ValidationError(
        f"rows are sorted by names of fields or by expressions, not by {type(given).__name__}",
        field="order_by",
    )
