"""Results that are read row by row: what becomes of one that nobody reads to its end.

Its cursor has to be closed, which is I/O, and the moment at which it is dropped may be one without.
So that happens when its connection is used next, or ends its transaction.
"""

from __future__ import annotations

import weakref
from typing import Any

from sqlalchemy import Connection, Engine, event

from sqlmodel_crud_utils.exceptions import ValidationError

_MYSQL = frozenset(("mysql", "mariadb"))

_open: weakref.WeakKeyDictionary[Connection, set[Any]] = weakref.WeakKeyDictionary()
_abandoned: weakref.WeakKeyDictionary[Connection, set[Any]] = weakref.WeakKeyDictionary()


def opened(connection: Connection, result: Any) -> None:
    """Note that the connection has a result that is being read."""
    _watch(connection.engine)
    _open.setdefault(connection, set()).add(result)


def finished(connection: Connection, result: Any) -> None:
    """Note that the result is closed."""
    _open.get(connection, set()).discard(result)


def abandon(connection: Connection, result: Any) -> None:
    """Let the result be closed when its connection is used next; nothing is done here."""
    finished(connection, result)
    if not connection.closed:
        _abandoned.setdefault(connection, set()).add(result)


def _watch(engine: Engine) -> None:
    if not event.contains(engine, "before_cursor_execute", _on_statement):
        event.listen(engine, "before_cursor_execute", _on_statement)
        event.listen(engine, "commit", _close_abandoned)
        event.listen(engine, "rollback", _close_abandoned)


def _on_statement(connection: Connection, *_: Any) -> None:
    _close_abandoned(connection)
    if connection.dialect.name in _MYSQL and _open.get(connection):
        raise ValidationError(
            "MySQL runs no other statement on a connection whose rows are being streamed; "
            "use another session inside the loop, or read the rows with keyset()",
            field="session",
        )


def _close_abandoned(connection: Connection) -> None:
    for result in _abandoned.pop(connection, ()):
        result.close()
