"""The helpers that v0.1.0 had here, for code that imports them."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

from dateutil.parser import parse

from sqlmodel_crud_utils._core.logs import get_logger
from sqlmodel_crud_utils.exceptions import ValidationError

__all__ = ["get_sql_dialect_import", "get_val", "is_date", "logger"]

logger = get_logger()

# Those of SQLAlchemy's dialects that have an INSERT of their own.
_DIALECTS = ("mysql", "postgresql", "sqlite")


def get_val(val: str) -> str | None:
    """Return an environment variable, or None if it is not set.

    No `.env` file is read; load one yourself where you need it.

    Args:
        val: The name of the variable.

    Example:
        >>> get_val("A_NAME_THAT_NOBODY_SETS") is None
        True
    """
    return os.environ.get(val)


def get_sql_dialect_import(dialect: str) -> Callable[..., Any]:
    """Return the `insert` function of a SQLAlchemy dialect, which knows about conflicts.

    The library itself does not need it: it reads the dialect from the session.

    Args:
        dialect: "mysql" (for MariaDB too), "postgresql" or "sqlite".

    Raises:
        ValidationError: If there is no such dialect.

    Example:
        >>> get_sql_dialect_import("sqlite").__module__
        'sqlalchemy.dialects.sqlite.dml'
    """
    name = "mysql" if dialect == "mariadb" else dialect
    if name not in _DIALECTS:
        problem = f"unknown dialect {dialect!r}" if dialect else "the dialect is empty"
        raise ValidationError(
            f"{problem}; use one of {', '.join(_DIALECTS)}", field="dialect", value=dialect
        )
    insert: Callable[..., Any] = importlib.import_module(f"sqlalchemy.dialects.{name}").insert
    return insert


def is_date(val: Any, fuzzy: bool = False) -> bool:
    """Return whether a string can be read as a date or a time.

    Args:
        val: The string; anything else is no date.
        fuzzy: Ignore words around the date.

    Example:
        >>> is_date("2024-02-29"), is_date("2023-02-29"), is_date("due on 1 May 2024", fuzzy=True)
        (True, False, True)
    """
    if not isinstance(val, str):
        return False
    try:
        parse(val, fuzzy=fuzzy)
    except (ValueError, OverflowError):
        return False
    return True
