"""Compare a database with the models."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, overload

from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Dialect, Engine, Enum, MetaData
from sqlalchemy.types import TypeEngine

from sqlmodel_crud_utils.exceptions import SchemaMismatchError, ValidationError

if TYPE_CHECKING:
    from sqlmodel_crud_utils._runtime_async import AsyncEngine

__all__ = ["check_schema"]


@overload
def check_schema(
    engine: Engine, metadata: MetaData, *, script_location: str | PathLike[str] | None = None
) -> None: ...
@overload
def check_schema(
    engine: AsyncEngine, metadata: MetaData, *, script_location: str | PathLike[str] | None = None
) -> Awaitable[None]: ...
def check_schema(
    engine: Any, metadata: MetaData, *, script_location: str | PathLike[str] | None = None
) -> Any:
    """Raise unless the database has what the models need. Call it in a test or on startup.

    It finds missing tables, columns and indexes, different types, ENUM types that lack members, and
    columns that may be NULL on one side only. Tables, indexes and constraints that only the
    database has are accepted; so are columns, unless an INSERT fails without them. Nothing is
    written.

    Args:
        engine: The engine of the database; with an `AsyncEngine`, await the call.
        metadata: The tables of the models: `SQLModel.metadata`, after all models are imported.
        script_location: The folder of the migrations. If given, the database must also be at its
            newest revision.

    Returns:
        Nothing; with an `AsyncEngine`, an awaitable.

    Raises:
        SchemaMismatchError: The database differs; the message lists the differences, and
            `differences` has them.
        ValidationError: Something that is not an engine.

    Example:
        >>> Hero.metadata.create_all(engine)
        >>> check_schema(engine, Hero.metadata)
    """

    def check(connection: Connection) -> None:
        found = [*_differences(connection, metadata), *_revisions(connection, script_location)]
        if found:
            raise SchemaMismatchError(found)

    if isinstance(engine, Engine):
        with engine.connect() as connection:
            check(connection)
        return None
    if hasattr(engine, "sync_engine"):
        return _checked(engine, check)
    raise ValidationError(
        f"check_schema takes an Engine or an AsyncEngine, not {type(engine).__name__}",
        field="engine",
    )


async def _checked(engine: AsyncEngine, check: Any) -> None:
    async with engine.connect() as connection:
        await connection.run_sync(check)


def _differences(connection: Connection, metadata: MetaData) -> Iterator[str]:
    known = {table.name for table in metadata.tables.values()}
    options = {
        "target_metadata": metadata,
        "include_schemas": any(table.schema for table in metadata.tables.values()),
        "include_name": lambda name, kind, _parents: kind != "table" or name in known,
        "compare_type": _lacks_members,
    }
    migration = MigrationContext.configure(connection, opts=options)
    for difference in compare_metadata(migration, metadata):
        # Changes of a column come as a nested list.
        for change in difference if isinstance(difference, list) else [difference]:
            yield from _described(change, connection.dialect)


def _lacks_members(
    _context: Any, _stored: Any, _column: Any, stored: TypeEngine[Any], wanted: TypeEngine[Any]
) -> bool | None:
    """Return True for an ENUM that lacks members of the models; None leaves it to Alembic.

    Of PostgreSQL's ENUM types, Alembic compares the names only.
    """
    return True if _missing_members(stored, wanted) else None


def _missing_members(stored: TypeEngine[Any], wanted: TypeEngine[Any]) -> list[str]:
    if not isinstance(stored, Enum) or not isinstance(wanted, Enum):
        return []
    return [member for member in wanted.enums if member not in stored.enums]


def _described(change: Any, dialect: Dialect) -> Iterator[str]:
    kind, *parts = change
    if kind == "add_table":
        yield f"table {parts[0].fullname} is missing"
    elif kind == "add_column":
        yield f"column {_place(parts[0], parts[1])}.{parts[2].name} is missing"
    elif kind == "remove_column":
        if not parts[2].nullable and parts[2].server_default is None:
            place = f"{_place(parts[0], parts[1])}.{parts[2].name}"
            yield f"column {place} is not in the models, and an INSERT needs it"
    elif kind == "add_index":
        yield f"index {parts[0].name} on {parts[0].table.fullname} is missing"
    elif kind == "add_constraint":
        columns = ", ".join(parts[0].columns.keys())
        yield f"unique constraint on {parts[0].table.fullname} ({columns}) is missing"
    elif kind == "add_fk":
        columns = ", ".join(parts[0].columns.keys())
        yield f"foreign key on {parts[0].table.fullname} ({columns}) is missing"
    elif kind in {"modify_nullable", "modify_type"}:
        schema, table, column, _, stored, wanted = parts
        name = f"{_place(schema, table)}.{column}"
        if kind == "modify_type":
            yield f"column {name} is {_type_difference(stored, wanted, dialect)}"
        else:
            yield f"column {name} {_null(stored)}, but {_null(wanted)} in the models"


def _type_difference(stored: TypeEngine[Any], wanted: TypeEngine[Any], dialect: Dialect) -> str:
    # In this database's dialect: other dialects may have one name for both.
    names = [each.compile(dialect) for each in (stored, wanted)]
    missing = _missing_members(stored, wanted)
    if missing and names[0] == names[1]:
        return f"{names[0]}, which lacks {', '.join(missing)} of the models"
    return f"{names[0]}, but {names[1]} in the models"


def _place(schema: str | None, table: str) -> str:
    return table if schema is None else f"{schema}.{table}"


def _null(nullable: bool) -> str:
    return "may be NULL" if nullable else "is NOT NULL"


def _revisions(
    connection: Connection, script_location: str | PathLike[str] | None
) -> Iterator[str]:
    if script_location is None:
        return
    config = Config()
    config.set_main_option("script_location", fspath(script_location).replace("%", "%%"))
    heads = set(ScriptDirectory.from_config(config).get_heads())
    current = set(MigrationContext.configure(connection).get_current_heads())
    if current != heads:
        yield f"the database is at revision {_listed(current)}, not at head {_listed(heads)}"


def _listed(revisions: set[str]) -> str:
    return ", ".join(sorted(revisions)) or "none"
