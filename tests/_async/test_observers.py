"""Observers are notified of every public call once: at its beginning and at its end."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Callable
from contextlib import aclosing, suppress
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm.exc import StaleDataError

from sqlmodel_crud_utils import aio
from sqlmodel_crud_utils.aio import (
    AsyncQueryBuilder,
    AsyncRepository,
    bulk_insert_rows,
    bulk_update_rows,
    bulk_upsert_mappings,
    create_pooled_engine,
    delete_row,
    delete_rows_within_id_list,
    get_one_or_create,
    get_result_from_query,
    get_row,
    get_rows,
    get_rows_within_id_list,
    get_session,
    insert_data_rows,
    on_commit,
    pool_status,
    purge_rows,
    restore_row,
    run_transaction,
    session_factory,
    soft_delete_row,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import (
    BulkOperationError,
    ConstraintViolationError,
    MultipleRecordsError,
    QueryExecutionError,
    RecordNotFoundError,
)
from sqlmodel_crud_utils.hooks import registered_hook
from tests._async.hooking import inside_and_outside
from tests._runtime_async import AsyncEngine, AsyncSession
from tests.databases import Database
from tests.hook_models import Event, Page, Project, RefusalError, hook_of
from tests.observing import (
    Limit,
    LimitError,
    Working,
    failing,
    observing,
    recorded_calls,
)
from tests.recording import logged, recorded

ROWS = [{"text": "a"}, {"text": "b"}]
ONE, TWO = 1001, 1002  # out of the way of generated keys


@pytest.fixture
async def rows(session: AsyncSession) -> None:
    """Two events, and a page."""
    session.add_all([Event(id=ONE, text="one"), Event(id=TWO, text="two"), Page(id=ONE, title="p")])
    await session.commit()


def _events(session: AsyncSession) -> AsyncQueryBuilder[Event]:
    return AsyncQueryBuilder(session, Event).order_by("id")


async def _in_block(session: AsyncSession) -> None:
    async with transaction(session):
        pass


async def _streamed(session: AsyncSession) -> None:
    async for _ in _events(session).stream(1):
        pass


async def _streamed_values(session: AsyncSession) -> None:
    async for _ in _events(session).stream_values("text", batch_size=1):
        pass


# For each function: a call of it, its model, and how many rows it returns or writes.
FUNCTIONS: dict[str, tuple[Callable[[AsyncSession], Any], Any, int | None]] = {
    "bulk_insert_rows": (lambda s: bulk_insert_rows(ROWS, s, Event), Event, 2),
    "bulk_update_rows": (lambda s: bulk_update_rows([ONE, 9], {"text": "x"}, s, Event), Event, 1),
    "bulk_upsert_mappings": (
        lambda s: bulk_upsert_mappings([{"id": ONE, "text": "x"}], s, Event),
        Event,
        1,
    ),
    "delete_row": (lambda s: delete_row(ONE, s, Event), Event, 1),
    "delete_rows_within_id_list": (
        lambda s: delete_rows_within_id_list([ONE, TWO, 3], s, Event),
        Event,
        2,
    ),
    "get_one_or_create": (lambda s: get_one_or_create(s, Event, text="new"), Event, 1),
    "get_result_from_query": (lambda s: get_result_from_query(select(Event), s), None, None),
    "get_row": (lambda s: get_row(ONE, s, Event), Event, 1),
    "get_rows": (lambda s: get_rows(s, Event), Event, 2),
    "get_rows_within_id_list": (lambda s: get_rows_within_id_list([ONE, 9], s, Event), Event, 1),
    "insert_data_rows": (lambda s: insert_data_rows([Event(text="x")], s), Event, 1),
    "purge_rows": (lambda s: purge_rows(s, Page, older_than=timedelta(0)), Page, None),
    "restore_row": (lambda s: restore_row(ONE, s, Page), Page, 0),
    "soft_delete_row": (lambda s: soft_delete_row(ONE, s, Page), Page, 1),
    "transaction": (_in_block, None, None),
    "update_row": (lambda s: update_row(ONE, {"text": "x"}, s, Event), Event, 1),
    "write_row": (lambda s: write_row(Event(text="x"), s), Event, 1),
}
METHODS: dict[str, tuple[Callable[[AsyncSession], Any], int | None]] = {
    "all": (lambda s: _events(s).all(), 2),
    "avg": (lambda s: _events(s).avg("id"), None),
    "count": (lambda s: _events(s).count(), None),
    "delete": (lambda s: _events(s).where(id=ONE).delete(), 1),
    "exists": (lambda s: _events(s).exists(), None),
    "first": (lambda s: _events(s).first(), 1),
    "keyset": (lambda s: _events(s).keyset(1), 1),
    "max": (lambda s: _events(s).max("id"), None),
    "min": (lambda s: _events(s).min("id"), None),
    "one": (lambda s: _events(s).where(id=ONE).one(), 1),
    "one_or_none": (lambda s: _events(s).where(id=9).one_or_none(), 0),
    "paginate": (lambda s: _events(s).paginate(2, 1), 1),
    "scalars": (lambda s: _events(s).scalars("text"), 2),
    "stream": (_streamed, 2),
    "stream_values": (_streamed_values, 2),
    "sum": (lambda s: _events(s).sum("id"), None),
    "update": (lambda s: _events(s).where(id=ONE).update(text="x"), 1),
    "values": (lambda s: _events(s).values("text"), 2),
}
WRITES = {name for name in FUNCTIONS if not name.startswith("get_r")} - {"transaction"}


@pytest.mark.usefixtures("rows")
class TestOnce:
    @pytest.mark.parametrize("name", FUNCTIONS)
    async def test_functions(self, session: AsyncSession, name: str) -> None:
        """An observer gets the name, the model, the session and the number of rows."""
        call, model, count = FUNCTIONS[name]
        with recorded_calls() as recording:
            await call(session)
        seen = recording.only
        assert (seen.name, seen.model, seen.rows, seen.error) == (name, model, count, None)
        assert seen.session is session
        kind = "write" if name in WRITES else "block" if model is None else "read"
        assert seen.kind == ("read" if name == "get_result_from_query" else kind)

    @pytest.mark.parametrize("name", METHODS)
    async def test_methods_of_a_builder(self, session: AsyncSession, name: str) -> None:
        """They are reported like functions, also if one runs another's query."""
        call, count = METHODS[name]
        with recorded_calls() as recording:
            await call(session)
        seen = recording.only
        assert (seen.name, seen.model, seen.rows, seen.error) == (name, Event, count, None)
        assert seen.kind == ("write" if name in {"update", "delete"} else "read")

    async def test_functions_of_engines(self, database: Database, engine: AsyncEngine) -> None:
        """Functions without a session are reported by name."""
        with recorded_calls() as recording:
            made = create_pooled_engine(database.async_url)
            session_factory(engine)
            get_session(engine)
            pool_status(engine)
        assert [(call.name, call.kind, call.session) for call in recording.calls] == [
            (name, "other", None)
            for name in ("create_pooled_engine", "session_factory", "get_session", "pool_status")
        ]
        await made.dispose()

    async def test_a_repository(self, session: AsyncSession) -> None:
        """Its methods are calls of the functions behind them, one each."""
        heard = []
        repository = AsyncRepository(session, Event)
        for call in (
            lambda: repository.get(ONE),
            lambda: repository.get(text="one"),
            lambda: repository.create(text="new"),
            lambda: repository.get_or_create(text="one"),
            lambda: repository.update_or_create({"text": "two"}, id=ONE),
        ):
            with recorded_calls() as recording:
                await call()
            heard.append(recording.only.name)
        assert heard == ["get_row", "one", "write_row", "get_one_or_create", "update_or_create"]

    async def test_attempts(self, engine: AsyncEngine) -> None:
        """Several attempts are one call, which has their number."""
        tries = []

        async def work(_session: AsyncSession) -> None:
            tries.append(1)
            if len(tries) < 3:
                raise StaleDataError

        with recorded_calls() as recording:
            await run_transaction(session_factory(engine), work)
        assert [(call.name, call.attempts) for call in recording.calls] == [
            ("session_factory", 1),
            ("run_transaction", 3),
        ]

    async def test_callbacks(self, session: AsyncSession) -> None:
        """To register one is a call; what it does is not."""
        with recorded_calls() as recording:
            on_commit(session, lambda: None)
        assert recording.only.name == "on_commit"

    def test_nothing_is_forgotten(self) -> None:
        """Every public function and every method that queries has its place above."""
        others = {"create_pooled_engine", "session_factory", "get_session", "pool_status"}
        functions = {name for name in aio.__all__ if inspect.isfunction(getattr(aio, name))}
        scopes = {"use_primary", "read_after", "strict_loading"}
        more = {"on_commit", "run_transaction", "is_transient", "replication_token"}
        more.add("invalidate_cache")  # no session takes part in it
        assert functions == {*FUNCTIONS, *others, *scopes, *more}
        public = {
            name
            for name, method in vars(AsyncQueryBuilder).items()
            if inspect.isfunction(method) and not name.startswith("_")
        }
        assert public == set(METHODS)

    async def test_how_many_are_given(self, session: AsyncSession) -> None:
        """A call for many rows has their number, if it is known."""
        with recorded_calls() as recording:
            await insert_data_rows([Event(text="x"), Event(text="y")], session)
            await bulk_insert_rows(ROWS, session, Event)
            await bulk_insert_rows(iter(ROWS), session, Event)
            await bulk_upsert_mappings([{"id": ONE, "text": "x"}], session, Event)
            await get_rows_within_id_list([ONE, TWO, 9], session, Event)
            await delete_rows_within_id_list([ONE, TWO, 9], session, Event)
        assert [call.batch for call in recording.calls] == [2, 2, None, 1, 3, 3]


