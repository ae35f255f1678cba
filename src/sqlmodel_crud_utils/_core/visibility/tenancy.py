"""Tenancy: the policy that limits statements to the rows of one tenant."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any, NamedTuple

from sqlalchemy import (
    CTE,
    Alias,
    BindParameter,
    Column,
    ColumnElement,
    Delete,
    Executable,
    FromClause,
    Insert,
    Join,
    Select,
    SelectBase,
    Table,
    TableClause,
    TextClause,
    Update,
    func,
)
from sqlalchemy.orm import Mapper, RelationshipProperty
from sqlalchemy.schema import ExecutableDDLElement

from sqlmodel_crud_utils._core.memoizing import Store, cached
from sqlmodel_crud_utils._core.mixins import TenantMixin
from sqlmodel_crud_utils._core.models.facts import expressions_of, facts_of
from sqlmodel_crud_utils._core.models.policies import Policy, everywhere, mappers_of, registered
from sqlmodel_crud_utils._core.models.tenant_keys import TENANT
from sqlmodel_crud_utils._core.sqlalchemy_internals import (
    cache_key_of,
    conflict_clause_of,
    criteria_in,
    has_full_join,
    is_orm,
    notes_of,
    options_of,
    ordered_columns_of,
    prefixes_of,
    rows_of,
    selected_into,
    source_of,
    texts_around,
    unvisited_sql_of,
    values_of,
)
from sqlmodel_crud_utils._core.values.coercion import is_sql
from sqlmodel_crud_utils._core.values.current_tenant import (
    all_in_scope,
    tenant_of_new_row,
    tenant_or_any,
    tenant_parameter,
)
from sqlmodel_crud_utils._core.visibility.criteria import TableCriteria, rules_of
from sqlmodel_crud_utils._core.visibility.hidden_tables import (
    WITH_ROWS,
    concerns,
    elements_of,
    has_bare_join,
    mappers_in,
    subqueries_of,
    unaliased,
)
from sqlmodel_crud_utils._core.visibility.sql_texts import texts_in
from sqlmodel_crud_utils.exceptions import TenantError

FIXED = f"{TENANT} cannot be changed; leave it out"
FOREIGN = "the row belongs to another tenant than the one in scope"


def _is_of_tenant(rows: Any) -> ColumnElement[bool]:
    criterion: ColumnElement[bool] = rows.tenant_id == tenant_parameter(rows.tenant_id.type)
    return criterion


TENANCY = registered(
    Policy(
        "tenancy",
        TenantMixin,
        (TENANT,),
        _is_of_tenant,
        everywhere=True,
        is_lifted=all_in_scope,
        key_columns=frozenset((TENANT,)),
        stamps=frozenset((TENANT,)),
    )
)


@cached
def belongs_to_tenants(model: type[Any]) -> bool:
    """Return whether the rows of a model belong to tenants."""
    return issubclass(model, TenantMixin)


@cached
def leads_to_tenants(model: type[Any]) -> bool:
    """Return whether rows of a model, or rows related to them, belong to tenants."""
    found = facts_of(model).read_along()
    return bool(refusal_of_model(model)) or any(belongs_to_tenants(each.class_) for each in found)


@cached
def refusal_of_model(model: type[Any]) -> str | None:
    """Return why a model, or a model it loads, is refused; else None.

    It may be for its table, or for an attribute: a `column_property` or a relationship.
    """
    for mapper in facts_of(model).reachable():
        if not belongs_to_tenants(mapper.class_) and _is_mapped_to_tenants(mapper):
            return f"{mapper.class_.__name__} is mapped to a table of tenants; give it TenantMixin"
        for name, expression in expressions_of(mapper).items():
            # The ORM annotates a table with its model, but the mapper's copy loses the annotation.
            tables = [each for each in elements_of(expression) if not is_orm(each)]
            if any(isinstance(each, Select) and concerns(each, _rules()) for each in tables):
                return f"{mapper.class_.__name__}.{name} names a table of tenants; name its model"
        for relationship in mapper.relationships:
            if _goes_through_tables(relationship):
                return f"{relationship} goes through tables of tenants; go through their models"
        refusals = filter(None, map(_refusal_of_defaults, mapper.tables))
        if (refusal := next(refusals, None)) is not None:
            return refusal
    return None


def _is_mapped_to_tenants(mapper: Mapper[Any]) -> bool:
    return any(each in _tables_of_tenants() for each in elements_of(mapper.persist_selectable))


@cached
def _refusal_of_defaults(table: Any) -> str | None:
    """Return what is wrong with a value that SQLAlchemy adds to a write by itself."""
    for column in table.columns:
        for default in (column.default, column.onupdate):
            if default is not None and default.is_clause_element and _selects(default.arg):
                return f"{column} has a default that reads rows of tenants; set it in a hook"
    return None


def _selects(expression: Any) -> bool:
    """Return whether an expression has a SELECT of rows of tenants."""
    elements = list(elements_of(expression))
    if any(_names_table(text) for each in elements for text in _texts_in(each)):
        return True
    is_select = any(isinstance(each, SelectBase) for each in elements)
    return is_select and any(each in _tables_of_tenants() for each in elements)


def _goes_through_tables(relationship: RelationshipProperty[Any]) -> bool:
    """Return whether a relationship uses tables of tenants other than its target and link table."""
    link = relationship.secondary
    is_table = link is None or isinstance(link, Table)  # not a join, for example
    if not is_table and any(each in _tables_of_tenants() for each in elements_of(link)):
        return True
    conditions = (relationship.primaryjoin, relationship.secondaryjoin)
    given = (each for each in conditions if each is not None)
    return any(concerns(each, _rules()) for each in (*given, *(relationship.order_by or ())))


def has_tenant_models() -> bool:
    """Return whether any model has rows of tenants."""
    return bool(mappers_of(TENANCY))


# --- rows that are written -----------------------------------------------------------------------


def check_tenant(given: Any) -> Any:
    """Return the tenant for a new row that was given this tenant, or None.

    Raises:
        TenantError: It is not the tenant in scope, or a required tenant is missing.
    """
    if given is None:
        return tenant_of_new_row()
    if not all_in_scope() and (is_sql(given) or given != tenant_of_new_row()):
        raise TenantError(FOREIGN, field=TENANT)
    return given


def give_tenant(model: type[Any], values: MutableMapping[str, Any]) -> None:
    """Give the values of a new row their tenant.

    Raises:
        TenantError: They have another tenant, or lack a required one.
    """
    if belongs_to_tenants(model):
        values[TENANT] = check_tenant(values.get(TENANT))


def check_changes(model: type[Any], changes: Mapping[str, Any]) -> None:
    """Refuse changes that would move rows to another tenant.

    Raises:
        TenantError: The changes name one.
    """
    if TENANT in changes and belongs_to_tenants(model):
        raise TenantError(FIXED, field=TENANT)


def flush_criterion(column: Column[Any]) -> ColumnElement[bool]:
    """Return the criterion for a row that a flush finds by its key."""
    return column == func.coalesce(tenant_or_any(column.type), column)


def check_value(value: Any) -> None:
    """Refuse SQL as the value of a row that a flush writes, if it reads rows of tenants.

    A flush cannot add the tenant's criterion to it.

    Raises:
        TenantError: It reads rows of tenants, or is text.
    """
    if reach_of(value).raw or _reads_rows(value):
        raise TenantError(
            "the value of a row cannot be SQL that may read the rows of other tenants; read it "
            "first, or write it with an update()"
        )


def _reads_rows(value: Any) -> bool:
    """Return whether a value is, or contains, a subquery of rows of tenants."""
    return reach_of(value).names and any(isinstance(e, SelectBase) for e in elements_of(value))


# --- statements of the caller's ------------------------------------------------------------------


class Reach(NamedTuple):
    """How a statement touches the rows of tenants.

    Attributes:
        names: Whether it names a model or a table of theirs.
        leads: Whether it may bring in rows of theirs, with a relationship for example.
        raw: Whether a part of it is SQL as text.
        refusal: What is wrong with it.
        links: What is wrong with a join that SQLAlchemy makes by itself.
    """

    names: bool
    leads: bool
    raw: bool
    refusal: str | None
    links: str | None


_reaches: Store[Hashable, Reach] = Store()


def reach_of(statement: Any) -> Reach:
    """Return how a caller's statement touches the rows of tenants."""
    key = cache_key_of(statement)
    if key is None:
        return _found(statement)
    return _reaches.get(key, lambda: _found(statement))


