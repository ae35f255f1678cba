"""A complete env.py: connect, wait for the lock, run the migrations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from configparser import InterpolationError
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from logging.config import fileConfig
from typing import TYPE_CHECKING, Any

from alembic import context
from sqlalchemy import Connection, Engine, MetaData, event
from sqlalchemy.engine import URL

from sqlmodel_crud_utils._core.connections.urls import bad_url, read_url
from sqlmodel_crud_utils._core.dialects import Features, features_named, features_of
from sqlmodel_crud_utils._session.sqlalchemy_internals import is_autocommitting
from sqlmodel_crud_utils.ext.alembic.durations import seconds_of
from sqlmodel_crud_utils.ext.alembic.foreign_keys import begin_checked, unchecked
from sqlmodel_crud_utils.ext.alembic.locks import upgrade_lock
from sqlmodel_crud_utils.ext.alembic.rendering import render_item

if TYPE_CHECKING:
    from sqlmodel_crud_utils._runtime_async import AsyncEngine

__all__ = ["NAMING_CONVENTION", "run_migrations"]

NAMING_CONVENTION: Mapping[str, str] = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
"""How constraints without a name are called, so that a migration can drop them on every database.

CHECK constraints are not in it: name them yourself.
"""

_PLACEHOLDER = "driver"  # in the alembic.ini that `alembic init` writes


def run_migrations(
    metadata: MetaData,
    *,
    engine: Engine | AsyncEngine | None = None,
    lock_timeout: str | float | timedelta | None = None,
    wait: float | timedelta = 600,
    naming_convention: Mapping[str, Any] | None = NAMING_CONVENTION,
    **kwargs: Any,
) -> None:
    """Run the migrations that Alembic's command asks for: a complete env.py.

    Only one process upgrades a database at a time; others wait, and then find nothing to do. On
    SQLite, all migrations are one transaction, in which foreign keys are not enforced, so that a
    batch that copies a table loses no rows that refer to it. If a foreign key is broken afterwards,
    that is an error, and nothing is committed. With `--sql`, it does not connect and takes no lock.

    Args:
        metadata: The tables of the models: `SQLModel.metadata`, after all models are imported.
        engine: The engine to connect with, sync or async. The default is `sqlalchemy.url` in
            alembic.ini.
        lock_timeout: How long a schema change may wait for a table lock, while all later statements
            wait behind it: "5s", "500ms", or a number of seconds. For PostgreSQL, MySQL and
            MariaDB. It does not apply to statements in an `autocommit_block`, such as CREATE INDEX
            CONCURRENTLY, or to `wait`.
        wait: How many seconds to wait for another process that upgrades the database.
        naming_convention: How to name constraints without a name, if the metadata has no convention
            of its own; None leaves them unnamed.
        **kwargs: Further arguments for Alembic's `context.configure`; they override what this
            function sets.

    Raises:
        MigrationLockError: Another process was still upgrading after `wait`.
        ValidationError: A missing or malformed URL, or a wrong duration.
        ConstraintViolationError: A foreign key is broken after migrations on SQLite.

    Example:
        In env.py:

        ```python
        from app.models import SQLModel
        from sqlmodel_crud_utils.ext.alembic import run_migrations

        run_migrations(SQLModel.metadata)
        ```
    """
    _name_constraints(metadata, naming_convention)
    _set_up_logging()
    options = {"target_metadata": metadata, "render_item": render_item, **kwargs}
    patience = seconds_of(wait, "wait")
    lock_seconds = None if lock_timeout is None else seconds_of(lock_timeout, "lock_timeout")
    if context.is_offline_mode():
        url = _url() if engine is None else engine.url
        _run_offline(url, lock_seconds, options)
        return

    def migrate(plain: Engine) -> None:
        _run_online(plain, patience, lock_seconds, options)

    _with_engine(engine, migrate)


def _name_constraints(metadata: MetaData, convention: Mapping[str, Any] | None) -> None:
    if convention is not None and metadata.naming_convention == MetaData().naming_convention:
        metadata.naming_convention = convention


def _set_up_logging() -> None:
    """Set up logging for Alembic's command as configured in alembic.ini."""
    config = context.config
    if config.cmd_opts is not None and config.file_config.has_section("loggers"):
        fileConfig(config.file_config, disable_existing_loggers=False)


# --- where to connect ----------------------------------------------------------------------------


