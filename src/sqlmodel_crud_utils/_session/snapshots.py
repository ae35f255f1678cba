"""Whether what a session's transaction reads may be cached for others.

A transaction may see an old snapshot or its own uncommitted writes, which no other transaction
sees.
"""

from __future__ import annotations

import re
import weakref
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, FromClause
from sqlalchemy.orm import Session, SessionTransaction

from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.writes.table_writes import table_writes
from sqlmodel_crud_utils._session.blocks import block_of
from sqlmodel_crud_utils._session.databases import has_begun, is_shared, level_of, sees_commits
from sqlmodel_crud_utils._session.sqlalchemy_internals import is_autocommitting
from sqlmodel_crud_utils._session.transaction_state import connections_in, connections_of

# A session's connection lives as long as its transaction, unless the program has bound the session
# to a connection.
_used: weakref.WeakSet[Connection] = weakref.WeakSet()
_written: weakref.WeakSet[Connection] = weakref.WeakSet()

# Tables written under AUTOCOMMIT, which no rollback undoes.
_committed: weakref.WeakKeyDictionary[Connection, set[FromClause]] = weakref.WeakKeyDictionary()

_views: weakref.WeakKeyDictionary[Connection, str] = weakref.WeakKeyDictionary()

_FIRST_WORD = r"\W*(\w*)"
_HARMLESS = frozenset(("BEGIN", "PRAGMA", "RELEASE", "SAVEPOINT", "SET", "SHOW"))


def executing(
    connection: Connection,
    _cursor: Any,
    statement: str,
    _parameters: Any,
    context: Any,
    _executemany: bool,
) -> None:
    """Note what runs on a connection."""
    is_raw = context.compiled is None or context.is_text
    found = re.match(_FIRST_WORD, statement) if is_raw else None
    if found is not None and found[1].upper() in _HARMLESS:
        return
    _used.add(connection)
    if is_raw or context.isinsert or context.isupdate or context.isdelete or context.isddl:
        _written.add(connection)
        if not is_raw and is_autocommitting(connection):
            written: Any = context.compiled
            tables = {table for table, _ in table_writes(written.statement)}
            _committed.setdefault(connection, set()).update(tables)


def rolled_back(connection: Connection, *_: Any) -> None:
    """Note that a rollback has changed what a connection sees."""
    _views.pop(connection, None)


def view_of(connection: Connection) -> str:
    """Return an identifier for what a connection sees; it changes with each rollback."""
    return _views.setdefault(connection, uuid4().hex)


def committing(connection: Connection, *_: Any) -> None:
    """Forget the tables written under AUTOCOMMIT, as a commit reports all changes anyway."""
    _committed.pop(connection, None)


def take_committed(transaction: SessionTransaction) -> set[FromClause]:
    """Return the tables whose writes remain although the transaction was rolled back."""
    if not _committed:
        return set()
    connections = connections_in(transaction)
    return set[FromClause]().union(*(_committed.pop(each, ()) for each in connections))


def sees_what_others_see(session: Session) -> bool:
    """Return whether a read sees exactly what is committed now."""
    return all(_is_fresh(session, connection) for connection in connections_of(session))


def may_be_kept(session: Session) -> bool:
    """Return whether others see what the session has just read, so that it may be cached."""
    return all(_is_committed(session, connection) for connection in connections_of(session))


def _is_fresh(session: Session, connection: Connection) -> bool:
    return _is_committed(session, connection) and (
        connection not in _used or _shows_commits(session, connection)
    )


def _is_committed(session: Session, connection: Connection) -> bool:
    """Return whether the connection sees only committed data."""
    if level_of(connection) == "READ UNCOMMITTED":
        return False
    if connection in _written and connection is not session.bind:
        return False
    holds = features_of(connection.dialect).single_writer and is_shared(connection)
    return not (holds and has_begun(connection))


def _shows_commits(session: Session, connection: Connection) -> bool:
    if not features_of(connection.dialect).single_writer or not has_begun(connection):
        return sees_commits(connection)
    # A block with the write lock sees the last commit; a reader sees the commit at its beginning.
    block = block_of(session)
    return block is not None and not block.modes.read_only
