"""How autogenerate renders types and defaults that are not SQLAlchemy's own."""

from __future__ import annotations

from typing import Any, Literal

from alembic.autogenerate.api import AutogenContext
from sqlalchemy import DefaultClause
from sqlalchemy.types import TypeEngine

from sqlmodel_crud_utils._core.values.server_defaults import No, UTCNow

_HERE = "sqlmodel_crud_utils.ext.alembic"


def render_item(kind: str, item: Any, autogen: AutogenContext) -> str | Literal[False]:
    """Add imports for the types in a revision, and render defaults that suit every database."""
    if kind == "type" and isinstance(item, TypeEngine):
        module = type(item).__module__
        if not module.startswith("sqlalchemy."):
            autogen.imports.add(f"import {module}")
    default = item.arg if kind == "server_default" and isinstance(item, DefaultClause) else None
    if isinstance(default, No | UTCNow):
        autogen.imports.add(f"import {_HERE}")
        return f"{_HERE}.{type(default).__name__}()"
    return False
