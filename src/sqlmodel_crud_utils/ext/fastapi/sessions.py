"""One session and one transaction per request, committed before the response leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

from anyio import CancelScope, CapacityLimiter, to_thread
from anyio.lowlevel import RunVar
from fastapi import Depends
from sqlalchemy import Engine
from sqlalchemy.orm import sessionmaker
from sqlmodel import Session

from sqlmodel_crud_utils._session.modes import Modes
from sqlmodel_crud_utils.exceptions import ValidationError

if TYPE_CHECKING:
    from sqlmodel_crud_utils._runtime_async import (
        AsyncEngine,
        SQLModelAsyncSession as AsyncSession,
        async_sessionmaker,
    )

__all__ = ["session_dependency"]

T = TypeVar("T")

_WAITING_THREADS = 40  # AnyIO's default for everything else


@overload
def session_dependency(
    engine: Engine | sessionmaker[Session], *, read_only: bool = False, **kwargs: Any
) -> Callable[..., Session]: ...
@overload
def session_dependency(
    engine: AsyncEngine | async_sessionmaker[AsyncSession],
    *,
    read_only: bool = False,
    **kwargs: Any,
) -> Callable[..., AsyncSession]: ...
def session_dependency(
    engine: Any, *, read_only: bool = False, **kwargs: Any
) -> Callable[..., Any]:
    """Return a FastAPI dependency that gives each request a session and a transaction of its own.

    The route runs inside `transaction(session, wrap_errors=False)`. After it has returned and its
    result is serialized, the transaction is committed, and only then is the response sent: a client
    that has its response can read what it wrote. Callbacks of `on_commit` run after the commit and
    before the response. A commit that fails is handled like an exception in the route, so the
    client gets an error.

    An exception in the route, even an `HTTPException`, rolls back and propagates unchanged. If the
    route returns a response, the transaction is committed, whatever the status.

    Afterwards the session is closed for good, so that nothing can be written without being
    committed: a background task or a streamed response needs its own session. Within a request, all
    dependencies and the route share one session.

    Connections are acquired in threads other than those that run sync routes, so a request that
    waits for a connection never blocks one that has it.

    Args:
        engine: The engine: with an `Engine`, routes get a `Session`; with an `AsyncEngine`, an
            `AsyncSession`. Or a factory of sessions, such as the one that `isolated` provides in
            tests.
        read_only: Whether the routes only read. The transaction is READ ONLY on PostgreSQL and
            MySQL; on SQLite it does not wait for writers. A write through the library then raises a
            `ValidationError`.
        **kwargs: Settings of the sessions, as in `session_factory`.

    Returns:
        A function for `Depends`, and for `app.dependency_overrides` in tests. The `scope` that you
        pass to `Depends` does not matter.

    Raises:
        ValidationError: Something that is neither an engine nor a factory of sessions.

    Example:
        >>> from typing import Annotated
        >>> from fastapi import Depends, FastAPI
        >>> from fastapi.testclient import TestClient
        >>> from sqlmodel import Session, SQLModel
        >>> from sqlmodel_crud_utils.sync import create_pooled_engine, write_row
        >>> app = FastAPI()
        >>> memory = create_pooled_engine("sqlite://")
        >>> Hero.metadata.create_all(memory)
        >>> RequestSession = Annotated[Session, Depends(session_dependency(memory))]
        >>> class HeroCreate(SQLModel):  # a class with a table would not check the body
        ...     name: str
        ...     secret_name: str
        >>> @app.post("/heroes", status_code=201)
        ... def create_hero(data: HeroCreate, session: RequestSession) -> Hero:
        ...     _, row = write_row(Hero.model_validate(data), session, raise_on_error=True)
        ...     return row
        >>> TestClient(app).post("/heroes", json={"name": "Rusty", "secret_name": "?"}).status_code
        201
        >>> memory.dispose()
    """
    settings = {"close_resets_only": False, **kwargs}
    opened: Callable[[], AsyncIterator[Any]]
    gives: type[Any]
    if isinstance(engine, Engine | sessionmaker):
        opened, gives = _sync_sessions(engine, Modes(read_only=read_only), settings), Session
    elif _is_async(engine):
        from sqlmodel_crud_utils._runtime_async import SQLModelAsyncSession

        opened, gives = (
            _async_sessions(engine, Modes(read_only=read_only), settings),
            SQLModelAsyncSession,
        )
    else:
        raise ValidationError(
            "session_dependency takes an Engine, an AsyncEngine or a factory of sessions, "
            f"not {type(engine).__name__}",
            field="engine",
        )

    # With the scope "function", it ends before the response is sent. As a sub-dependency, it does
    # so regardless of the scope that the user declares.
    session_of_the_function = Depends(opened, scope="function")

    async def request_session(session: Any = session_of_the_function) -> Any:
        return session

    # Lets `crud_router`, for instance, see which kind of session it yields.
    request_session.__annotations__["return"] = gives
    return request_session


def _is_async(engine: Any) -> bool:
    """Return whether an engine or factory is async, without importing the async classes."""
    made = getattr(engine, "class_", None)
    return hasattr(engine, "sync_engine") or hasattr(made, "sync_session_class")


def _async_sessions(
    engine: AsyncEngine | async_sessionmaker[AsyncSession], modes: Modes, settings: dict[str, Any]
) -> Callable[[], AsyncIterator[AsyncSession]]:
    # Imported here, so that neither API loads the other.
    from sqlmodel_crud_utils._async._running.block_levels import block
    from sqlmodel_crud_utils._async.connections import session_factory
    from sqlmodel_crud_utils._runtime_async import async_sessionmaker

    if isinstance(engine, async_sessionmaker):
        new_session: Callable[[], AsyncSession] = partial(engine, **settings)
    else:
        new_session = session_factory(engine, **settings)

    async def opened() -> AsyncIterator[AsyncSession]:
        async with new_session() as session, block(session, wrap_errors=False, modes=modes):
            yield session

    return opened


def _sync_sessions(
    engine: Engine | sessionmaker[Session], modes: Modes, settings: dict[str, Any]
) -> Callable[[], AsyncIterator[Session]]:
    from sqlmodel_crud_utils._sync._running.block_levels import block
    from sqlmodel_crud_utils._sync.connections import session_factory

    if isinstance(engine, sessionmaker):
        new_session: Callable[[], Session] = partial(engine, **settings)
    else:
        new_session = session_factory(engine, **settings)
    waiting: RunVar[CapacityLimiter] = RunVar(f"requests that wait for {id(new_session)}")

    @contextmanager
    def in_block() -> Iterator[Session]:
        with new_session() as session, block(session, wrap_errors=False, modes=modes):
            yield session

    async def opened() -> AsyncIterator[Session]:
        async with _in_threads(in_block(), waiting) as session:
            yield session

    return opened


@asynccontextmanager
async def _in_threads(
    block: AbstractContextManager[T], waiting: RunVar[CapacityLimiter]
) -> AsyncIterator[T]:
    """Enter and leave a block in threads other than those that run the routes.

    Otherwise requests that wait for a connection or lock could occupy all threads, and the request
    that holds it would find no thread to run its route and release it.
    """
    value = await to_thread.run_sync(block.__enter__, limiter=_limiter(waiting))
    try:
        yield value
    except BaseException as error:
        with CancelScope(shield=True):
            await _leave(block, error)
        raise
    await _leave(block, None)


async def _leave(block: AbstractContextManager[Any], error: BaseException | None) -> None:
    of_error = (None, None, None) if error is None else (type(error), error, error.__traceback__)
    # A separate limiter, so that leaving, which frees a connection, never waits for a thread.
    await to_thread.run_sync(block.__exit__, *of_error, limiter=CapacityLimiter(1))


def _limiter(waiting: RunVar[CapacityLimiter]) -> CapacityLimiter:
    """Return the limiter of this event loop."""
    limiter = waiting.get(None)
    if limiter is None:
        limiter = CapacityLimiter(_WAITING_THREADS)
        waiting.set(limiter)
    return limiter