def _found(statement: Any) -> Reach:
    elements = list(elements_of(statement))
    models = [mapper.class_ for mapper in mappers_in(statement)]
    tables = _tables_of_tenants()
    named = [each for each in elements if isinstance(each, TableClause) and each in tables]
    texts = [text for each in elements for text in _texts_in(each)]
    names = bool(named) or any(map(belongs_to_tenants, models)) or any(map(_names_table, texts))
    return Reach(
        names=names,
        leads=names or any(map(leads_to_tenants, models)),
        raw=bool(texts) or isinstance(statement, ExecutableDDLElement),
        refusal=_refusal_of(elements)
        or _refusal_of_inserts_inside(statement, elements)
        or (_refusal_of_full_joins(elements) if names else None)
        or next(filter(None, map(refusal_of_model, models)), None),
        links=_refusal_of_links(statement, models),
    )


def _texts_in(element: Any) -> Iterator[str]:
    """Yield the textual SQL of an element."""
    yield from texts_in(element)
    if isinstance(element, Executable | CTE) and not isinstance(element, TextClause):
        # Other texts, such as hints, only affect how a statement runs.
        yield from filter(_names_table, texts_around(element))


@cached
def _tables_of_tenants() -> Mapping[FromClause, type[Any]]:
    mappers = mappers_of(TENANCY)
    return {table: mapper.class_ for mapper in mappers for table in mapper.tables}