class TestBlocks:
    async def test_whether_it_is_committed(self, session: AsyncSession) -> None:
        """A transaction reports it at its end; a savepoint is only a part of one."""
        with recorded_calls() as recording:
            async with transaction(session), transaction(session):
                pass
            with suppress(ZeroDivisionError):
                async with transaction(session, wrap_errors=False):
                    raise ZeroDivisionError
            async with session.begin(), transaction(session):
                pass
        assert [call.committed for call in recording.calls] == [None, True, False, None]

    async def test_a_block_that_is_run_again(self, engine: AsyncEngine) -> None:
        """It says how the last attempt ended."""
        tries = []

        async def work(_session: AsyncSession) -> None:
            tries.append(1)
            if len(tries) < 2:
                raise StaleDataError

        with recorded_calls() as recording:
            await run_transaction(session_factory(engine), work)
        assert recording.calls[-1].committed is True

    async def test_a_failed_callback(self, session: AsyncSession) -> None:
        """A failure after the commit still leaves it committed."""

        def fail() -> None:
            raise ZeroDivisionError

        with recorded_calls() as recording, suppress(ExceptionGroup):
            async with transaction(session):
                on_commit(session, fail)
        assert recording.calls[-1].committed is True
        assert isinstance(recording.calls[-1].error, ExceptionGroup)


