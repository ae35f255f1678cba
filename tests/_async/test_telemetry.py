"""Telemetry: a span and a few numbers for each call, which say nothing of what is in a row."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy import text
from sqlalchemy.orm.exc import StaleDataError

from sqlmodel_crud_utils.aio import (
    AsyncQueryBuilder,
    bulk_insert_rows,
    bulk_upsert_mappings,
    get_result_from_query,
    get_row,
    get_rows_within_id_list,
    insert_data_rows,
    on_commit,
    pool_status,
    run_transaction,
    session_factory,
    transaction,
    write_row,
)
from sqlmodel_crud_utils.exceptions import RecordNotFoundError, TransactionError
from sqlmodel_crud_utils.ext.cache import InMemoryCache, configure_cache
from sqlmodel_crud_utils.ext.opentelemetry import instrument
from sqlmodel_crud_utils.hooks import registered_hook
from sqlmodel_crud_utils.mixins import all_tenants
from tests._runtime_async import AsyncEngine, AsyncSession, make_engine, sync_engine
from tests.databases import Database
from tests.hook_models import Event, Project, hook_of
from tests.telemetry import Exported, exported

# What each database says of a unique value that another row has.
TAKEN = {"sqlite": "2067", "postgresql": "23505", "mysql": "1062"}
NO_TABLE = {"sqlite": "1", "postgresql": "42P01", "mysql": "1146"}


@pytest.fixture
def telemetry() -> Iterator[Exported]:
    """The exported telemetry."""
    with exported() as collected:
        yield collected


def _current() -> str:
    """Return the name of the current span."""
    return getattr(trace.get_current_span(), "name", "")


class TestSpans:
    async def test_a_write(self, session: AsyncSession, telemetry: Exported) -> None:
        """It has the name of the function and of the table, and how many rows there were."""
        await write_row(Event(text="x"), session)
        span = telemetry.only
        assert (span.name, span.kind) == ("write_row event", SpanKind.INTERNAL)
        assert telemetry.attributes() == {
            "code.function.name": "write_row",
            "db.collection.name": "event",
            "sqlmodel_crud.rows_written": 1,
        }
        assert span.status.status_code is StatusCode.UNSET

    async def test_a_method_of_a_builder(self, session: AsyncSession, telemetry: Exported) -> None:
        """It has the name of the method; what it returns is counted."""
        await AsyncQueryBuilder(session, Event).all()
        assert telemetry.only.name == "all event"
        assert telemetry.attributes()["db.response.returned_rows"] == 0

    async def test_without_a_table(self, session: AsyncSession, telemetry: Exported) -> None:
        """A read of the caller's own statement is named after the function only."""
        await get_result_from_query(text("SELECT 1"), session)
        assert telemetry.only.name == "get_result_from_query"

    async def test_for_all_tenants(self, session: AsyncSession, telemetry: Exported) -> None:
        """The span shows that a call reaches the rows of all tenants."""
        with all_tenants():
            await get_row(1, session, Event)
        await get_row(1, session, Event)
        told = [
            (span.attributes or {}).get("sqlmodel_crud.all_tenants") for span in telemetry.spans
        ]
        assert told == [True, None]

    async def test_the_cache(self, engine: AsyncEngine, telemetry: Exported) -> None:
        """The span has the result of a cache lookup, and a metric counts it."""
        configure_cache(InMemoryCache(), ttl=60)
        try:
            for _ in range(2):
                async with session_factory(engine)() as session:
                    await get_row(1, session, Event, use_cache=True)
                async with session_factory(engine)() as session:
                    await AsyncQueryBuilder(session, Event).cached().count()
            async with session_factory(engine)() as session:
                session.add(Event(text="x"))
                await get_row(1, session, Event, use_cache=True)
                await get_row(1, session, Event)
        finally:
            configure_cache(None)
        told = [
            (span.attributes or {}).get("sqlmodel_crud.cache.result") for span in telemetry.spans
        ]
        assert told == ["miss", "miss", "hit", "hit", "bypass", None]
        assert sum(telemetry.points("sqlmodel_crud.cache.requests").values()) == 5

    async def test_batches(self, session: AsyncSession, telemetry: Exported) -> None:
        """The span has the number of given rows; one row is not a batch."""
        await get_rows_within_id_list([1, 2, 3], session, Event)
        await get_rows_within_id_list([1], session, Event)
        sizes = [(span.attributes or {}).get("db.operation.batch.size") for span in telemetry.spans]
        assert sizes == [3, None]

    @pytest.mark.parametrize("rows", [2, 300])
    async def test_past_the_unit_of_work(
        self, session: AsyncSession, telemetry: Exported, rows: int
    ) -> None:
        """COPY, quick inserts and set-based writes have a span with their number of rows."""
        given = [{"text": f"{number}"} for number in range(rows)]
        await bulk_insert_rows(given, session, Event)
        await insert_data_rows([Event(**each) for each in given], session)
        await bulk_upsert_mappings(
            [{"id": -1 - n, **each} for n, each in enumerate(given)], session, Event
        )
        await AsyncQueryBuilder(session, Event).where(id__ne=0).update(text="y")
        await AsyncQueryBuilder(session, Event).where(id__ne=0).delete()
        counts = [
            (span.name, (span.attributes or {}).get("sqlmodel_crud.rows_written"))
            for span in telemetry.spans
        ]
        assert counts == [
            ("bulk_insert_rows event", rows),
            ("insert_data_rows event", rows),
            ("bulk_upsert_mappings event", rows),
            ("update event", 3 * rows),
            ("delete event", 3 * rows),
        ]

    async def test_what_does_no_io(self, engine: AsyncEngine, telemetry: Exported) -> None:
        """Functions that never talk to the database have no span."""
        pool_status(engine)
        async with session_factory(engine)() as session:
            on_commit(session, lambda: None)
        assert telemetry.spans == []

    async def test_another_provider(self, session: AsyncSession, telemetry: Exported) -> None:
        """A second call of `instrument` replaces the first."""
        second = Exported()
        instrument(tracer_provider=second.tracer_provider, meter_provider=second.meter_provider)
        await get_row(1, session, Event)
        assert telemetry.spans == []
        assert second.names == ["get_row event"]


