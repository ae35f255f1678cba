"""Sessions for one test, whose writes are undone after it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any, overload

from sqlalchemy import Engine

from sqlmodel_crud_utils.exceptions import ValidationError

if TYPE_CHECKING:
    from sqlalchemy.orm import sessionmaker
    from sqlmodel import Session

    from sqlmodel_crud_utils._runtime_async import (
        AsyncEngine,
        SQLModelAsyncSession as AsyncSession,
        async_sessionmaker,
    )

__all__ = ["isolated"]


@overload
def isolated(engine: Engine, **kwargs: Any) -> AbstractContextManager[sessionmaker[Session]]: ...
@overload
def isolated(
    engine: AsyncEngine, **kwargs: Any
) -> AbstractAsyncContextManager[async_sessionmaker[AsyncSession]]: ...
def isolated(engine: Any, **kwargs: Any) -> Any:
    """Provide sessions whose writes are all undone at the end of the block.

    All sessions of the block work on one connection, in one transaction that is rolled back at the
    end. Their commits release a savepoint. So code under test commits, fails and rolls back as in
    production, including callbacks of `on_commit`, and each session sees what the others have
    written. You can also pass the factory to `session_dependency`.

    The database never sees a commit, so it does not check deferred constraints. Sequences are not
    reset. On MySQL, a statement that changes the schema commits.

    Args:
        engine: The engine of a database with your tables; with an `AsyncEngine`, use `async with`.
        **kwargs: Settings of the sessions, as in `session_factory`, without `replicas`.

    Returns:
        A context manager that yields a factory of sessions.

    Raises:
        ValidationError: Something that is not an engine, an engine under AUTOCOMMIT, or `replicas`.
        TransactionError: Inside the block, if the connection itself is committed.

    Example:
        >>> from sqlmodel_crud_utils.sync import write_row
        >>> with isolated(engine) as new_session:
        ...     with new_session() as first, new_session() as second:
        ...         _ = write_row(Hero(name="Robin", secret_name="?"), first)
        ...         second.scalar(select(Hero.name))
        'Robin'
        >>> with isolated(engine) as new_session, new_session() as later:
        ...     later.scalar(select(Hero.name))
    """
    if "replicas" in kwargs:
        raise ValidationError(
            "isolated sessions have one connection, so leave replicas out", field="replicas"
        )
    # Imported here, so that neither API loads the other.
    if isinstance(engine, Engine):
        from sqlmodel_crud_utils.ext.pytest._sync.undone_sessions import isolated_sessions

        return isolated_sessions(engine, kwargs)
    if hasattr(engine, "sync_engine"):
        from sqlmodel_crud_utils.ext.pytest._async.undone_sessions import (
            isolated_sessions as isolated_async_sessions,
        )

        return isolated_async_sessions(engine, kwargs)
    raise ValidationError(
        f"isolated takes an Engine or an AsyncEngine, not {type(engine).__name__}", field="engine"
    )
