"""The identity of a session's database, as a text that is equal for sync and async engines."""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.orm import Session

from sqlmodel_crud_utils._core.models.facts import Facts
from sqlmodel_crud_utils._session.routing import as_writing
from sqlmodel_crud_utils._session.snapshots import view_of
from sqlmodel_crud_utils._session.transaction_state import connections_of

_FAMILIES = {"mariadb": "mysql"}
_PORTS = {"postgresql": 5432, "mysql": 3306}

# Query options that identify the database; the others only say how to connect.
_PLACES = ("host", "port", "service", "unix_socket", "options")

_known: weakref.WeakKeyDictionary[Engine, str] = weakref.WeakKeyDictionary()


def database_of(session: Session, facts: Facts) -> str:
    """Return a name for the database that a model's rows are written to.

    It contains no user, password or driver.
    """
    with as_writing(session):
        bind = session.get_bind(facts.mapper)
    if isinstance(bind, Connection):
        # The session joins an outer transaction, as in tests, which has a view of its own.
        return f"connection {view_of(bind)}{_translation(session, bind)}"
    name = _known.get(bind)
    if name is None:
        name = _known[bind] = _name_of(bind)
    return name + _translation(session, bind)


def _name_of(bind: Engine) -> str:
    url = bind.url
    family = _FAMILIES.get(url.get_backend_name(), url.get_backend_name())
    place = _file_of(url) if family == "sqlite" else _server_of(url, family)
    return f"engine {uuid4().hex}" if place is None else json.dumps([family, *place])


def _file_of(url: URL) -> list[str] | None:
    name = url.database or ":memory:"
    is_uri = name.startswith("file:")
    if name == ":memory:" or (is_uri and "memory" in str(url)):
        return None
    return [name if is_uri else str(Path(name).resolve())]


def _server_of(url: URL, family: str) -> list[str] | None:
    query = {name: url.query[name] for name in _PLACES if name in url.query}
    if url.host is None and url.database is None and not query:
        return None  # the program's own function connects, so the database is unknown
    port = url.port or _PORTS.get(family)
    return [url.host or "", str(port), url.database or "", json.dumps(query, default=list)]


def _translation(session: Session, bind: Engine | Connection) -> str:
    """Return the translation of schema names as text, or "" without one."""
    options: list[Mapping[str, Any]] = [
        connection.get_execution_options()
        for connection in connections_of(session)
        if connection is bind or connection.engine is bind
    ]
    options.append(bind.get_execution_options())
    found = next(
        (each["schema_translate_map"] for each in options if each.get("schema_translate_map")), None
    )
    if found is None:
        return ""
    return json.dumps(sorted((str(name), str(schema)) for name, schema in found.items()))
