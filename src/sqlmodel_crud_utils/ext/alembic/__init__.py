"""Migrations with Alembic: an env.py of three lines, one upgrade at a time, the mixins' columns.

Needs the extra `migrations`: `pip install "sqlmodel-crud-utils[migrations]"`. The functions work
with both APIs: with an `Engine` and with an `AsyncEngine`.
"""

try:
    import alembic as _alembic  # noqa: F401 - to say what is missing, and how to install it
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "sqlmodel_crud_utils.ext.alembic needs Alembic: "
        'pip install "sqlmodel-crud-utils[migrations]"',
        name="alembic",
    ) from error

from sqlmodel_crud_utils._core.values.server_defaults import No, UTCNow
from sqlmodel_crud_utils.ext.alembic.backfills import backfill
from sqlmodel_crud_utils.ext.alembic.commands import upgrade
from sqlmodel_crud_utils.ext.alembic.environments import NAMING_CONVENTION, run_migrations
from sqlmodel_crud_utils.ext.alembic.mixin_columns import (
    add_audit,
    add_soft_delete,
    add_tenant,
    add_timestamps,
    add_version,
    drop_audit,
    drop_soft_delete,
    drop_tenant,
    drop_timestamps,
    drop_version,
)
from sqlmodel_crud_utils.ext.alembic.schemas import check_schema

__all__ = [
    "NAMING_CONVENTION",
    "No",
    "UTCNow",
    "add_audit",
    "add_soft_delete",
    "add_tenant",
    "add_timestamps",
    "add_version",
    "backfill",
    "check_schema",
    "drop_audit",
    "drop_soft_delete",
    "drop_tenant",
    "drop_timestamps",
    "drop_version",
    "run_migrations",
    "upgrade",
]