class TestContext:
    async def test_statements(self, database: Database, telemetry: Exported) -> None:
        """The spans of another instrumentation are children of the call, a stream's too."""
        engine = make_engine(database.async_url)
        instrumentor = SQLAlchemyInstrumentor()
        instrumentor.instrument(
            engine=sync_engine(engine),
            skip_dep_check=True,
            tracer_provider=telemetry.tracer_provider,
        )
        try:
            async with AsyncSession(engine) as session:
                await get_row(1, session, Event)
                async for _ in AsyncQueryBuilder(session, Event).stream():
                    pass
        finally:
            instrumentor.uninstrument()
            await engine.dispose()
        parents = {parent for name, parent in telemetry.parents().items() if "SELECT" in name}
        names = {name for name in telemetry.names if "event" in name}
        assert parents <= {"get_row event", "stream event"}
        assert parents
        assert names == {"get_row event", "stream event"}

    async def test_nested(self, session: AsyncSession, telemetry: Exported) -> None:
        """A hook's calls are children of the call that runs the hook."""

        async def write(_row: Any) -> None:
            await write_row(Event(text="x"), session)

        with registered_hook(Project, hook_of(before_create=write)):
            await write_row(Project(name="a"), session)
        assert telemetry.parents() == {
            "write_row event": "write_row project",
            "write_row project": None,
        }

    @pytest.mark.usefixtures("telemetry")
    async def test_callbacks(self, session: AsyncSession) -> None:
        """They run inside the span of the transaction, and leave nothing behind."""
        seen = []
        async with transaction(session):
            on_commit(session, lambda: seen.append(_current()))
        await write_row(Event(text="x"), session)
        assert seen == ["transaction"]
        assert _current() == ""

    async def test_blocks(self, session: AsyncSession, telemetry: Exported) -> None:
        """The outermost block is a span around its calls; savepoints have none."""
        async with transaction(session):
            async with transaction(session):
                await write_row(Event(text="x"), session)
            inside = _current()
        assert telemetry.parents() == {"write_row event": "transaction", "transaction": None}
        assert inside == "transaction"
        assert _current() == ""

    async def test_the_callers_span(self, session: AsyncSession, telemetry: Exported) -> None:
        """It is the parent, and the current one afterwards, failed or not."""
        tracer = telemetry.tracer_provider.get_tracer("caller")
        with tracer.start_as_current_span("request"):
            await get_row(1, session, Event)
            with pytest.raises(RecordNotFoundError):
                await get_row(1, session, Event, raise_on_error=True)
            assert _current() == "request"
        assert telemetry.parents()["get_row event"] == "request"