@cached
def _columns_of_tenants() -> Mapping[FromClause, Column[Any]]:
    columns = [mapper.columns[TENANT] for mapper in mappers_of(TENANCY)]
    return {column.table: column for column in columns}


@cached
def _names_of_tables() -> frozenset[str]:
    tables = _tables_of_tenants()
    return frozenset(each.name.lower() for each in tables if isinstance(each, TableClause))


def _names_table(sql: str) -> bool:
    return not _names_of_tables().isdisjoint(re.findall(r"\w+", sql.lower()))


def _refusal_of(elements: Iterable[Any]) -> str | None:
    refusals = (_refusal(each) for each in elements)
    return next((refusal for refusal in refusals if refusal), None)


def _refusal(element: Any) -> str | None:
    if any(concerns(criterion, _rules()) for criterion in criteria_in(options_of(element))):
        return "an option names a table of tenants; name its model"
    if "bundle" in notes_of(element) and concerns(element, _rules()):
        return "a Bundle names a table of tenants; name its model"
    if isinstance(element, WITH_ROWS) and any(map(_reads_rows, unvisited_sql_of(element))):
        return (
            "the values of several rows, and what becomes of rows in the way of an INSERT, cannot "
            "read rows of tenants; read them first"
        )
    if isinstance(element, Update | Delete):
        return _refusal_of_write(element)
    if isinstance(element, Insert):
        return _refusal_of_insert(element) or _refusal_of_defaults(element.table)
    return _refusal_of_source(element)


def _is_alias_beyond_criteria(element: Any) -> bool:
    """Return whether an alias of a model stands for rows of tenants that no criterion reaches."""
    entity = notes_of(element).get("parententity")
    if entity is None or not entity.is_aliased_class:
        return False
    source = unaliased(entity.selectable)
    is_of_others = source in _tables_of_tenants() and source not in entity.mapper.tables
    return is_of_others or concerns(source, _rules())


def _refusal_of_source(element: Any) -> str | None:
    if isinstance(element, TableClause):
        if element.name.lower() in _names_of_tables() and element not in _tables_of_tenants():
            return f"{element.name!r} is a table of tenants; name it with its model"
    elif _is_alias_beyond_criteria(element):
        return "an alias of a model stands for a table of tenants; select from their model in it"
    elif isinstance(element, Select) and has_bare_join(element, _rules()):
        return "a table of tenants is joined without a condition; give it one, or its model"
    return None


def _rules() -> TableCriteria:
    # Independent of the current scope, because the result is cached.
    return rules_of(everywhere())


def _refusal_of_write(statement: Update | Delete) -> str | None:
    table: Any = statement.table
    if (refusal := _refusal_of_defaults(table)) is not None:
        return refusal
    is_of_model = isinstance(table, Alias) and "parententity" in notes_of(table)
    if is_of_model and _column_of(table) is not None:
        return "an UPDATE or DELETE of an alias reaches the rows of all tenants; name the model"
    if any(_is_tenant_in(table, column) for column in _assigned(statement)):
        return FIXED
    if any(isinstance(each, CTE) and concerns(each, _rules()) for each in subqueries_of(statement)):
        return "an UPDATE or DELETE takes the rows of tenants from a subquery(), not from a cte()"
    return None


def _refusal_of_full_joins(elements: Iterable[Any]) -> str | None:
    if any(isinstance(each, Select | Join) and has_full_join(each) for each in elements):
        return "a FULL JOIN shows the rows of other tenants; use outer joins, or join a subquery"
    return None