def _with_engine(engine: Engine | AsyncEngine | None, work: Callable[[Engine], None]) -> None:
    if isinstance(engine, Engine):
        work(engine)
        return
    if engine is not None:
        _in_loop(engine, work, is_own=False)
        return
    url = _url()
    if "+" in url.drivername and url.get_dialect().is_async:
        # Imported here, so that sync code does not load the async parts.
        from sqlmodel_crud_utils.aio import create_pooled_engine as create_async_pooled_engine

        _in_loop(create_async_pooled_engine(url), work, is_own=True)
        return
    from sqlmodel_crud_utils.sync import create_pooled_engine

    made = create_pooled_engine(url)
    try:
        work(made)
    finally:
        made.dispose()


def _in_loop(engine: AsyncEngine, work: Callable[[Engine], None], *, is_own: bool) -> None:
    from sqlmodel_crud_utils._loops import run_in_separate_loop

    run_in_separate_loop(engine, work, dispose=is_own)


def _url() -> URL:
    """Return the URL in alembic.ini; errors do not quote it, because it may contain a password."""
    try:
        text = context.config.get_main_option("sqlalchemy.url")
    except InterpolationError:
        text = "%"
    if text is None or text.startswith(f"{_PLACEHOLDER}://"):
        raise bad_url(
            "is missing: set sqlalchemy.url in alembic.ini, "
            "or write run_migrations(metadata, engine=engine) in env.py"
        )
    if text == "%":
        raise bad_url("contains a %, which must be written as %% in alembic.ini") from None
    return read_url(text)


# --- running -------------------------------------------------------------------------------------


def _run_offline(url: URL, lock_seconds: float | None, options: dict[str, Any]) -> None:
    features = features_named(url.get_backend_name())
    defaults = {
        "literal_binds": True,
        "dialect_opts": {"paramstyle": "named"},
        "render_as_batch": features.single_writer,
    }
    context.configure(url=url, **{**defaults, **options})
    with context.begin_transaction():
        if lock_seconds is not None:
            for statement in _lock_timeout(features, lock_seconds):
                context.execute(statement)
        context.run_migrations()


def _run_online(
    engine: Engine, patience: float, lock_seconds: float | None, options: dict[str, Any]
) -> None:
    with upgrade_lock(engine, patience), engine.connect() as connection:
        limited = nullcontext() if lock_seconds is None else _lock_waits(connection, lock_seconds)
        with limited, _transaction(connection, patience, options):
            context.run_migrations()


@contextmanager
def _transaction(
    connection: Connection, patience: float, options: dict[str, Any]
) -> Iterator[None]:
    is_sqlite = features_of(connection.dialect).single_writer
    defaults = {"transactional_ddl": True, "render_as_batch": True} if is_sqlite else {}
    with unchecked(connection, patience) if is_sqlite else nullcontext():
        context.configure(connection=connection, **{**defaults, **options})
        checked = begin_checked(connection, patience) if is_sqlite else nullcontext()
        with context.begin_transaction(), checked:
            yield


# --- lock_timeout --------------------------------------------------------------------------------


@contextmanager
def _lock_waits(connection: Connection, seconds: float) -> Iterator[None]:
    """Limit lock waits in each transaction, but not outside transactions or afterwards."""
    features = features_of(connection.dialect)
    limits, before = _lock_timeout(features, seconds), _restored(connection, features)

    @event.listens_for(connection, "begin")
    def limit(begun: Connection) -> None:
        for statement in before if is_autocommitting(begun) else limits:
            begun.exec_driver_sql(statement)

    try:
        yield
    finally:
        if before and not connection.invalidated:
            connection.rollback()
            for statement in before:
                connection.exec_driver_sql(statement)


def _lock_timeout(features: Features, seconds: float) -> list[str]:
    # 0 would mean no limit.
    if features.lock_limit == "lock_timeout":
        return [f"SET LOCAL lock_timeout = '{max(1, round(seconds * 1000))}ms'"]
    if features.lock_limit == "lock_wait_timeout":
        return [f"SET SESSION lock_wait_timeout = {max(1, round(seconds))}"]
    return []


def _restored(connection: Connection, features: Features) -> list[str]:
    """Return statements that restore a limit that outlives its transaction, as MySQL's does."""
    if features.lock_limit != "lock_wait_timeout":
        return []
    seconds = connection.exec_driver_sql("SELECT @@SESSION.lock_wait_timeout").scalar()
    connection.rollback()
    return [f"SET SESSION lock_wait_timeout = {seconds}"]
