"""Hooks run with the writes of the library, in the same transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError
from sqlmodel import SQLModel, select

from sqlmodel_crud_utils._async.bulk_deletes import delete_rows_within_id_list
from sqlmodel_crud_utils._async.bulk_updates import bulk_update_rows
from sqlmodel_crud_utils._async.get_or_create import get_one_or_create
from sqlmodel_crud_utils._async.inserts import insert_data_rows
from sqlmodel_crud_utils._async.reads import get_row, get_rows
from sqlmodel_crud_utils._async.soft_deletes import restore_row, soft_delete_row
from sqlmodel_crud_utils._async.transactions import on_commit, transaction
from sqlmodel_crud_utils._async.upserts import bulk_upsert_mappings
from sqlmodel_crud_utils._async.writes import delete_row, update_row, write_row
from sqlmodel_crud_utils.exceptions import (
    BulkOperationError,
    ConstraintViolationError,
    TransactionError,
    UnknownFieldError,
    ValidationError,
)
from sqlmodel_crud_utils.hooks import METHODS, ValidateOnWrite, clear_hooks, registered_hook
from tests._runtime_async import AsyncEngine, AsyncSession
from tests.hook_models import (
    Event,
    Failing,
    Gauge,
    Page,
    Project,
    Recorder,
    RefusalError,
    Task,
    hook_of,
    hooked,
)

inside_and_outside = pytest.mark.parametrize("inside", [False, True], ids=["outside", "inside"])


@pytest.fixture(autouse=True)
def _no_leftovers() -> Iterator[None]:
    yield
    clear_hooks()


@asynccontextmanager
async def block(session: AsyncSession, inside: bool) -> AsyncIterator[None]:
    """A transaction() block, or nothing."""
    if inside:
        async with transaction(session, wrap_errors=False):
            yield
    else:
        yield


async def committed(engine: AsyncEngine, model: type[Any]) -> list[str]:
    """The titles, names or texts of the rows that are committed, by their keys."""
    async with AsyncSession(engine) as reader:
        rows = (await reader.exec(select(model).order_by(model.id))).all()
    found = {Task: "title", Page: "title", Project: "name", Event: "text"}[model]
    return [getattr(row, found) for row in rows]


async def is_usable(session: AsyncSession) -> bool:
    """Whether a session writes and reads as if nothing had happened."""
    clear_hooks()
    written, task = await write_row(Task(title="afterwards"), session)
    assert written
    assert task is not None
    return await delete_row(task.id, session, Task)


async def stored(session: AsyncSession, title: str, model: Any = Task) -> Any:
    """A row that is there already, written without hooks."""
    row = model(title=title)
    session.add(row)
    await session.commit()
    await session.refresh(row)
    return row


async def perform(operation: str, session: AsyncSession, task: Task, **options: Any) -> Any:
    """Create a row, or update or delete the given one."""
    if operation == "create":
        return await write_row(Task(title="new"), session, **options)
    if operation == "update":
        return await update_row(task.id, {"title": "changed"}, session, Task, **options)
    return await delete_row(task.id, session, Task, **options)


class TestOrder:
    @inside_and_outside
    async def test_of_the_calls(self, session: AsyncSession, inside: bool) -> None:
        """Base classes first, then in the order of registration, each operation its own two."""
        calls: list[str] = []
        second, first = Recorder("second", calls), Recorder("first", calls)
        last = Recorder("last", calls)
        with (
            registered_hook(Task, second),
            registered_hook(Task, last),
            registered_hook(SQLModel, first),
        ):
            async with block(session, inside):
                _, task = await write_row(Task(title="a"), session)
                assert task is not None
                await update_row(task.id, {"title": "b", "done": "true"}, session, Task)
                await delete_row(task.id, session, Task)
        names = ("first", "second", "last")
        data = {"title": "b", "done": True}
        assert calls == [
            *(f"{name} before_create a" for name in names),
            *(f"{name} after_create a" for name in names),
            *(f"{name} before_update a {data}" for name in names),
            *(f"{name} after_update b" for name in names),
            *(f"{name} before_delete b" for name in names),
            *(f"{name} after_delete b" for name in names),
        ]

    @inside_and_outside
    async def test_before_and_after_the_flush(self, session: AsyncSession, inside: bool) -> None:
        """`after_*` see the key, what the server filled in, and uncommitted rows."""
        seen: list[Any] = []

        def before(instance: Task) -> None:
            seen.append(instance.id)

        async def count() -> int:
            return len((await session.exec(select(Task))).all())

        def after(instance: Task) -> None:
            seen.append((instance.id is not None, instance.priority))

        with hooked(Task, before_create=before, after_create=after):
            async with block(session, inside):
                await write_row(Task(title="a"), session)
        assert seen == [None, (True, 5)]
        assert await count() == 1

    @inside_and_outside
    async def test_before_the_commit(self, session: AsyncSession, inside: bool) -> None:
        """What `on_commit` is given in a hook runs after it, and never when the write fails."""
        ran: list[str] = []

        def after_create(instance: Task) -> None:
            on_commit(session, lambda: ran.append(instance.title))
            assert ran == []

        with hooked(Task, after_create=after_create):
            async with block(session, inside):
                await write_row(Task(title="a"), session)
                await write_row(Task(title="a"), session, raise_on_error=False)
        assert ran == ["a"]

    async def test_only_its_own_operation(self, session: AsyncSession) -> None:
        """A hook without a method for an operation takes no part in it."""
        with registered_hook(Task, Failing("before_delete")):
            _, task = await write_row(Task(title="a"), session)
            assert task is not None
            updated, _ = await update_row(task.id, {"title": "b"}, session, Task)
            assert updated

    async def test_a_row_that_is_not_there(self, session: AsyncSession) -> None:
        """Nothing to update or to delete: no hook runs."""
        recorder = Recorder()
        with registered_hook(Task, recorder):
            assert await update_row(999, {"title": "b"}, session, Task) == (False, None)
            assert not await delete_row(999, session, Task)
        assert recorder.calls == []

    async def test_refused_by_the_database(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """`after_*` do not run; the outcome is what it is without hooks."""
        await stored(session, "a")
        recorder = Recorder()
        with registered_hook(Task, recorder):
            assert await write_row(Task(title="a"), session) == (False, None)
            with pytest.raises(ConstraintViolationError):
                await write_row(Task(title="a"), session, raise_on_error=True)
        assert recorder.calls == ["before_create a", "before_create a"]
        assert await committed(engine, Task) == ["a"]

    async def test_refused_in_a_block(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """It dooms the block as it does without hooks, and `raise_on_error=False` does not."""
        await stored(session, "a")
        with registered_hook(Task, Recorder()):
            with pytest.raises(TransactionError, match="refused a statement"):
                async with transaction(session):
                    with pytest.raises(ConstraintViolationError):
                        await write_row(Task(title="a"), session)
            async with transaction(session):
                assert await write_row(Task(title="a"), session, raise_on_error=False) == (
                    False,
                    None,
                )
                await write_row(Task(title="b"), session)
        assert await committed(engine, Task) == ["a", "b"]


class TestRowsThatAreThere:
    """`write_row` with a row that was read and changed."""

    @inside_and_outside
    async def test_they_run_the_update_hooks(
        self, session: AsyncSession, engine: AsyncEngine, inside: bool
    ) -> None:
        """With what was set on the row as the data."""
        recorder = Recorder()
        async with block(session, inside):
            _, task = await write_row(Task(title="a"), session)
            assert task is not None
            task.title = "b"
            with (
                registered_hook(Task, recorder),
                hooked(Task, before_update=lambda _, data: {**data, "title": data["title"] * 2}),
            ):
                written, row = await write_row(task, session)
            assert written
            assert row is task
            assert task.title == "bb"
        assert recorder.calls == ["before_update a {'title': 'b'}", "after_update bb"]
        assert await committed(engine, Task) == ["bb"]

    @pytest.mark.parametrize("method", ["before_update", "after_update"])
    @inside_and_outside
    async def test_a_hook_raises(
        self, session: AsyncSession, engine: AsyncEngine, method: str, inside: bool
    ) -> None:
        """The change is not written."""
        task = await stored(session, "a")
        async with block(session, inside):
            task.title = "b"
            with registered_hook(Task, Failing(method)), pytest.raises(RefusalError):
                await write_row(task, session)
        assert await committed(engine, Task) == ["a"]
        assert await is_usable(session)

    async def test_without_changes_or_refused(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """The outcome is that of `write_row`."""
        task = await stored(session, "a")
        await stored(session, "taken")
        await session.refresh(task)
        recorder = Recorder()
        with registered_hook(Task, recorder):
            assert await write_row(task, session) == (True, task)
            task.title = "taken"
            assert await write_row(task, session) == (False, None)
        assert recorder.calls == [
            "before_update a {}",
            "after_update a",
            "before_update a {'title': 'taken'}",
        ]
        assert await committed(engine, Task) == ["a", "taken"]


class TestReplacement:
    @inside_and_outside
    async def test_of_the_row(
        self, session: AsyncSession, engine: AsyncEngine, inside: bool
    ) -> None:
        """The last row that a `before_create` returned is written; None changes nothing."""
        other = Task(title="other")
        seen: list[Task] = []
        given = Task(title="given")
        with (
            hooked(Task, before_create=seen.append),
            hooked(Task, before_create=lambda _: other),
            hooked(Task, before_create=seen.append, after_create=seen.append),
        ):
            async with block(session, inside):
                _, row = await write_row(given, session)
        assert row is other
        assert [id(each) for each in seen] == [id(given), id(other), id(other)]
        assert await committed(engine, Task) == ["other"]

    @inside_and_outside
    async def test_of_a_row_that_was_added_before(
        self, session: AsyncSession, engine: AsyncEngine, inside: bool
    ) -> None:
        """The session forgets the row that is not written."""
        given = Task(title="given")
        session.add(given)
        with hooked(Task, before_create=lambda _: Task(title="other")):
            async with block(session, inside):
                await write_row(given, session)
        assert await committed(engine, Task) == ["other"]

    async def test_by_something_else(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """What is no such row is refused, and the hook is named."""

        class Careless:
            def before_create(self, _: Task) -> Any:
                return True

        with (
            registered_hook(Task, Careless()),
            pytest.raises(ValidationError, match=r"Careless.before_create returned bool; .* Task"),
        ):
            await write_row(Task(title="a"), session)
        assert await committed(engine, Task) == []

    @inside_and_outside
    async def test_of_the_data(
        self, session: AsyncSession, engine: AsyncEngine, inside: bool
    ) -> None:
        """Each hook gets what the one before it made of them, returned or changed in place."""
        task = await stored(session, "a")
        given = {"title": "b"}
        seen: list[Any] = []

        def in_place(_: Task, data: dict[str, Any]) -> None:
            data["title"] += "d"

        def see(_: Task, data: dict[str, Any]) -> None:
            seen.append(dict(data))

        with (
            hooked(Task, before_update=lambda _, data: {**data, "title": data["title"] + "c"}),
            hooked(Task, before_update=in_place),
            hooked(Task, before_update=see),
        ):
            async with block(session, inside):
                _, row = await update_row(task.id, given, session, Task)
        assert row is not None
        assert row.title == "bcd"
        assert seen == [{"title": "bcd"}]
        assert given == {"title": "b"}
        assert await committed(engine, Task) == ["bcd"]

    async def test_by_an_empty_mapping(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """It is no None: nothing of the data is written."""
        task = await stored(session, "a")
        with hooked(Task, before_update=lambda *_: {}):
            updated, _ = await update_row(task.id, {"title": "b"}, session, Task)
        assert updated
        assert await committed(engine, Task) == ["a"]

    @pytest.mark.parametrize(
        ("returned", "error"),
        [
            ({"titel": "b"}, UnknownFieldError),
            ({"done": "perhaps"}, ValidationError),
            ({"id": 999}, ValidationError),
            ("title", ValidationError),
        ],
    )
    async def test_by_bad_data(
        self, session: AsyncSession, engine: AsyncEngine, returned: Any, error: type[Exception]
    ) -> None:
        """They are validated as a caller's data are, and nothing is written."""
        task = await stored(session, "a")
        with hooked(Task, before_update=lambda *_: returned), pytest.raises(error):
            await update_row(task.id, {"title": "b"}, session, Task)
        assert await committed(engine, Task) == ["a"]

    async def test_replaced_data_are_coerced(self, session: AsyncSession) -> None:
        """As a caller's are."""
        task = await stored(session, "a")
        with hooked(Task, before_update=lambda *_: {"done": "true", "id": str(task.id)}):
            _, row = await update_row(task.id, {"title": "b"}, session, Task)
        assert row is not None
        assert row.done is True