class TestFailures:
    async def test_the_cause(self, session: AsyncSession) -> None:
        """The driver's error is the cause, of what is raised and of what is only returned."""
        await write_row(Project(name="a"), session)
        with recorded_calls() as recording:
            await write_row(Project(name="a"), session)
            with suppress(QueryExecutionError):
                await get_result_from_query(text("SELECT nonsense FROM nowhere"), session)
            await session.rollback()
            await insert_data_rows([Project(name="a")], session)
        returned, raised, many = [call.error for call in recording.calls]
        assert isinstance(many, BulkOperationError)
        for error in (returned, raised, many.errors[0][1]):
            assert isinstance(error, Exception)
            assert isinstance(error.__cause__, DBAPIError)

    @pytest.mark.parametrize("raises", [True, False], ids=["raised", "returned"])
    async def test_a_refusal(self, session: AsyncSession, raises: bool) -> None:
        """A returned failure is reported like a raised one."""
        await write_row(Project(name="a"), session)
        with recorded_calls() as recording, suppress(ConstraintViolationError):
            await write_row(Project(name="a"), session, raise_on_error=raises)
        assert isinstance(recording.only.error, ConstraintViolationError)

    async def test_one_by_one(self, session: AsyncSession) -> None:
        """If some rows are refused, that is the error, and the others are counted."""
        await write_row(Project(name="a"), session)
        with recorded_calls() as recording:
            await insert_data_rows([Project(name="a"), Project(name="b")], session)
        assert isinstance(recording.only.error, BulkOperationError)
        assert recording.only.rows == 1

    async def test_of_one_with_hooks(self, session: AsyncSession) -> None:
        """It is the same if each row is inserted alone from the start."""
        await write_row(Project(name="a"), session)
        hook = hook_of(before_create=lambda _row: None)
        with registered_hook(Project, hook), recorded_calls() as recording:
            await insert_data_rows([Project(name="a"), Project(name="b")], session)
        assert isinstance(recording.only.error, BulkOperationError)
        assert recording.only.rows == 1

    async def test_raised(self, session: AsyncSession) -> None:
        """A read reports the error that its caller gets."""
        with recorded_calls() as recording, pytest.raises(QueryExecutionError) as raised:
            await get_result_from_query(text("SELECT nonsense FROM nowhere"), session)
        assert recording.only.error is raised.value

    async def test_an_update(self, session: AsyncSession) -> None:
        """A shortcut makes no difference."""
        await write_row(Project(name="a"), session)
        _, other = await write_row(Project(name="b"), session)
        assert other is not None
        identity = other.id
        session.expunge_all()
        with recorded_calls() as recording:
            assert (await update_row(identity, {"name": "a"}, session, Project))[0] is False
        assert isinstance(recording.only.error, ConstraintViolationError)

    @pytest.mark.parametrize(
        ("call", "error"),
        [
            (lambda s: get_row(9, s, Event, raise_on_error=True), RecordNotFoundError),
            (lambda s: _events(s).where(id=9).one(), RecordNotFoundError),
            (lambda s: _events(s).one(), MultipleRecordsError),
        ],
        ids=["get_row", "one", "one of many"],
    )
    @pytest.mark.usefixtures("rows")
    async def test_not_there(
        self, session: AsyncSession, call: Callable[[AsyncSession], Any], error: type[Exception]
    ) -> None:
        """A missing row is reported if it raises."""
        with recorded_calls() as recording, pytest.raises(error):
            await call(session)
        assert isinstance(recording.only.error, error)

    async def test_a_block(self, session: AsyncSession) -> None:
        """A block reports the exception that leaves it."""
        with recorded_calls() as recording, pytest.raises(RefusalError) as raised:
            async with transaction(session, wrap_errors=False):
                raise RefusalError
        assert recording.only.error is raised.value


