"""Results that are read row by row: what becomes of one that nobody reads to its end.

Its cursor has to be closed, which is I/O, and the moment at which it is dropped may be one without.
So that happens when its connection is used next, or ends its transaction. On MySQL also a result
that is still being read goes then, as the connection does nothing else until its last row is read.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection

from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils.exceptions import ValidationError

_open: weakref.WeakKeyDictionary[Connection, set[Any]] = weakref.WeakKeyDictionary()
_abandoned: weakref.WeakKeyDictionary[Connection, set[Any]] = weakref.WeakKeyDictionary()


def opened(connection: Connection, result: Any) -> None:
    """Note that the connection has a result that is being read."""
    _open.setdefault(connection, set()).add(result)


def finished(connection: Connection, result: Any) -> None:
    """Note that the result is closed."""
    _open.get(connection, set()).discard(result)


def abandon(connection: Connection, result: Any) -> None:
    """Let the result be closed when its connection is used next; nothing is done here."""
    finished(connection, result)
    if not connection.closed:
        _abandoned.setdefault(connection, set()).add(result)


def transaction_ended() -> ValidationError:
    """Return the error of a loop that goes on when what it reads is gone."""
    return ValidationError(
        "the transaction that stream() reads in has ended inside the loop; put the loop and what "
        "it writes into one transaction() block, write with another session, or read with keyset()",
        field="session",
    )


def executing(connection: Connection, *_: Any) -> None:
    """Close what is in the way of the next statement."""
    if features_of(connection.dialect).one_result_at_a_time:
        # What these have not read yet, they read with other queries.
        close_all(connection)
    else:
        _close(_abandoned.pop(connection, ()))


def close_all(connection: Connection) -> None:
    """Close all results of a connection whose transaction ends."""
    _close(_abandoned.pop(connection, ()))
    _close(_open.pop(connection, ()))


def _close(results: Iterable[Any]) -> None:
    for result in results:
        result.close()
