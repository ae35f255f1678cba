"""Ensure one upgrade of a database at a time, across processes and machines.

PostgreSQL and MySQL have named locks that belong to a connection and end with it, so that a killed
process releases its lock. A waiting process polls outside a transaction, because a blocked
statement would block CREATE INDEX CONCURRENTLY in turn. SQLite's own lock comes with its
transaction.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

from sqlalchemy import Connection, Engine, text

from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils.exceptions import MigrationLockError

_NAME = "sqlmodel_crud_utils.migrations"
_NUMBER = int.from_bytes(sha256(_NAME.encode()).digest()[:8], signed=True)
_TRY = {
    "advisory": f"SELECT pg_try_advisory_lock({_NUMBER})",
    # MySQL's names are global to the server.
    "GET_LOCK": f"SELECT GET_LOCK(SHA1(CONCAT('{_NAME}/', DATABASE())), 0)",
}
_RELEASE = {
    "advisory": f"SELECT pg_advisory_unlock({_NUMBER})",
    "GET_LOCK": f"SELECT RELEASE_LOCK(SHA1(CONCAT('{_NAME}/', DATABASE())))",
}
_PAUSE = 0.2


@contextmanager
def upgrade_lock(engine: Engine, patience: float) -> Iterator[None]:
    """Hold the lock of a database on a separate connection; SQLite has no such lock."""
    kind = features_of(engine.dialect).named_lock
    if kind is None:
        yield
        return
    with engine.connect() as connection:
        # No transaction, which would stay open and block others during the whole upgrade.
        connection.execution_options(isolation_level="AUTOCOMMIT")
        _wait_for(connection, _TRY[kind], patience)
        try:
            yield
        finally:
            if not connection.invalidated:
                connection.execute(text(_RELEASE[kind]))


def _wait_for(connection: Connection, attempt: str, patience: float) -> None:
    give_up_at = time.monotonic() + patience
    while not connection.scalar(text(attempt)):
        if time.monotonic() >= give_up_at:
            raise MigrationLockError(patience)
        time.sleep(min(_PAUSE, max(0.0, give_up_at - time.monotonic())))
