"""Rate limits: what counts, for whom, and what becomes of a call that is beyond one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from redis import Redis

from sqlmodel_crud_utils.aio import (
    AsyncQueryBuilder,
    bulk_insert_rows,
    bulk_update_rows,
    bulk_upsert_mappings,
    delete_rows_within_id_list,
    get_one_or_create,
    get_result_from_query,
    get_row,
    get_rows,
    insert_data_rows,
    transaction,
    write_row,
)
from sqlmodel_crud_utils.exceptions import (
    RateLimitExceededError,
    RateLimitUnavailableError,
    ValidationError,
)
from sqlmodel_crud_utils.ext.fastapi import install_error_handlers
from sqlmodel_crud_utils.ext.rate_limits import RateLimiter
from sqlmodel_crud_utils.hooks import registered_hook
from sqlmodel_crud_utils.mixins import acting_as, current_actor
from tests._async.hooking import inside_and_outside
from tests._runtime_async import AsyncEngine, AsyncSession, in_thread
from tests.hook_models import Event, Project, hook_of
from tests.recording import logged, recorded
from tests.redis_servers import OwnRedis, own_redis
from tests.telemetry import exported

EXCEEDED = pytest.raises(RateLimitExceededError)
ONE, TWO = 1001, 1002


@pytest.fixture(scope="module")
def server() -> Iterator[OwnRedis]:
    """A Redis."""
    with own_redis() as started:
        yield started


@pytest.fixture
async def limiter() -> Any:
    """A limiter in memory."""
    made = RateLimiter("memory://")
    yield made
    made.close()


@pytest.fixture(params=["memory", "redis"])
async def each_limiter(request: pytest.FixtureRequest) -> Any:
    """A limiter in memory, and one in Redis."""
    url = "memory://"
    if request.param == "redis":
        server = request.getfixturevalue("server")
        server.forget()
        url = server.url
    made = RateLimiter(url, timeout=1)
    yield made
    await made.aclose()


def _event() -> Event:
    return Event(text="x")


def _events(session: AsyncSession) -> AsyncQueryBuilder[Event]:
    return AsyncQueryBuilder(session, Event)


async def _count(session: AsyncSession) -> int:
    return await _events(session).count()


@pytest.mark.databases("sqlite")
class TestCalls:
    @inside_and_outside
    async def test_beyond_the_limit(
        self, engine: AsyncEngine, session: AsyncSession, each_limiter: RateLimiter, inside: bool
    ) -> None:
        """It raises before any SQL, regardless of flags, and dooms no block; it does not count."""
        each_limiter.limit("2/hour", Event, on="write")
        await write_row(_event(), session)
        await write_row(_event(), session)
        with recorded(engine) as words:
            for raises in (None, False, True):
                with pytest.raises(RateLimitExceededError) as raised:
                    await write_row(_event(), session, raise_on_error=raises)
        assert words == []
        assert raised.value.limit == "2/hour"
        assert raised.value.retry_after == pytest.approx(1_800, abs=10)
        if inside:
            async with transaction(session):
                with EXCEEDED:
                    await write_row(_event(), session)
                await write_row(Project(name="a"), session)
        assert await _count(session) == 2

    async def test_which_calls_count(self, session: AsyncSession, limiter: RateLimiter) -> None:
        """Those of the model, of the kind; a block counts nothing."""
        limiter.limit("3/hour", Event, on="write")
        await get_one_or_create(session, Event, text="a")  # a write, whatever it does
        await get_one_or_create(session, Event, text="a")
        await get_rows(session, Event)
        await write_row(Project(name="a"), session)
        async with transaction(session):
            await _events(session).where(id=0).delete()
        with EXCEEDED:
            await write_row(_event(), session)

    async def test_reads(self, session: AsyncSession, limiter: RateLimiter) -> None:
        """Methods of a builder count as functions do; a stream is one read."""
        limiter.limit("4/hour", Event, on="read")
        await insert_data_rows([_event(), _event()], session)
        await _events(session).all()
        async for _ in _events(session).stream(1):
            pass
        await get_row(1, session, Event)
        await _events(session).paginate(1, 1)
        with EXCEEDED:
            async for _ in _events(session).stream():
                pass

    async def test_of_every_model(self, session: AsyncSession, limiter: RateLimiter) -> None:
        """Without a model all calls count together, those with a statement too."""
        limiter.limit("2/hour")
        await get_rows(session, Event)
        await get_rows(session, Project)
        with EXCEEDED:
            await get_result_from_query(AsyncQueryBuilder(session, Event).statement(), session)

    async def test_by(self, session: AsyncSession, each_limiter: RateLimiter) -> None:
        """Each caller has a count; anonymous callers are not limited."""
        each_limiter.limit("1/hour", Event, by=current_actor)
        for name in ("ann", "bob"):
            with acting_as(name):
                await get_rows(session, Event)
                with EXCEEDED:
                    await get_rows(session, Event)
        for _ in range(3):
            await get_rows(session, Event)

    async def test_nobody(self, session: AsyncSession, limiter: RateLimiter) -> None:
        """Anonymous calls can be refused; there is no time after which to retry."""
        limiter.limit("1/hour", Event, by=current_actor, anonymous="refuse")
        with pytest.raises(RateLimitExceededError) as raised:
            await get_rows(session, Event)
        assert raised.value.retry_after is None
        with acting_as("ann"):
            await get_rows(session, Event)

    async def test_several(self, session: AsyncSession, each_limiter: RateLimiter) -> None:
        """All limits hold; what one refuses is not counted by the others."""
        each_limiter.limit("1/hour", Event, by=current_actor)
        each_limiter.limit("2/hour", Event)
        with acting_as("ann"):
            await get_rows(session, Event)
            with EXCEEDED:
                await get_rows(session, Event)
        with acting_as("bob"):
            await get_rows(session, Event)
        with acting_as("eve"), pytest.raises(RateLimitExceededError) as raised:
            await get_rows(session, Event)
        assert raised.value.limit == "2/hour"

    async def test_the_same_twice(self, session: AsyncSession, limiter: RateLimiter) -> None:
        """Two functions of one name have counts of their own."""
        limiter.limit("2/hour", by=lambda: "1")
        limiter.limit("2/hour", by=lambda: "1")
        await get_rows(session, Event)
        await get_rows(session, Event)
        with EXCEEDED:
            await get_rows(session, Event)

    async def test_in_a_block(self, session: AsyncSession, each_limiter: RateLimiter) -> None:
        """Calls inside count, for the same key in every block; blocks can be nested."""
        with each_limiter.limited("2/hour", by="key:1"):
            await get_rows(session, Event)
        with each_limiter.limited("2/hour", by="key:1"), each_limiter.limited("9/hour", by="a"):
            await write_row(_event(), session)
            with EXCEEDED:
                await get_rows(session, Event)
        with each_limiter.limited("2/hour", by="key:2"):
            await get_rows(session, Event)
        await get_rows(session, Event)

    async def test_taken_away(self, session: AsyncSession, limiter: RateLimiter) -> None:
        """A limit ends with its `remove`, all of them with `close`."""
        handle = limiter.limit("1/hour", Event)
        await get_rows(session, Event)
        handle.remove()
        await get_rows(session, Event)
        with limiter.limited("1/hour"):
            limiter.limit("2/minute", Event)
            limiter.limit("2/minute", Event)
            await get_rows(session, Event)
            limiter.close()
            await get_rows(session, Event)
            await get_rows(session, Event)

    async def test_hooks(self, session: AsyncSession, limiter: RateLimiter) -> None:
        """A hook's calls are part of the call that runs the hook."""
        limiter.limit("2/hour", on="write")

        async def write(_row: Any) -> None:
            await write_row(_event(), session)
            await write_row(_event(), session)

        with registered_hook(Project, hook_of(before_create=write)):
            await write_row(Project(name="a"), session)
            await write_row(Project(name="b"), session)
            with EXCEEDED:
                await write_row(Project(name="c"), session)
        assert await AsyncQueryBuilder(session, Project).scalars("name") == ["a", "b"]

    async def test_what_is_undone(self, session: AsyncSession, limiter: RateLimiter) -> None:
        """Work that is rolled back stays paid for."""
        limiter.limit("1/hour", Event, on="write")
        with suppress(ZeroDivisionError):
            async with transaction(session, wrap_errors=False):
                await write_row(_event(), session)
                raise ZeroDivisionError
        with EXCEEDED:
            await write_row(_event(), session)

    async def test_after_the_wait(self, session: AsyncSession, each_limiter: RateLimiter) -> None:
        """A caller that waits as long as the error says is allowed."""
        each_limiter.limit("10/second", Event)
        for _ in range(3):
            with pytest.raises(RateLimitExceededError) as raised:
                for _ in range(40):
                    await get_rows(session, Event)
            seconds = raised.value.retry_after or 0
            await in_thread(partial(time.sleep, seconds))
            await get_rows(session, Event)

    async def test_telemetry(self, session: AsyncSession, limiter: RateLimiter) -> None:
        """A refusal is in the span of the call, and is counted."""
        limiter.limit("1/hour", Event)
        with exported() as telemetry:
            await get_rows(session, Event)
            with EXCEEDED:
                await get_rows(session, Event)
        attributes = telemetry.spans[1].attributes or {}
        assert attributes["sqlmodel_crud.limits.refused"] is True
        assert attributes["error.type"] == "RateLimitExceededError"
        assert telemetry.total("sqlmodel_crud.limits.refused") == 1


