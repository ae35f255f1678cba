"""The only module that uses private parts of SQLAlchemy's statements, types and results.

They may change in any version. Each function is one use. Its test names the attribute and runs with
the oldest and the newest version, so it lists what a new version lacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ClauseElement,
    ColumnElement,
    Constraint,
    FromClause,
    Insert,
    Join as JoinClause,
    Result,
    Select,
    Table,
    TextClause,
    Update,
    inspect,
)
from sqlalchemy.orm import FromStatement, LoaderCriteriaOption, RelationshipProperty
from sqlalchemy.orm.strategy_options import _AbstractLoad
from sqlalchemy.sql.elements import Grouping
from sqlalchemy.sql.lambdas import NullLambdaStatement, StatementLambdaElement
from sqlalchemy.sql.util import _deep_annotate
from sqlalchemy.types import TypeEngine

LoaderOption = _AbstractLoad
"""What `selectinload()` and its like return."""

Join = tuple[Any, ...]
"""A call of `Select.join()`: what is joined, its condition, and more."""

# --- statements ----------------------------------------------------------------------------------


def cache_key_of(statement: Any) -> Any:
    """Return SQLAlchemy's cache key of a statement, or None if it has none."""
    found = statement._generate_cache_key()
    return None if found is None else found.key


def source_of(statement: Any) -> Any:
    """Return the statement behind a lambda or `from_statement()`, and any other as it is."""
    if isinstance(statement, StatementLambdaElement | NullLambdaStatement):
        return source_of(statement._resolved)
    return source_of(statement.element) if isinstance(statement, FromStatement) else statement


def is_orm(statement: Any) -> bool:
    """Return whether the ORM compiles a statement."""
    attributes: Mapping[str, Any] = getattr(statement, "_propagate_attrs", {})
    return attributes.get("compile_state_plugin") == "orm"


def criteria_of(statement: Any) -> tuple[ColumnElement[bool], ...]:
    """Return the criteria in the WHERE of a statement."""
    found: tuple[ColumnElement[bool], ...] = statement._where_criteria
    return found


def add_criteria(statement: Any, criteria: Iterable[ColumnElement[bool]]) -> None:
    """Add criteria to a statement itself."""
    statement._where_criteria += tuple(criteria)


def group_texts(statement: Any) -> None:
    """Put parentheses around text() in the WHERE of a statement: AND binds before OR."""
    criteria = getattr(statement, "_where_criteria", ())
    if any(isinstance(each, TextClause) for each in criteria):
        statement._where_criteria = tuple(
            Grouping(each) if isinstance(each, TextClause) else each for each in criteria
        )


def options_of(statement: Any) -> tuple[Any, ...]:
    """Return the options of a statement or any other element."""
    found: tuple[Any, ...] = getattr(statement, "_with_options", ())
    return found


def criteria_in(options: Iterable[Any]) -> Iterator[Any]:
    """Yield the caller's SQL in loader options."""
    for option in options:
        for element in getattr(option, "context", ()):
            yield from getattr(element, "_extra_criteria", ())
            if "expression" in element.local_opts:
                yield element.local_opts["expression"]
        if type(option) is LoaderCriteriaOption:
            entity = option.entity or inspect(option.root_entity)
            yield option._resolve_where_criteria(entity)


def strategies_in(
    options: Iterable[Any],
) -> Iterator[tuple[str, Sequence[RelationshipProperty[Any]]]]:
    """Yield how the caller's loader options load related rows, and by which relationships."""
    for option in options:
        for element in getattr(option, "context", ()):
            steps = element.path.path
            related = [each for each in steps if isinstance(each, RelationshipProperty)]
            yield dict(element.strategy or ()).get("lazy", ""), related


def set_options(statement: Any, options: Iterable[Any]) -> None:
    """Give a statement these options and no others."""
    statement._with_options = tuple(options)


# --- SELECT --------------------------------------------------------------------------------------


def columns_of(select: Select[Any]) -> Sequence[Any]:
    """Return the columns and entities of a SELECT."""
    return select._raw_columns


def froms_of(select: Select[Any]) -> tuple[FromClause, ...]:
    """Return the arguments of `select_from()`."""
    return select._from_obj


def joins_of(select: Select[Any]) -> tuple[Join, ...]:
    """Return the arguments of `join()`."""
    return select._setup_joins


def set_joins(select: Select[Any], joins: Iterable[Join]) -> None:
    """Replace the joins of a SELECT."""
    select._setup_joins = tuple(joins)


def window_of(select: Any) -> tuple[Any, Any]:
    """Return the LIMIT and the OFFSET of a SELECT, None for a missing one."""
    return select._limit_clause, select._offset_clause


def merges_rows(select: Select[Any]) -> bool:
    """Return whether a SELECT has DISTINCT or GROUP BY."""
    return bool(select._distinct or select._group_by_clauses)


def texts_around(select: Any) -> list[str]:
    """Return the prefixes, suffixes and hints of a statement."""
    around = (*getattr(select, "_prefixes", ()), *getattr(select, "_suffixes", ()))
    hints = (*getattr(select, "_statement_hints", ()), *getattr(select, "_hints", {}).items())
    return [str(text) for text, _ in around] + [str(text) for _, text in hints]