@pytest.mark.parametrize("method", METHODS)
class TestFailure:
    """A hook that raises, at each of the six points."""

    @pytest.mark.parametrize("raise_on_error", [None, False, True])
    async def test_outside_a_block(
        self,
        session: AsyncSession,
        engine: AsyncEngine,
        method: str,
        raise_on_error: bool | None,
    ) -> None:
        """Nothing is written, the error arrives as it is, and the session can be used."""
        task = await stored(session, "old")
        failing = Failing(method)
        with registered_hook(Task, failing), pytest.raises(RefusalError) as caught:
            await perform(method.partition("_")[2], session, task, raise_on_error=raise_on_error)
        assert caught.value is failing.error
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
        assert await committed(engine, Task) == ["old"]
        assert not session.in_transaction()
        assert await is_usable(session)

    async def test_other_pending_work_outside_a_block(
        self, session: AsyncSession, engine: AsyncEngine, method: str
    ) -> None:
        """It is rolled back with the failed write, as by any other failure, and the error tells."""
        task = await stored(session, "old")
        session.add(Project(name="flushed"))
        await session.flush()
        session.add(Project(name="pending"))
        with registered_hook(Task, Failing(method)), pytest.raises(RefusalError):
            await perform(method.partition("_")[2], session, task)
        assert await committed(engine, Project) == []
        assert not session.new
        assert await is_usable(session)

    async def test_in_a_block(
        self, session: AsyncSession, engine: AsyncEngine, method: str
    ) -> None:
        """It takes the block with it, wrapped as any other error."""
        task = await stored(session, "old")
        failing = Failing(method)
        with registered_hook(Task, failing), pytest.raises(TransactionError) as caught:
            async with transaction(session):
                await write_row(Project(name="before"), session)
                await perform(method.partition("_")[2], session, task)
        assert caught.value.__cause__ is failing.error
        assert caught.value.original_error is failing.error
        assert await committed(engine, Task) == ["old"]
        assert await committed(engine, Project) == []
        assert await is_usable(session)

    @pytest.mark.parametrize("raise_on_error", [None, False, True])
    async def test_caught_in_a_block(
        self,
        session: AsyncSession,
        engine: AsyncEngine,
        method: str,
        raise_on_error: bool | None,
    ) -> None:
        """Just the operation is undone; what was pending is kept, and the block goes on."""
        task = await stored(session, "old")
        failing = Failing(method)
        async with transaction(session):
            session.add(Project(name="pending"))
            with registered_hook(Task, failing), pytest.raises(RefusalError) as caught:
                await perform(
                    method.partition("_")[2], session, task, raise_on_error=raise_on_error
                )
            assert caught.value is failing.error
            assert caught.value.__context__ is None
            await write_row(Project(name="later"), session)
        assert await committed(engine, Task) == ["old"]
        assert await committed(engine, Project) == ["pending", "later"]
        assert await is_usable(session)

    @pytest.mark.parametrize(
        "error", [OSError("disk"), IntegrityError("?", None, Exception("?")), OverflowError()]
    )
    @inside_and_outside
    async def test_errors_like_those_of_a_database(
        self,
        session: AsyncSession,
        engine: AsyncEngine,
        method: str,
        error: Exception,
        inside: bool,
    ) -> None:
        """They are the hook's own, and not translated, logged or turned into a result."""
        task = await stored(session, "old")
        with registered_hook(Task, Failing(method, error)), pytest.raises(type(error)) as caught:
            async with block(session, inside):
                await perform(method.partition("_")[2], session, task, raise_on_error=False)
        assert caught.value is error
        assert caught.value.__context__ is None
        assert await committed(engine, Task) == ["old"]
        assert await is_usable(session)

    @inside_and_outside
    async def test_exits_pass_through(
        self, session: AsyncSession, engine: AsyncEngine, method: str, inside: bool
    ) -> None:
        """KeyboardInterrupt undoes the operation as well."""
        task = await stored(session, "old")
        with (
            registered_hook(Task, Failing(method, KeyboardInterrupt())),
            pytest.raises(KeyboardInterrupt),
        ):
            async with block(session, inside):
                await perform(method.partition("_")[2], session, task)
        assert await committed(engine, Task) == ["old"]
        assert await is_usable(session)