@pytest.fixture
async def two(session: AsyncSession) -> None:
    """Two events."""
    session.add_all([Event(id=ONE, text="one"), Event(id=TWO, text="two")])
    await session.commit()


GIVEN = [{"text": f"{number}"} for number in range(4)]
# Calls that write two rows or more, in parts where they can.
MANY: dict[str, Callable[[AsyncSession], Any]] = {
    "bulk_insert_rows": lambda s: bulk_insert_rows(GIVEN, s, Event, chunk_size=1),
    "bulk_update_rows": lambda s: bulk_update_rows(
        [ONE, TWO], {"text": "x"}, s, Event, chunk_size=1
    ),
    "bulk_upsert_mappings": lambda s: bulk_upsert_mappings(
        [{"id": ONE, "text": "x"}, {"id": 7, "text": "x"}], s, Event, chunk_size=1
    ),
    "delete_rows_within_id_list": lambda s: delete_rows_within_id_list(
        [ONE, TWO], s, Event, chunk_size=1
    ),
    "insert_data_rows": lambda s: insert_data_rows([_event(), _event()], s),
    "update": lambda s: _events(s).where(id__in=[ONE, TWO]).update(text="x"),
    "delete": lambda s: _events(s).where(id__in=[ONE, TWO]).delete(),
}


