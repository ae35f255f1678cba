"""Row security: PostgreSQL's policies that limit a transaction to the rows of its tenant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import URL, Column, Dialect, MetaData, String, Table
from sqlalchemy.schema import DDL

from sqlmodel_crud_utils._core.models.policies import find_mappers
from sqlmodel_crud_utils._core.models.tenant_keys import ROWS_OF_TENANTS, TENANT
from sqlmodel_crud_utils._core.visibility.tenancy import TENANCY

SETTING = "sqlmodel_crud_utils.tenant"
"""The setting of a transaction that names its tenant, for policies of your own, too."""

_POLICY = "tenant_rows"


def row_security(metadata: MetaData) -> list[DDL]:
    """Return the statements that make PostgreSQL itself separate the rows of tenants.

    For each table whose rows belong to tenants, they switch on row level security, also for the
    table's owner (`FORCE`), and add one policy for reads and writes. You may execute them
    repeatedly. Create the engine with `create_pooled_engine(url, row_security=True)`, so that it
    sends the tenant.

    Args:
        metadata: The tables: `SQLModel.metadata`, after all models are imported.

    Returns:
        The statements, for `op.execute` in a migration or for `connection.execute`.

    Example:
        >>> from sqlalchemy import MetaData
        >>> from sqlmodel_crud_utils.mixins import row_security
        >>> row_security(MetaData())
        []
    """
    dialect = URL.create("postgresql").get_dialect()()
    tables = (table for table in tables_of_tenants() if table.metadata is metadata)
    texts = (text.replace("%", "%%") for table in tables for text in _statements(table, dialect))
    return [DDL(text) for text in texts]  # type: ignore[no-untyped-call]


def tables_of_tenants() -> list[Table]:
    """Return all tables whose rows belong to tenants."""
    return list(dict.fromkeys(_found_tables()))


def _found_tables() -> Iterator[Table]:
    for mapper in find_mappers(TENANCY):
        for table in mapper.tables:
            if isinstance(table, Table):
                yield table
                yield from _marked(table.metadata)


def _marked(metadata: MetaData) -> Iterator[Table]:
    return (table for table in metadata.tables.values() if table.info.get(ROWS_OF_TENANTS))


def _statements(table: Table, dialect: Dialect) -> Iterator[str]:
    name = dialect.identifier_preparer.format_table(table)
    criterion = _criterion(table, dialect)
    yield f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
    yield f"DROP POLICY IF EXISTS {_POLICY} ON {name}"
    yield f"CREATE POLICY {_POLICY} ON {name} USING ({criterion}) WITH CHECK ({criterion})"


def _tenant_column(table: Table) -> Column[Any]:
    of_models = (mapper.columns[TENANT] for mapper in find_mappers(TENANCY))
    mapped = next((column for column in of_models if column.table is table), None)
    return table.columns[TENANT] if mapped is None else mapped


def _criterion(table: Table, dialect: Dialect) -> str:
    column = _tenant_column(table)
    name = dialect.identifier_preparer.format_column(column)
    # After a transaction that set it, the setting is empty, not NULL.
    tenant = f"NULLIF(current_setting('{SETTING}', true), '')"
    if not isinstance(column.type, String):
        tenant = f"CAST({tenant} AS {column.type.compile(dialect)})"
    # As a subquery it is evaluated once, not for each row.
    criterion = f"{name} = (SELECT {tenant})"
    is_shared = table.info.get(ROWS_OF_TENANTS)
    return f"{name} IS NULL OR {criterion}" if is_shared else criterion


# --- is it there? --------------------------------------------------------------------------------


def question(dialect: Dialect) -> str:
    """Return the SELECT that checks the role's rights on the tables of tenants.

    It has the name of the role, whether row security never holds for it, the tables for which it
    does not hold now, and whether tables are missing.
    """
    names = map(dialect.identifier_preparer.format_table, tables_of_tenants())
    array = ", ".join("'" + name.replace("'", "''") + "'" for name in names)
    return f"""
        WITH found AS (
            SELECT name, to_regclass(name) AS place FROM unnest(ARRAY[{array}]::text[]) AS name
        )
        SELECT rolname, rolsuper OR rolbypassrls,
            ARRAY(SELECT name FROM found WHERE NOT row_security_active(place::oid)),
            EXISTS(SELECT FROM found WHERE place IS NULL)
        FROM pg_roles WHERE rolname = current_user
    """  # noqa: S608 - the names of tables, quoted


def refusal(role: str, passes: bool, open_tables: list[str]) -> str | None:
    """Return why row security does not apply to a role, or None if it does."""
    if passes:
        return (
            f"the role {role!r} is a superuser or has BYPASSRLS, so that row security never holds "
            "for it; connect as an ordinary role"
        )
    if open_tables:
        return (
            f"it does not hold for {', '.join(open_tables)}: it is not enabled, or {role!r} is the "
            "owner and it is not forced; execute the statements of row_security(SQLModel.metadata)"
        )
    return None