def _refusal_of_links(statement: Any, models: Iterable[type[Any]]) -> str | None:
    """Return what is wrong with a link table that SQLAlchemy joins without criteria."""
    mappers = [mapper for model in models for mapper in facts_of(model).reachable()]
    joined = [each for mapper in mappers for each in mapper.relationships if each.lazy == "joined"]
    for option in options_of(statement):
        for element in getattr(option, "context", ()):
            # contains_eager() uses the statement's own joins.
            joins = element.strategy == (("lazy", "joined"),)
            if joins and "eager_from_alias" not in element.local_opts:
                joined += [each for each in element.path if isinstance(each, RelationshipProperty)]
    links = (each for each in joined if each.secondary in _tables_of_tenants())
    return next((_links_of_others(each) for each in links), None)


def _links_of_others(relationship: RelationshipProperty[Any]) -> str:
    return (
        f"a join cannot leave out the links of other tenants: load {relationship} with selectin, "
        "or with joined() of the query builder"
    )


def _column_of(table: Any) -> Column[Any] | None:
    """Return the tenant column of a table that is written to, if it has one."""
    return _columns_of_tenants().get(unaliased(table))


def _is_tenant_in(table: FromClause, column: Any) -> bool:
    """Return whether a write to a table sets the tenant of rows, perhaps in another table.

    The column may be named by its field, by itself, or by its name in the database.
    """
    tenant = _column_of(getattr(column, "table", table))
    return tenant is not None and getattr(column, "key", column) in {TENANT, tenant.key}


def _assigned(statement: Update | Delete) -> Iterator[Any]:
    """Yield the columns that an UPDATE sets, without execution parameters."""
    if isinstance(statement, Update):
        yield from ordered_columns_of(statement)
        yield from values_of(statement)


def _refusal_of_insert(statement: Insert) -> str | None:
    if _column_of(statement.table) is None:
        return None
    name = statement.table.name
    if any(_is_tenant_in(statement.table, column) for column in selected_into(statement)):
        return f"an INSERT from a SELECT into {name!r} fills {TENANT} in by itself; leave it out"
    if _overwrites(statement):
        return (
            f"an INSERT into {name!r} that updates existing rows cannot leave out those "
            "of other tenants; use bulk_upsert_mappings"
        )
    return None


def _refusal_of_inserts_inside(statement: Any, elements: Iterable[Any]) -> str | None:
    """Return what is wrong with an INSERT in a CTE, whose values cannot be checked."""
    inside = (each for each in elements if isinstance(each, Insert) and each is not statement)
    if any(map(_fills_tenant, inside)):
        return f"an INSERT in a CTE or a lambda fills {TENANT} in by itself; leave it out"
    return None


def _fills_tenant(insert: Insert) -> bool:
    rows = _rows_of(insert, ())
    return any(_is_tenant_in(insert.table, column) for row in rows for column in row)


def _overwrites(statement: Insert) -> bool:
    ignores = conflict_clause_of(statement) in {None, "on_conflict_do_nothing"}
    return not ignores or not prefixes_of(statement) <= {"IGNORE", "OR IGNORE"}


def check_parameters(statement: Any, parameters: Any) -> None:
    """Refuse rows of another tenant in the parameters of a caller's INSERT or UPDATE.

    Raises:
        TenantError: `tenant_id` is that of another tenant, or an UPDATE has one.
    """
    source = source_of(statement)
    if not isinstance(source, Insert | Update) or _column_of(source.table) is None:
        return
    for row in _rows_of(source, parameters):
        for column, value in row.items():
            if _is_tenant_in(source.table, column):
                if isinstance(source, Update):
                    raise TenantError(FIXED, field=TENANT)
                check_tenant(_given(value))


def _given(value: Any) -> Any:
    """Return a parameter's value; anything else, and a parameter without value, as it is."""
    has_value = isinstance(value, BindParameter) and not value.required
    return value.effective_value if has_value else value


def _rows_of(statement: Any, parameters: Any) -> Iterator[Mapping[Any, Any]]:
    yield values_of(statement)
    for rows in rows_of(statement):
        for row in rows:
            # A tuple has the values of all columns in order.
            is_named = isinstance(row, Mapping)
            yield row if is_named else dict(zip(statement.table.c, row, strict=False))
    yield from [parameters] if isinstance(parameters, Mapping) else parameters or ()