@pytest.mark.usefixtures("two")
class TestRows:
    @pytest.mark.parametrize("name", MANY)
    @inside_and_outside
    async def test_beyond_the_limit(
        self, session: AsyncSession, limiter: RateLimiter, name: str, inside: bool
    ) -> None:
        """All of the operation is undone; how long to wait is for all of its rows."""
        limiter.limit("4/hour", Event, on="write", rows=True)
        await write_row(Event(id=ONE + 5, text="z"), session)
        await write_row(Event(id=ONE + 6, text="z"), session)
        await write_row(Event(id=ONE + 7, text="z"), session)
        if inside:
            with suppress(Exception):
                async with transaction(session):
                    with EXCEEDED:
                        await MANY[name](session)
        else:
            with EXCEEDED:
                await MANY[name](session)
        texts = await _events(session).order_by("id").scalars("text")
        assert texts == ["one", "two", "z", "z", "z"]

    @pytest.mark.databases("sqlite")
    @pytest.mark.parametrize("name", MANY)
    async def test_more_than_ever(
        self, session: AsyncSession, limiter: RateLimiter, name: str
    ) -> None:
        """More rows than the limit allows at all are a mistake: to wait would not help."""
        limiter.limit("1/hour", Event, on="write", rows=True)
        with pytest.raises(ValidationError, match=r"which the rate limit 1/hour never allows"):
            await MANY[name](session)
        assert await _events(session).order_by("id").scalars("text") == ["one", "two"]

    @pytest.mark.databases("sqlite")
    async def test_what_is_paid(self, session: AsyncSession, each_limiter: RateLimiter) -> None:
        """A row each; the first one is paid with the call, whether it writes one or not."""
        each_limiter.limit("10/hour", Event, on="write", rows=True)
        await bulk_insert_rows(GIVEN, session, Event, chunk_size=2)  # 4
        await _events(session).where(id__gt=0).update(text="x")  # 6
        with EXCEEDED:
            await write_row(_event(), session)

    @pytest.mark.databases("sqlite")
    async def test_the_wait(self, session: AsyncSession, limiter: RateLimiter) -> None:
        """It is as long as all rows of the call need, those that were paid for too."""
        limiter.limit("10/hour", Event, on="write", rows=True)
        await bulk_insert_rows(GIVEN * 2, session, Event)
        with pytest.raises(RateLimitExceededError) as raised:
            await bulk_insert_rows(GIVEN, session, Event)
        # 9 in the bucket, and 4 rows for the same call again.
        assert raised.value.retry_after == pytest.approx(3 * 360, abs=10)


