"""The helpers that v0.1.0 had here, for code that imports them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from dateutil.parser import parse

from sqlmodel_crud_utils._core.dialects import FEATURES, insert_of
from sqlmodel_crud_utils._core.logs import get_logger
from sqlmodel_crud_utils.exceptions import ValidationError

__all__ = ["get_sql_dialect_import", "get_val", "is_date", "logger"]

logger = get_logger()


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

    Args:
        dialect: "mysql" (for MariaDB too), "postgresql" or "sqlite".

    Raises:
        ValidationError: If there is no such dialect.

    Example:
        >>> get_sql_dialect_import("sqlite").__module__
        'sqlalchemy.dialects.sqlite.dml'
    """
    features = FEATURES.get(dialect) if isinstance(dialect, str) else None
    if features is None:
        problem = f"unknown dialect {dialect!r}" if dialect else "the dialect is empty"
        known = sorted({each.package for each in FEATURES.values() if each.package})
        raise ValidationError(
            f"{problem}; use one of {', '.join(known)}", field="dialect", value=dialect
        )
    return insert_of(features)


def is_date(val: Any, fuzzy: bool = False) -> bool:
    """Return whether a string can be read as a date or a time.

    Args:
        val: The string; anything else is not a date.
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