def has_full_join(part: Any) -> bool:
    """Return whether a SELECT or a JOIN keeps the rows of both sides that match no other."""
    if isinstance(part, JoinClause):
        return part.full
    return any(flags["full"] for *_, flags in getattr(part, "_setup_joins", ()))


def may_lock(select: Any) -> bool:
    """Return whether a SELECT locks rows, or ends with a text that may do so."""
    suffixes = getattr(select, "_suffixes", ())
    hints = getattr(select, "_statement_hints", ())
    return bool(select._for_update_arg is not None or suffixes or hints)


# --- INSERT and UPDATE ---------------------------------------------------------------------------


def values_of(statement: Any) -> Mapping[Any, Any]:
    """Return the values of an INSERT or UPDATE by column, without execution parameters."""
    return statement._values or {}


def values_in(statement: Any) -> list[ColumnElement[Any]]:
    """Return the values of an UPDATE that are SQL expressions."""
    given = getattr(statement, "_values", None) or {}
    ordered = getattr(statement, "_ordered_values", None) or ()
    values = (*given.values(), *(value for _, value in ordered))
    return [value for value in values if isinstance(value, ColumnElement)]


def ordered_columns_of(update: Any) -> list[Any]:
    """Return the columns of `ordered_values()`, which SQLAlchemy 2.0 stores separately."""
    return [column for column, _ in getattr(update, "_ordered_values", None) or ()]


def rows_of(element: Any) -> Iterable[Iterable[Any]]:
    """Return the lists of rows in an INSERT or in VALUES; an UPDATE has none."""
    kind = "_multi_values" if isinstance(element, Insert | Update) else "_data"
    found: Iterable[Iterable[Any]] = getattr(element, kind)
    return found


def unvisited_sql_of(element: Any) -> Iterator[ClauseElement]:
    """Yield the parts of an element that SQLAlchemy's visitors do not reach.

    It is among the values of rows, and before SQLAlchemy 2.1 in what an INSERT does with rows in
    its way.
    """
    yield from _sql_in(rows_of(element))
    clause = getattr(element, "_post_values_clause", None)
    if clause is not None:
        yield from _sql_in(vars(clause))


def _sql_in(value: Any) -> Iterator[ClauseElement]:
    if isinstance(value, ClauseElement):
        yield value
    elif isinstance(value, Mapping):
        yield from _sql_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _sql_in(each)


def selected_into(insert: Insert) -> Sequence[Any]:
    """Return the columns that an INSERT fills from a SELECT."""
    return insert._select_names or ()


def conflict_clause_of(insert: Any) -> str | None:
    """Return the name of an INSERT's ON CONFLICT or ON DUPLICATE KEY clause."""
    clause = insert._post_values_clause
    return None if clause is None else clause.__visit_name__


def prefixes_of(insert: Any) -> set[str]:
    """Return the words before the INTO of an INSERT, in upper case."""
    return {str(prefix).upper() for prefix, _ in insert._prefixes}


def returns_rows(insert: Any) -> bool:
    """Return whether an INSERT has a RETURNING."""
    return bool(insert._returning)


# --- expressions and types -----------------------------------------------------------------------


def tables_in(expression: Any) -> Sequence[FromClause]:
    """Return the tables that an expression names."""
    found: Sequence[FromClause] = expression._from_objects
    return found


def notes_of(element: Any) -> Mapping[str, Any]:
    """Return the annotations of an expression, such as the model it belongs to."""
    found: Mapping[str, Any] = getattr(element, "_annotations", {})
    return found


def noted(criterion: ColumnElement[bool], notes: Mapping[str, Any]) -> ColumnElement[bool]:
    """Return a criterion with annotations on all its parts, like SQLAlchemy's loader criteria."""
    return _deep_annotate(
        criterion, dict(notes), detect_subquery_cols=True, ind_cols_on_fromclause=True
    )


def variants_of(type_: TypeEngine[Any]) -> Mapping[str, TypeEngine[Any]]:
    """Return the variants of a type for some databases."""
    return type_._variant_mapping


def kind_of(type_: Any) -> Any:
    """Return the most general base type of a type."""
    return type_._type_affinity


def constraints_in_order(table: Table) -> Sequence[Constraint]:
    """Return the constraints of a table in the order in which CREATE TABLE names them."""
    return table._sorted_constraints


def json_serializer_of(dialect: Any) -> Any:
    """Return the JSON serializer of an engine, or None for Python's own."""
    return getattr(dialect, "_json_serializer", None)


# --- results -------------------------------------------------------------------------------------


def width_of(result: Any) -> int:
    """Return how many columns a result has; the public keys() omits unnamed ones."""
    return len(result._metadata._keys)


def repeats_rows(result: Result[Any]) -> bool:
    """Return whether joined eager loading repeats rows, so that `unique()` is required."""
    return result._unique_filter_state is not None