@pytest.fixture
async def two(session: AsyncSession) -> None:
    """Two events."""
    session.add_all([Event(text="a"), Event(text="b")])
    await session.commit()


@pytest.mark.usefixtures("two")
class TestStreams:
    async def test_to_its_end(self, session: AsyncSession, telemetry: Exported) -> None:
        """It lasts as long as the stream and is never current in the caller's code."""
        seen = []
        async for _ in AsyncQueryBuilder(session, Event).stream(1):
            seen.append(_current())
            assert telemetry.spans == []
        assert seen == ["", ""]
        assert telemetry.attributes()["db.response.returned_rows"] == 2

    async def test_closed(self, session: AsyncSession, telemetry: Exported) -> None:
        """It ends when the stream is closed."""
        stream = AsyncQueryBuilder(session, Event).stream(1)
        async for _ in stream:
            break
        await stream.aclose()
        assert telemetry.only.name == "stream event"

    async def test_dropped(self, session: AsyncSession, telemetry: Exported) -> None:
        """It ends when the stream is garbage-collected."""
        stream = AsyncQueryBuilder(session, Event).stream(1)
        async for _ in stream:
            break
        del stream
        gc.collect()
        assert telemetry.only.name == "stream event"
        assert _current() == ""


class TestFailures:
    @pytest.mark.parametrize("raises", [True, False], ids=["raised", "returned"])
    async def test_a_refusal(
        self, database: Database, session: AsyncSession, telemetry: Exported, raises: bool
    ) -> None:
        """The class of the error and the database's code, whether it is raised or not; no text."""
        await write_row(Project(name="a"), session)
        telemetry.clear()
        with suppress(Exception):
            await write_row(Project(name="a"), session, raise_on_error=raises)
        attributes = telemetry.attributes()
        assert attributes["error.type"] == "ConstraintViolationError"
        assert attributes["db.response.status_code"] == TAKEN[database.name]
        status = telemetry.only.status
        assert (status.status_code, status.description) == (StatusCode.ERROR, None)
        assert telemetry.only.events == ()

    async def test_one_of_many(
        self, database: Database, session: AsyncSession, telemetry: Exported
    ) -> None:
        """Of many errors the first one counts."""
        await write_row(Project(name="a"), session)
        telemetry.clear()
        await insert_data_rows([Project(name="a"), Project(name="b")], session)
        attributes = telemetry.attributes()
        assert attributes["error.type"] == "BulkOperationError"
        assert attributes["db.response.status_code"] == TAKEN[database.name]
        assert attributes["sqlmodel_crud.rows_written"] == 1

    async def test_of_a_read(
        self, database: Database, session: AsyncSession, telemetry: Exported
    ) -> None:
        """A read has them too."""
        with suppress(Exception):
            await get_result_from_query(text("SELECT 1 FROM nowhere"), session)
        attributes = telemetry.attributes()
        assert attributes["error.type"] == "QueryExecutionError"
        assert attributes["db.response.status_code"] == NO_TABLE[database.name]

    async def test_nothing_found(self, session: AsyncSession, telemetry: Exported) -> None:
        """It is not an error, whether returned or raised."""
        await get_row(9, session, Event)
        with suppress(RecordNotFoundError):
            await get_row(9, session, Event, raise_on_error=True)
        for span in telemetry.spans:
            assert span.status.status_code is StatusCode.UNSET
            assert "error.type" not in (span.attributes or {})
        assert len(telemetry.spans) == 2

    async def test_of_the_program(self, session: AsyncSession, telemetry: Exported) -> None:
        """An error of the caller's code ends the block with its class."""
        with suppress(ZeroDivisionError):
            async with transaction(session, wrap_errors=False):
                raise ZeroDivisionError
        assert telemetry.attributes()["error.type"] == "ZeroDivisionError"


