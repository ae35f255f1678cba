"""With which parameters a connection failed: a driver, or the server, may refuse one of them."""

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
    {
        *("check_same_thread", "client_flag", "context", "database", "db", "dbname", "dsn"),
        *("host", "passwd", "password", "port", "uri", "user"),
    }
)


def refused_arguments(error: BaseException) -> ValidationError | None:
    """Return the error for arguments that a driver could not connect with; None for others.

    Drivers raise errors of Python's for a value of a wrong type. asyncpg has a class that is a
    `ValueError`, behind its error.
    """
    original: Any = error.orig if isinstance(error, DBAPIError) else error
    refusal = original.__cause__ if isinstance(error, DBAPIError) else error
    is_misfit = isinstance(refusal, (*MISFITS, NotImplementedError))
    names = parameters_of_connecting(error) if is_misfit else None
    if names is None:
        return None
    return ValidationError(
        f"the driver refuses a value of the connection ({type(refusal).__name__}); "
        f"check {', '.join(names) or 'the URL'}",
        field="database_url",
    )


def parameters_of_connecting(error: BaseException) -> list[str] | None:
    """Return the parameters that a driver failed to connect with; None where it did not connect.

    They are those that a URL may have after its `?`, by their names.
    """
    for frame, _ in walk_tb(error.__traceback__):
        if frame.f_code.co_name != "connect":
            continue
        found = frame.f_locals
        own = getattr(found.get("creator_fn"), "parameters", None)
        if own is not None:
            return sorted(set(own) - _USUAL)
        given: dict[str, Any] = found.get("cparams", {})
        # A function of the caller's own that connects has errors of its own.
        if isinstance(found.get("self"), Dialect) and "async_creator_fn" not in given:
            return sorted(_named(given, found.get("cargs", ())))
    return None


def _named(given: dict[str, Any], places: tuple[Any, ...]) -> set[str]:
    # SQLite has its parameters in the name of the file, the others as arguments.
    text = str(places[0]) if "uri" in given and places else str(given.get("dsn", ""))
    names = set(re.findall(r"[?&](\w+)=", text))
    if "uri" in given:
        return names
    for name, value in given.items():
        if name == "ssl" and isinstance(value, dict):  # of ssl_ca, ssl_key and their like
            names |= {f"ssl_{part}" for part in value}
        # As a part of the URL the port is a number.
        elif name not in _USUAL or (name == "port" and isinstance(value, str)):
            names.add(name)
    return names
