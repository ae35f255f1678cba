"""Which arguments of a connection a driver refused before it reached a server."""

from __future__ import annotations

import re
from traceback import walk_tb
from typing import Any

from sqlalchemy import Dialect
from sqlalchemy.exc import DBAPIError

from sqlmodel_crud_utils._core.errors.refused_values import MISFITS
from sqlmodel_crud_utils.exceptions import ValidationError

# What SQLAlchemy's dialects pass for every URL.
_USUAL = frozenset(
    {"client_flag", "database", "db", "dsn", "host", "passwd", "password", "port", "user"}
)


def refused_arguments(error: BaseException) -> ValidationError | None:
    """Return the error for arguments that a driver could not connect with; None for others.

    Drivers raise errors of Python's for a value of a wrong type. asyncpg has a class that is a
    `ValueError`, behind its error.
    """
    original: Any = error.orig if isinstance(error, DBAPIError) else error
    refusal = original.__cause__ if isinstance(error, DBAPIError) else error
    given = _given_to_connect(error) if isinstance(refusal, MISFITS) else None
    if given is None:
        return None
    names = {*given, *re.findall(r"(\w+)=", str(given.get("dsn", "")))} - _USUAL
    return ValidationError(
        f"the driver does not take a value that it is to connect with ({type(refusal).__name__}); "
        f"check {', '.join(sorted(names)) or 'the URL'}",
        field="database_url",
    )


def _given_to_connect(error: BaseException) -> dict[str, Any] | None:
    for frame, _ in walk_tb(error.__traceback__):
        found = frame.f_locals
        if frame.f_code.co_name == "connect" and isinstance(found.get("self"), Dialect):
            given: dict[str, Any] = found.get("cparams", {})
            # A function of the caller's own that connects has errors of its own.
            return None if "async_creator_fn" in given else given
    return None