class TestMetrics:
    async def test_durations(self, session: AsyncSession, telemetry: Exported) -> None:
        """Each call is a point, by function, table and error."""
        await write_row(Project(name="a"), session)
        await write_row(Project(name="a"), session)
        about = (("code.function.name", "write_row"), ("db.collection.name", "project"))
        assert telemetry.points("sqlmodel_crud.operation.duration") == {
            about: 1,
            (*about, ("error.type", "ConstraintViolationError")): 1,
        }

    async def test_transactions(self, session: AsyncSession, telemetry: Exported) -> None:
        """They are counted by outcome: what is undone, and what failed after its commit."""

        def fail() -> None:
            raise ZeroDivisionError

        async with transaction(session), transaction(session):
            pass
        with suppress(ExceptionGroup):
            async with transaction(session):
                on_commit(session, fail)
        with suppress(TransactionError):
            async with transaction(session):
                raise ZeroDivisionError
        outcome = "sqlmodel_crud.transaction.outcome"
        assert telemetry.points("sqlmodel_crud.transactions") == {
            ((outcome, "committed"),): 2,
            ((outcome, "rolled_back"),): 1,
        }

    async def test_a_callers_transaction(self, session: AsyncSession, telemetry: Exported) -> None:
        """A block inside it is a savepoint, so the outcome of the transaction is not reported."""
        async with session.begin(), transaction(session):
            pass
        assert telemetry.names == ["transaction"]
        assert telemetry.points("sqlmodel_crud.transactions") == {}

    async def test_retries(self, engine: AsyncEngine, telemetry: Exported) -> None:
        """A transaction that is run again is one span with its attempts, and is counted."""
        tries = []

        async def work(_session: AsyncSession) -> None:
            tries.append(1)
            if len(tries) < 3:
                raise StaleDataError

        await run_transaction(session_factory(engine), work)
        assert telemetry.names == ["run_transaction"]
        assert telemetry.attributes() == {
            "code.function.name": "run_transaction",
            "sqlmodel_crud.attempts": 3,
            "sqlmodel_crud.transaction.outcome": "committed",
        }
        assert telemetry.total("sqlmodel_crud.retries") == 2


class TestProvidersThatFail:
    @pytest.mark.parametrize("method", ["start_span", "set_attributes", "end", "record"])
    @pytest.mark.usefixtures("telemetry")
    async def test_they_break_nothing(
        self, session: AsyncSession, monkeypatch: pytest.MonkeyPatch, method: str
    ) -> None:
        """The call succeeds, the failure is logged, and the context is as before."""
        _break(monkeypatch, method)
        assert (await write_row(Event(text="x"), session))[0]
        async with transaction(session):
            assert (await write_row(Event(text="y"), session))[0]
        assert _current() == ""


def _break(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Let a method of OpenTelemetry's SDK raise."""
    from opentelemetry.sdk.metrics import Histogram
    from opentelemetry.sdk.trace import Span, Tracer

    def fail(*_: Any, **__: Any) -> Callable[..., Any]:
        raise RuntimeError

    owners: dict[str, Any] = {"start_span": Tracer, "record": Histogram}
    monkeypatch.setattr(owners.get(method, Span), method, fail)
