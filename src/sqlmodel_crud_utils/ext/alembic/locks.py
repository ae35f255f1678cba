"""One upgrade of a database at a time, whatever process or machine it runs on.

PostgreSQL and MySQL have named locks that belong to a connection and go with it, so that a process
that is killed lets go. Who waits asks again and again, outside a transaction: a statement that
waits would hold up CREATE INDEX CONCURRENTLY. SQLite's own lock comes with its transaction.
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
    # A name of MySQL's is for the whole server.
    "GET_LOCK": f"SELECT GET_LOCK(SHA1(CONCAT('{_NAME}/', DATABASE())), 0)",
}
_LET_GO = {
    "advisory": f"SELECT pg_advisory_unlock({_NUMBER})",
    "GET_LOCK": f"SELECT RELEASE_LOCK(SHA1(CONCAT('{_NAME}/', DATABASE())))",
}
_PAUSE = 0.2


@contextmanager
def upgrade_lock(engine: Engine, patience: float) -> Iterator[None]:
    """Hold the lock of a database on a connection of its own; SQLite has no such lock."""
    kind = features_of(engine.dialect).named_lock
    if kind is None:
        yield
        return
    with engine.connect() as connection:
        # No transaction, which would be in the way of others for as long as the upgrade takes.
        connection.execution_options(isolation_level="AUTOCOMMIT")
        _wait_for(connection, _TRY[kind], patience)
        try:
            yield
        finally:
            if not connection.invalidated:
                connection.execute(text(_LET_GO[kind]))


def _wait_for(connection: Connection, attempt: str, patience: float) -> None:
    give_up_at = time.monotonic() + patience
    while not connection.scalar(text(attempt)):
        if time.monotonic() >= give_up_at:
            raise MigrationLockError(patience)
        time.sleep(min(_PAUSE, max(0.0, give_up_at - time.monotonic())))