class TestNesting:
    async def test_hooks(self, session: AsyncSession) -> None:
        """A hook's calls begin and end inside the call that runs the hook."""

        async def log(instance: Project) -> None:
            await write_row(Event(text=instance.name), session)

        with registered_hook(Project, hook_of(after_create=log)), recorded_calls() as recording:
            async with transaction(session):
                await write_row(Project(name="a"), session)
        assert recording.events == [
            ("begin", "transaction"),
            *[("begin", "write_row"), ("begin", "write_row")],
            *[("end", "write_row"), ("end", "write_row")],
            ("end", "transaction"),
        ]

    async def test_the_last_to_begin_is_the_first_to_end(self, session: AsyncSession) -> None:
        """Several observers are nested in each other."""
        with recorded_calls() as outer, recorded_calls() as inner:
            inner.events = outer.events
            await get_rows(session, Event)
        assert [when for when, _ in outer.events] == ["begin", "begin", "end", "end"]


@pytest.mark.usefixtures("rows")
class TestStreams:
    async def test_when_it_is_at_work(self, session: AsyncSession) -> None:
        """An observer is notified of each batch: the caller's code runs in between."""
        working = Working()
        with observing(working):
            async for event in _events(session).stream(1):
                working.events.append(("caller", event.text))
        assert working.events == [
            ("begin", "stream"),
            *[("resume", "stream"), ("pause", "stream"), ("caller", "one")],
            *[("resume", "stream"), ("pause", "stream"), ("caller", "two")],
            *[("resume", "stream"), ("pause", "stream")],
            ("end", "stream"),
        ]

    async def test_it_begins_with_the_first_row(self, session: AsyncSession) -> None:
        """A stream that is never read is not a call."""
        with recorded_calls() as recording:
            _events(session).stream()
            gc.collect()
        assert recording.events == []

    async def test_closed(self, session: AsyncSession) -> None:
        """An abandoned loop ends when the stream is closed, which returns no further rows."""
        with recorded_calls() as recording:
            async with aclosing(_events(session).stream(1)) as stream:
                async for row in stream:
                    assert row.text == "one"
                    break
                assert recording.events == [("begin", "stream")]
            assert recording.only.rows == 1
            assert [row async for row in stream] == []
            await stream.aclose()
        assert recording.only.error is None

    async def test_closed_before_the_first_row(self, session: AsyncSession) -> None:
        """There is nothing to close then."""
        stream = _events(session).stream()
        await stream.aclose()
        assert [row async for row in stream] == []

    async def test_dropped(self, session: AsyncSession) -> None:
        """A stream that is read no further ends when it is garbage."""
        with recorded_calls() as recording:
            async for _ in _events(session).stream(1):
                break
            gc.collect()
        assert recording.only.rows == 1

    async def test_failed(self, session: AsyncSession) -> None:
        """A database that refuses the query ends it."""
        with recorded_calls() as recording, pytest.raises(QueryExecutionError) as raised:
            async for _ in _events(session).where(func.nonsense(Event.id) == 1).stream():
                pass
        assert recording.only.error is raised.value

    async def test_refused(self, session: AsyncSession) -> None:
        """A limit may refuse it before the first row."""
        with observing(Limit(None, "stream")), pytest.raises(LimitError):
            async for _ in _events(session).stream():
                pass