@pytest.mark.databases("sqlite")
class TestRedis:
    async def test_its_keys(self, session: AsyncSession, server: OwnRedis) -> None:
        """They begin with the prefix, and hold a hash in place of a name; programs are apart."""
        server.forget()
        for prefix in ("first", "second"):
            limiter = RateLimiter(server.url, prefix=prefix, timeout=1)
            limiter.limit("1/hour", Event, by=lambda: "secret-key")
            await get_rows(session, Event)
            await limiter.aclose()
        names = server.keys()
        assert [name.partition(":")[0] for name in names] == ["first", "second"]
        assert "secret" not in "".join(names)
        assert "vent" not in "".join(names)

    async def test_processes_share_it(self, session: AsyncSession, server: OwnRedis) -> None:
        """Limiters with the same limits count together, also with clocks that differ."""
        server.forget()
        for skew, refused in ((0, False), (300, False), (-300, True)):
            limiter = RateLimiter(server.url, timeout=1)
            limiter.limit("2/hour", Event)
            with _skewed(skew):
                if refused:
                    with pytest.raises(RateLimitExceededError) as raised:
                        await get_rows(session, Event)
                    assert raised.value.retry_after == pytest.approx(1_800, abs=10)
                else:
                    await get_rows(session, Event)
            await limiter.aclose()

    async def test_one_round_trip(self, session: AsyncSession, server: OwnRedis) -> None:
        """Any number of limits are asked at once."""
        limiter = RateLimiter(server.url, timeout=1)
        limiter.limit("100/hour", Event)
        limiter.limit("100/hour", by=lambda: "x")
        await get_rows(session, Event)
        with Redis.from_url(server.url) as client:
            client.config_resetstat()
            await get_rows(session, Event)
            statistics: Any = client.info("commandstats")
        asked = {name: each["calls"] for name, each in statistics.items() if "eval" in name}
        assert asked == {"cmdstat_evalsha": 1}
        await limiter.aclose()

    async def test_started_again(self, session: AsyncSession, server: OwnRedis) -> None:
        """If Redis has lost the script, it is sent again."""
        limiter = RateLimiter(server.url, on_failure="refuse", timeout=1)
        limiter.limit("100/hour", Event)
        await get_rows(session, Event)
        server.forget()
        await get_rows(session, Event)
        await limiter.aclose()

    @pytest.mark.parametrize("how", ["killed", "paused"])
    @pytest.mark.parametrize("refuses", [True, False], ids=["refuse", "allow"])
    async def test_that_fails(
        self, session: AsyncSession, engine: AsyncEngine, how: str, refuses: bool
    ) -> None:
        """Calls pass or are refused, soon, with one line in the log, until it answers again."""
        with own_redis() as server:
            on_failure: Any = "refuse" if refuses else "allow"
            limiter = RateLimiter(server.url, on_failure=on_failure)
            limiter.limit("3/hour", Event)
            await get_rows(session, Event)
            with logged("ERROR") as lines, _failing(server, how):
                begun = time.monotonic()
                for _ in range(5):
                    if refuses:
                        with recorded(engine) as words, pytest.raises(RateLimitUnavailableError):
                            await get_rows(session, Event)
                        assert words == []
                    else:
                        await get_rows(session, Event)
                assert time.monotonic() - begun < 0.9
            assert len(lines) == 1
            assert "Redis of the rate limits failed" in lines[0][2]
            await _recovered(limiter, session)
            await limiter.aclose()


class _failing:  # noqa: N801 - used as a function
    """Lets a Redis fail inside."""

    def __init__(self, server: OwnRedis, how: str) -> None:
        self._server = server
        self._paused = server.paused() if how == "paused" else None

    def __enter__(self) -> None:
        if self._paused is not None:
            self._paused.__enter__()
        else:
            self._server.kill()

    def __exit__(self, *_: object) -> None:
        if self._paused is not None:
            self._paused.__exit__(None, None, None)
        else:
            self._server.start()


async def _recovered(limiter: RateLimiter, session: AsyncSession) -> None:
    """Wait until a limit holds again."""
    limiter.limit("1/hour", Event)
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            await get_rows(session, Event)
        except RateLimitExceededError:
            return
        except RateLimitUnavailableError:
            pass
        await in_thread(partial(time.sleep, 0.1))
    raise AssertionError("no limit holds")


class _skewed:  # noqa: N801 - used as a function
    """Lets the clocks of this process be wrong inside."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> None:
        now = time.time
        self._patch.setattr(time, "time", lambda: now() + self._seconds)

    def __exit__(self, *_: object) -> None:
        self._patch.undo()


@pytest.mark.parametrize(
    ("error", "status", "after"),
    [
        (RateLimitExceededError("1/minute", 0.2), 429, "1"),
        (RateLimitExceededError("1/minute", 7.01), 429, "8"),
        (RateLimitExceededError("1/minute", None), 429, None),
        (RateLimitUnavailableError(), 503, "1"),
    ],
)
def test_in_a_service(error: Exception, status: int, after: str | None) -> None:
    """The answer is 429 or 503, and says after how many whole seconds to come again."""
    app = FastAPI()
    install_error_handlers(app)

    @app.get("/")
    def read() -> None:
        raise error

    with TestClient(app) as client:
        response = client.get("/")
    assert response.status_code == status
    assert response.headers.get("Retry-After") == after
    assert "minute" not in response.text
