"""Alembic's command from inside a program."""

from __future__ import annotations

from os import PathLike
from threading import Lock

from alembic import command
from alembic.config import Config

__all__ = ["upgrade"]

# Alembic keeps what runs in a module of its own.
_one_at_a_time = Lock()


def upgrade(config: Config | str | PathLike[str], revision: str = "head") -> None:
    """Upgrade the database from inside a program, such as a service that starts.

    Threads of a process queue up; `run_migrations` in env.py makes processes queue up as well. It
    may be called where an event loop runs, but blocks the loop; a service that has other work to do
    should call it in a thread.

    Args:
        config: Alembic's `Config`, or the path of alembic.ini.
        revision: The revision to upgrade to.

    Raises:
        MigrationLockError: Another process was still upgrading when `wait` of `run_migrations` had
            run out.

    Example:
        In a lifespan of FastAPI: `await anyio.to_thread.run_sync(upgrade, "alembic.ini")`.
    """
    found = config if isinstance(config, Config) else Config(config)
    with _one_at_a_time:
        command.upgrade(found, revision)
