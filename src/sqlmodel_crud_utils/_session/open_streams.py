"""Streamed results: closing those that are not read to their end.

Closing a cursor is I/O, which may be impossible when a result is abandoned. So the cursor is closed
when its connection is next used or ends its transaction. On MySQL a result that is still being read
is closed as well, because its connection can do nothing else until the last row is read.
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
    """Note that a result is being read on a connection."""
    _open.setdefault(connection, set()).add(result)


def finished(connection: Connection, result: Any) -> None:
    """Note that a result was closed."""
    _open.get(connection, set()).discard(result)


def abandon(connection: Connection, result: Any) -> None:
    """Schedule a result to be closed when its connection is next used; do no I/O now."""
    finished(connection, result)
    if not connection.closed:
        _abandoned.setdefault(connection, set()).add(result)


def transaction_ended() -> ValidationError:
    """Return the error of a loop that continues after its result is gone."""
    return ValidationError(
        "the transaction that stream() reads in has ended inside the loop; put the loop and what "
        "it writes into one transaction() block, write with another session, or read with keyset()",
        field="session",
    )


def executing(connection: Connection, *_: Any) -> None:
    """Close results that would block the next statement."""
    if features_of(connection.dialect).one_result_at_a_time:
        # Their loops read the remaining rows with further queries.
        close_all(connection)
    else:
        _close(_abandoned.pop(connection, ()))


def close_all(connection: Connection) -> None:
    """Close all results of a connection, as at the end of its transaction."""
    _close(_abandoned.pop(connection, ()))
    _close(_open.pop(connection, ()))


def _close(results: Iterable[Any]) -> None:
    for result in results:
        result.close()