class TestRowsOfTheSession:
    @pytest.mark.parametrize("method", ["before_create", "after_create"])
    async def test_a_row_that_was_added_before(
        self, session: AsyncSession, engine: AsyncEngine, method: str
    ) -> None:
        """It belongs to the write: when a hook refuses it in a block, it is not written either."""
        async with transaction(session):
            task = Task(title="new")
            session.add_all([task, Project(name="other")])
            with registered_hook(Task, Failing(method)), pytest.raises(RefusalError):
                await write_row(task, session)
            assert task not in session
        assert await committed(engine, Task) == []
        assert await committed(engine, Project) == ["other"]

    @inside_and_outside
    async def test_a_row_that_hangs_on_another(self, session: AsyncSession, inside: bool) -> None:
        """The hook sees the link, which is written; SQLAlchemy has nothing to warn of."""
        seen: list[Any] = []

        def before_create(instance: Task) -> None:
            seen.append(instance.project)

        async with block(session, inside):
            _, project = await write_row(Project(name="p"), session)
            assert project is not None
            with hooked(Task, before_create=before_create):
                await write_row(Task(title="a", project=project), session)
                await session.refresh(project)
                await insert_data_rows([Task(title=t, project=project) for t in "bc"], session)
                await session.refresh(project)
                await get_one_or_create(session, Task, title="d", project=project)
            await session.refresh(project)
            project_id = project.id
        assert all(each is project for each in seen)
        assert len(seen) == 4
        _, tasks = await get_rows(session, Task, project_id=project_id)
        assert len(tasks) == 4

    async def test_a_refused_row_that_hangs_on_another(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """In a block: the other one forgets it, and it keeps its link for another attempt."""
        async with transaction(session):
            _, project = await write_row(Project(name="p"), session)
            assert project is not None
            task = Task(title="a", project=project)
            with registered_hook(Task, Failing("after_create")), pytest.raises(RefusalError):
                await write_row(task, session)
            assert task.id is None
            await write_row(Task(title="b"), session)
            await write_row(task, session)
            assert task.project_id is not None
        assert await committed(engine, Task) == ["b", "a"]


class TestWritingHooks:
    @inside_and_outside
    async def test_rows_of_another_model(
        self, session: AsyncSession, engine: AsyncEngine, inside: bool
    ) -> None:
        """With `session.add`, in every method: they are committed with the write."""

        def log(instance: Task, *_: Any) -> None:
            session.add(Event(text=instance.title))

        with registered_hook(Task, hook_of(**dict.fromkeys(METHODS, log))):
            async with block(session, inside):
                _, task = await write_row(Task(title="a"), session)
                assert task is not None
                await update_row(task.id, {"title": "b"}, session, Task)
                await delete_row(task.id, session, Task)
        assert await committed(engine, Event) == ["a", "a", "a", "b", "b", "b"]

    @pytest.mark.parametrize("method", ["after_create", "after_update", "after_delete"])
    @inside_and_outside
    async def test_they_are_undone_with_the_write(
        self, session: AsyncSession, engine: AsyncEngine, method: str, inside: bool
    ) -> None:
        """Whatever hooks wrote goes when a later one raises."""
        task = await stored(session, "old")

        def log(instance: Task, *_: Any) -> None:
            session.add(Event(text=instance.title))

        with registered_hook(Task, hook_of(**dict.fromkeys(METHODS, log))):
            async with block(session, inside):
                with registered_hook(Task, Failing(method)), pytest.raises(RefusalError):
                    await perform(method.partition("_")[2], session, task)
        assert await committed(engine, Event) == []
        assert await committed(engine, Task) == ["old"]

    @inside_and_outside
    async def test_the_same_function_on_another_model(
        self, session: AsyncSession, engine: AsyncEngine, inside: bool
    ) -> None:
        """Its own hooks run too; everything is committed together, or undone together."""

        async def log(instance: Task) -> None:
            await write_row(Event(text=f"task {instance.title}"), session)

        async def count(instance: Event) -> None:
            await get_one_or_create(session, Project, name=f"of {instance.text}")

        with hooked(Task, before_create=log, after_create=log), hooked(Event, after_create=count):
            async with block(session, inside):
                await write_row(Task(title="a"), session)
                with registered_hook(Task, Failing("after_create")), pytest.raises(RefusalError):
                    await write_row(Task(title="b"), session)
        assert await committed(engine, Task) == ["a"]
        assert await committed(engine, Event) == ["task a", "task a"]
        assert await committed(engine, Project) == ["of task a"]

    @inside_and_outside
    async def test_recursion(
        self, session: AsyncSession, engine: AsyncEngine, inside: bool
    ) -> None:
        """A hook may write rows of its own model; when to stop is its own affair."""

        async def split(instance: Task) -> None:
            if len(instance.title) > 1:
                await write_row(Task(title=instance.title[1:]), session)

        with hooked(Task, after_create=split):
            async with block(session, inside):
                await write_row(Task(title="abc"), session)
        assert await committed(engine, Task) == ["abc", "bc", "c"]

    @inside_and_outside
    async def test_a_failed_write_in_a_hook(
        self, session: AsyncSession, engine: AsyncEngine, inside: bool
    ) -> None:
        """It raises by default, as in a block, and that is the hook's error."""
        await stored(session, "taken")

        async def write_twice(_: Project) -> None:
            await write_row(Task(title="taken"), session)

        async with block(session, inside):
            with (
                hooked(Project, after_create=write_twice),
                pytest.raises(ConstraintViolationError),
            ):
                await write_row(Project(name="p"), session, raise_on_error=False)
        assert await committed(engine, Project) == []
        assert await is_usable(session)

    @inside_and_outside
    async def test_a_failed_write_that_is_expected(
        self, session: AsyncSession, engine: AsyncEngine, inside: bool
    ) -> None:
        """With `raise_on_error=False`, or in a block of its own, the hook goes on after it."""
        await stored(session, "taken")

        async def try_twice(_: Project) -> None:
            result = await write_row(Task(title="taken"), session, raise_on_error=False)
            assert result == (False, None)
            with pytest.raises(ConstraintViolationError):
                async with transaction(session, wrap_errors=False):
                    await write_row(Task(title="taken"), session)

        with hooked(Project, after_create=try_twice):
            async with block(session, inside):
                await write_row(Project(name="p"), session)
        assert await committed(engine, Project) == ["p"]

    @inside_and_outside
    async def test_a_refusal_that_is_swallowed(
        self, session: AsyncSession, engine: AsyncEngine, inside: bool
    ) -> None:
        """It dooms the write, on every database: the transaction may be lost."""
        await stored(session, "taken")

        async def swallow(_: Project) -> None:
            with pytest.raises(ConstraintViolationError):
                await write_row(Task(title="taken"), session)

        with hooked(Project, after_create=swallow):
            async with block(session, inside):
                with pytest.raises(TransactionError, match="refused a statement"):
                    await write_row(Project(name="p"), session, raise_on_error=False)
        assert await committed(engine, Project) == []
        assert await is_usable(session)

    @inside_and_outside
    async def test_queries(self, session: AsyncSession, inside: bool) -> None:
        """`before_create` does not see the row yet, `after_create` does; all see other work."""
        seen: list[list[str]] = []

        async def look(_: Task) -> None:
            _, tasks = await get_rows(session, Task, sort_field="title")
            seen.append([task.title for task in tasks])

        session.add(Task(title="pending"))
        with hooked(Task, before_create=look, after_create=look):
            async with block(session, inside):
                await write_row(Task(title="a"), session)
        assert seen == [["pending"], ["a", "pending"]]


class TestMoreWrites:
    async def test_get_one_or_create(self, session: AsyncSession) -> None:
        """The hooks run only when it creates."""
        recorder = Recorder()
        with registered_hook(Task, recorder):
            _, existed = await get_one_or_create(session, Task, title="a")
            assert not existed
            _, existed = await get_one_or_create(session, Task, title="a")
            assert existed
            async with transaction(session):
                await get_one_or_create(session, Task, title="a")
                await get_one_or_create(session, Task, title="b")
        assert recorder.calls == [
            f"{method} {title}" for title in "ab" for method in ("before_create", "after_create")
        ]

    @inside_and_outside
    @pytest.mark.parametrize("method", ["before_create", "after_create"])
    async def test_get_one_or_create_fails(
        self, session: AsyncSession, engine: AsyncEngine, method: str, inside: bool
    ) -> None:
        """Nothing is created; the error, even one like the database's, is the hook's."""
        error = IntegrityError("?", None, Exception("?"))
        async with block(session, inside):
            with (
                registered_hook(Task, Failing(method, error)),
                pytest.raises(IntegrityError) as caught,
            ):
                await get_one_or_create(session, Task, title="a")
        assert caught.value is error
        assert caught.value.__context__ is None
        assert await committed(engine, Task) == []
        assert await is_usable(session)

    async def test_soft_delete_and_restore(self, session: AsyncSession) -> None:
        """A soft deletion runs the delete hooks, a restoration the update hooks."""
        recorder = Recorder()
        first = (await stored(session, "a", Page)).id
        second = (await stored(session, "b", Page)).id
        with registered_hook(Page, recorder):
            assert await delete_row(first, session, Page)
            assert await soft_delete_row(second, session, Page, deleted_by="me")
            assert not await soft_delete_row(second, session, Page)
            restored, _ = await restore_row(first, session, Page)
            assert restored
            assert await delete_row(second, session, Page, soft=False)
        kinds = [call.split(" {")[0] for call in recorder.calls]
        assert kinds == [
            "before_delete a",
            "after_delete a",
            "before_delete b",
            "after_delete b",
            "before_update a",
            "after_update a",
            "before_delete b",
            "after_delete b",
        ]
        assert "'is_deleted': False" in recorder.calls[4]

    @pytest.mark.parametrize("method", [name for name in METHODS if "create" not in name])
    @inside_and_outside
    async def test_soft_delete_and_restore_fail(
        self, session: AsyncSession, method: str, inside: bool
    ) -> None:
        """The row is marked, or not, as it was."""
        _, page = await write_row(Page(title="a"), session)
        assert page is not None
        restoring = method.endswith("update")
        key = page.id
        if restoring:
            await delete_row(key, session, Page)
        async with block(session, inside):
            with registered_hook(Page, Failing(method)), pytest.raises(RefusalError):
                await (restore_row if restoring else soft_delete_row)(key, session, Page)
        found, _ = await get_row(key, session, Page)
        assert found is not restoring

    async def test_upserts_run_none(self, session: AsyncSession) -> None:
        """They are set-based, and say so."""
        recorder = Recorder()
        with registered_hook(Task, recorder):
            await bulk_upsert_mappings([{"id": 1, "title": "a", "done": False}], session, Task)
        assert recorder.calls == []
        assert "Hooks are not run" in (bulk_upsert_mappings.__doc__ or "")


class TestBulk:
    @inside_and_outside
    async def test_row_by_row(
        self, session: AsyncSession, engine: AsyncEngine, inside: bool
    ) -> None:
        """Functions for lists of keys run the hooks of each row, in the order of the keys."""
        keys = [(await stored(session, title)).id for title in "abc"]
        recorder = Recorder()
        with registered_hook(Task, recorder):
            async with block(session, inside):
                result = await bulk_update_rows(keys[:2], {"done": True}, session, Task)
                assert result == (True, 2)
                result = await delete_rows_within_id_list([keys[2], keys[0]], session, Task)
                assert result == (True, 2)
        assert recorder.calls == [
            "before_update a {'done': True}",
            "after_update a",
            "before_update b {'done': True}",
            "after_update b",
            "before_delete c",
            "after_delete c",
            "before_delete a",
            "after_delete a",
        ]
        assert await committed(engine, Task) == ["b"]

    @inside_and_outside
    async def test_soft_deletions(self, session: AsyncSession, inside: bool) -> None:
        """They run the delete hooks."""
        keys = [(await stored(session, title, Page)).id for title in "ab"]
        recorder = Recorder()
        with registered_hook(Page, recorder):
            async with block(session, inside):
                await delete_rows_within_id_list(keys, session, Page)
        assert recorder.calls == [
            f"{method} {title}" for title in "ab" for method in ("before_delete", "after_delete")
        ]
        _, pages = await get_rows(session, Page, include_deleted=True)
        assert [page.is_deleted for page in pages] == [True, True]

    async def test_data_per_row(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """A hook may change the data of one row alone."""
        keys = [(await stored(session, title)).id for title in "ab"]

        def before_update(instance: Task, data: dict[str, Any]) -> dict[str, Any]:
            return {**data, "title": instance.title * 2}

        with hooked(Task, before_update=before_update):
            await bulk_update_rows(keys, {"done": True}, session, Task)
        assert await committed(engine, Task) == ["aa", "bb"]

    @pytest.mark.parametrize(
        "method", ["before_update", "after_update", "before_delete", "after_delete"]
    )
    @inside_and_outside
    async def test_a_hook_raises(
        self, session: AsyncSession, engine: AsyncEngine, method: str, inside: bool
    ) -> None:
        """No row of the operation is changed; the session can be used."""
        keys = [(await stored(session, title)).id for title in ("a", "b")]
        failing = Failing(method, spared=("a", "a!"))

        def before_update(instance: Task, data: dict[str, Any]) -> dict[str, Any]:
            return {**data, "title": instance.title + "!"}

        async with block(session, inside):
            with (
                hooked(Task, before_update=before_update),
                registered_hook(Task, failing),
                pytest.raises(RefusalError) as caught,
            ):
                if method.endswith("update"):
                    await bulk_update_rows(keys, {"done": True}, session, Task)
                else:
                    await delete_rows_within_id_list(keys, session, Task)
        assert caught.value is failing.error
        assert caught.value.__context__ is None
        assert await committed(engine, Task) == ["a", "b"]
        assert await is_usable(session)


class TestInserts:
    @inside_and_outside
    async def test_each_row_once(
        self, session: AsyncSession, engine: AsyncEngine, inside: bool
    ) -> None:
        """In order, and the rows that hooks put in their place come back."""
        recorder = Recorder()
        with (
            registered_hook(Task, recorder),
            hooked(Task, before_create=lambda row: Task(title=row.title * 2)),
        ):
            async with block(session, inside):
                inserted, rows = await insert_data_rows([Task(title=t) for t in "ab"], session)
            assert inserted
            assert isinstance(rows, list)
            assert [row.title for row in rows] == ["aa", "bb"]
        assert recorder.calls == [
            "before_create a",
            "after_create aa",
            "before_create b",
            "after_create bb",
        ]
        assert await committed(engine, Task) == ["aa", "bb"]

    @inside_and_outside
    async def test_no_row_twice_when_some_are_refused(
        self, session: AsyncSession, engine: AsyncEngine, inside: bool
    ) -> None:
        """Each row is tried once, and alone; what hooks wrote for the refused ones is undone."""
        await stored(session, "b")
        recorder = Recorder()

        def log(instance: Task) -> None:
            session.add(Event(text=instance.title))

        with registered_hook(Task, recorder), hooked(Task, before_create=log):
            async with block(session, inside):
                any_inserted, outcome = await insert_data_rows(
                    [Task(title=t) for t in "abc"], session, raise_on_error=False
                )
        assert any_inserted
        assert isinstance(outcome, dict)
        assert [row.title for row in outcome["success"]] == ["a", "c"]
        assert [row.title for row in outcome["failed"]] == ["b"]
        assert recorder.calls == [
            "before_create a",
            "after_create a",
            "before_create b",
            "before_create c",
            "after_create c",
        ]
        assert await committed(engine, Task) == ["b", "a", "c"]
        assert await committed(engine, Event) == ["a", "c"]

    async def test_all_or_nothing(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """With `raise_on_error=True` no row is kept, and none is hooked twice either."""
        await stored(session, "b")
        recorder = Recorder()
        with registered_hook(Task, recorder), pytest.raises(BulkOperationError) as caught:
            await insert_data_rows([Task(title=t) for t in "abc"], session, raise_on_error=True)
        assert caught.value.failed == 1
        assert [call for call in recorder.calls if call.startswith("before")] == [
            f"before_create {title}" for title in "abc"
        ]
        assert await committed(engine, Task) == ["b"]

    async def test_all_or_nothing_in_a_block(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """The refusal dooms the block, as without hooks."""
        await stored(session, "b")
        with registered_hook(Task, Recorder()), pytest.raises(TransactionError):
            async with transaction(session):
                with pytest.raises(BulkOperationError):
                    await insert_data_rows([Task(title=t) for t in "abc"], session)
        assert await committed(engine, Task) == ["b"]

    @pytest.mark.parametrize("method", ["before_create", "after_create"])
    @pytest.mark.parametrize("raise_on_error", [None, False, True])
    @inside_and_outside
    async def test_a_hook_raises(
        self,
        session: AsyncSession,
        engine: AsyncEngine,
        method: str,
        raise_on_error: bool | None,
        inside: bool,
    ) -> None:
        """The whole operation is undone; in a block just that, if the error is caught."""
        failing = Failing(method, spared=("a",))
        async with block(session, inside):
            with registered_hook(Task, failing), pytest.raises(RefusalError) as caught:
                await insert_data_rows(
                    [Task(title=t) for t in "abc"], session, raise_on_error=raise_on_error
                )
            if inside:
                session.add(Project(name="later"))
        assert caught.value is failing.error
        assert caught.value.__context__ is None
        assert await committed(engine, Task) == []
        assert await committed(engine, Project) == (["later"] if inside else [])
        assert await is_usable(session)

    async def test_of_several_models(self, session: AsyncSession) -> None:
        """Each row runs the hooks of its own model."""
        recorder = Recorder()
        with registered_hook(Task, recorder):
            inserted, _ = await insert_data_rows([Project(name="p"), Task(title="a")], session)
        assert inserted
        assert recorder.calls == ["before_create a", "after_create a"]


class TestValidateOnWrite:
    @pytest.fixture(autouse=True)
    def _registered(self) -> Iterator[None]:
        with registered_hook(Gauge, ValidateOnWrite()):
            yield

    @pytest.mark.parametrize(
        ("values", "field"),
        [
            ({"sensor": "x"}, "sensor"),
            ({"sensor": None}, "sensor"),
            ({}, "sensor"),
            ({"sensor": "two words"}, "sensor"),
            ({"sensor": "ok", "low": -1000}, "low"),
            ({"sensor": "ok", "highest": 1000}, "highest"),
            ({"sensor": "ok", "low": "\N{SNOWMAN}"}, "low"),
            ({"sensor": "ok", "low": 50, "highest": 40}, None),
        ],
    )
    @inside_and_outside
    async def test_a_new_row(
        self, session: AsyncSession, values: dict[str, Any], field: str | None, inside: bool
    ) -> None:
        """Types, limits, validators and required fields; the text says why, without the values."""
        async with block(session, inside):
            with pytest.raises(ValidationError) as caught:
                await write_row(Gauge(**values), session, raise_on_error=False)
        assert caught.value.field == field
        assert str(caught.value).startswith("Validation failed")
        assert not any(value in str(caught.value) for value in ("1000", "two words", "\N{SNOWMAN}"))
        assert await get_rows(session, Gauge) == (False, [])

    async def test_several_reasons(self, session: AsyncSession) -> None:
        """All of them are told."""
        with pytest.raises(ValidationError) as caught:
            await insert_data_rows([Gauge(sensor="ok"), Gauge(sensor="x", low=-1000)], session)
        assert [each["loc"] for each in caught.value.errors or ()] == [("sensor",), ("low",)]
        assert await get_rows(session, Gauge) == (False, [])

    async def test_good_rows(self, session: AsyncSession) -> None:
        """They are written as they are, with relationships and defaults."""
        project = Project(name="p")
        written, gauge = await write_row(Gauge(sensor="ok", project=project), session)
        assert written
        assert gauge is not None
        assert gauge.project_id is not None
        _, gauge = await get_one_or_create(session, Gauge, sensor="more", low=-5)
        assert len((await get_rows(session, Gauge))[1]) == 2

    @pytest.mark.parametrize(
        "data", [{"low": 60}, {"sensor": "x"}, {"high": 1000}, {"sensor": "two words"}]
    )
    @inside_and_outside
    async def test_an_update(
        self, session: AsyncSession, data: dict[str, Any], inside: bool
    ) -> None:
        """The row is validated as it would be afterwards, so that fields are seen together."""
        _, gauge = await write_row(Gauge(sensor="ok", low=1, highest=50), session)
        assert gauge is not None
        key = gauge.id
        async with block(session, inside):
            with pytest.raises(ValidationError):
                await update_row(key, data, session, Gauge, raise_on_error=False)
        _, gauge = await get_row(key, session, Gauge)
        assert gauge is not None
        assert (gauge.sensor, gauge.low) == ("ok", 1)

    async def test_a_good_update(self, session: AsyncSession) -> None:
        """Fields that are not among the data keep their values; relationships may be."""
        _, gauge = await write_row(Gauge(sensor="ok", low=-2), session)
        assert gauge is not None
        project = Project(name="p")
        data = {"low": -1, "project": project}
        updated, row = await update_row(gauge.id, data, session, Gauge)
        assert updated
        assert row is not None
        assert (row.sensor, row.low, row.project) == ("ok", -1, project)
        await session.refresh(project, ["gauges"])
        assert project.gauges == [row]