class TestLimits:
    @inside_and_outside
    async def test_a_call_is_refused(
        self, session: AsyncSession, engine: AsyncEngine, inside: bool
    ) -> None:
        """Before anything is sent; a block, and the session, can go on."""
        with recorded_calls() as recording, observing(Limit(None, "write_row", "get_rows")):
            with recorded(engine) as words:
                with pytest.raises(LimitError):
                    await get_rows(session, Event)
                with pytest.raises(LimitError):
                    await write_row(Event(text="x"), session)
            assert words == []
            if inside:
                async with transaction(session):
                    with pytest.raises(LimitError):
                        await write_row(Event(text="x"), session)
                    await insert_data_rows([Event(text="y")], session)
        assert isinstance(recording.calls[0].error, LimitError)
        assert await _events(session).scalars("text") == (["y"] if inside else [])

    @pytest.mark.parametrize(
        "call",
        [
            lambda s: bulk_insert_rows(ROWS * 2, s, Event, chunk_size=1),
            lambda s: bulk_update_rows([ONE, TWO], {"text": "x"}, s, Event, chunk_size=1),
            lambda s: bulk_upsert_mappings(
                [{"id": ONE, "text": "x"}, {"id": 7, "text": "x"}], s, Event, chunk_size=1
            ),
            lambda s: delete_rows_within_id_list([ONE, TWO], s, Event, chunk_size=1),
            lambda s: insert_data_rows([Event(text="x"), Event(text="y")], s),
            lambda s: _events(s).where(id__gt=0).update(text="x"),
            lambda s: _events(s).where(id__gt=0).delete(),
        ],
        ids=[
            *("bulk_insert_rows", "bulk_update_rows", "bulk_upsert_mappings"),
            *("delete_rows_within_id_list", "insert_data_rows", "update", "delete"),
        ],
    )
    @inside_and_outside
    @pytest.mark.usefixtures("rows")
    async def test_rows_are_refused(
        self, session: AsyncSession, call: Callable[[AsyncSession], Any], inside: bool
    ) -> None:
        """Rows that were already written are undone; a block that continues is doomed."""
        with observing(Limit(rows=1)):
            if inside:
                with suppress(Exception):
                    async with transaction(session):
                        with pytest.raises(LimitError):
                            await call(session)
            else:
                with pytest.raises(LimitError):
                    await call(session)
        assert await _events(session).scalars("text") == ["one", "two"]


class TestObserversThatFail:
    async def test_they_break_nothing(self, session: AsyncSession) -> None:
        """A failing observer breaks nothing: its error is logged, and others are notified."""
        with logged() as lines, observing(failing("begin", "end")), recorded_calls() as recording:
            assert (await write_row(Event(text="x"), session))[0]
        assert recording.only.name == "write_row"
        assert [line for _, _, line in lines] == [
            "an observer of write_row failed: RuntimeError"
        ] * 2

    async def test_one_that_comes_late(self, session: AsyncSession) -> None:
        """It is not notified of calls in progress; one that is removed gets their ends."""
        with recorded_calls() as before:
            stream = _events(session).stream(1)
            async with transaction(session):
                leaving = recorded_calls()
                late = leaving.__enter__()
        leaving.__exit__(None, None, None)
        assert late.events == []
        assert before.only.name == "transaction"
        del stream
