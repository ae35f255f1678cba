"""Run Alembic's upgrade command from inside a program."""

from __future__ import annotations

from os import PathLike
from threading import Lock

from alembic import command
from alembic.config import Config

__all__ = ["upgrade"]

# Alembic keeps the running migration in a module-level variable.
_one_at_a_time = Lock()


def upgrade(config: Config | str | PathLike[str], revision: str = "head") -> None:
    """Upgrade the database from inside a program, such as a service on startup.

    Threads of a process wait for each other; with `run_migrations` in env.py, so do processes. You
    may call it while an event loop runs, but it blocks the loop; a service with other work should
    call it in a thread.

    Args:
        config: Alembic's `Config`, or the path of alembic.ini.
        revision: The revision to upgrade to.

    Raises:
        MigrationLockError: Another process was still upgrading after the `wait` of
            `run_migrations`.

    Example:
        In a lifespan of FastAPI: `await anyio.to_thread.run_sync(upgrade, "alembic.ini")`.
    """
    found = config if isinstance(config, Config) else Config(config)
    with _one_at_a_time:
        command.upgrade(found, revision)
