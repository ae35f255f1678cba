"""Hooks run with the writes of the library, in the same transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError
from sqlmodel import SQLModel, select

from sqlmodel_crud_utils.aio import (
    delete_row,
    get_one_or_create,
    get_rows,
    insert_data_rows,
    on_commit,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import (
    ConstraintViolationError,
    TransactionError,
    UnknownFieldError,
    ValidationError,
)
from sqlmodel_crud_utils.hooks import METHODS, clear_hooks, registered_hook
from tests._async.hooking import (
    block,
    committed,
    existing_row,
    inside_and_outside,
    is_usable,
    perform,
)
from tests._runtime_async import AsyncEngine, AsyncSession
from tests.hook_models import (
    Failing,
    Project,
    Recorder,
    RefusalError,
    Task,
    hooked,
)
from tests.value_models import Configured


@pytest.fixture(autouse=True)
def _no_leftovers() -> Iterator[None]:
    yield
    clear_hooks()


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
        """Callbacks that a hook registers run after the commit, and not if the write fails."""
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
        await existing_row(session, "a")
        recorder = Recorder()
        with registered_hook(Task, recorder):
            assert await write_row(Task(title="a"), session) == (False, None)
            with pytest.raises(ConstraintViolationError):
                await write_row(Task(title="a"), session, raise_on_error=True)
        assert recorder.calls == ["before_create a", "before_create a"]
        assert await committed(engine, Task) == ["a"]

    async def test_refused_in_a_block(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """It dooms the block as it does without hooks, and `raise_on_error=False` does not."""
        await existing_row(session, "a")
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
        """If a hook raises, the change is not written."""
        task = await existing_row(session, "a")
        async with block(session, inside):
            task.title = "b"
            with registered_hook(Task, Failing(method)), pytest.raises(RefusalError):
                await write_row(task, session)
        assert await committed(engine, Task) == ["a"]
        assert await is_usable(session)

    @pytest.mark.parametrize("has_hook", [False, True])
    async def test_how_values_are_read(self, session: AsyncSession, has_hook: bool) -> None:
        """With hooks as without: to the column's type; the class's own validators do not run."""
        _, row = await write_row(Configured(checked="a"), session)
        assert row is not None
        row.checked, row.low = "b", "5"  # type: ignore[assignment]
        with hooked(Configured, after_update=lambda _: None) if has_hook else nullcontext():
            await write_row(row, session)
        await session.refresh(row)
        assert (row.checked, row.low) == ("b", 5)

    async def test_without_changes_or_refused(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """The outcome is that of `write_row`."""
        task = await existing_row(session, "a")
        await existing_row(session, "taken")
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
        """Anything but such a row is refused, and the error names the hook."""

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
        task = await existing_row(session, "a")
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
        """It is not None: nothing of the data is written."""
        task = await existing_row(session, "a")
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
        task = await existing_row(session, "a")
        with hooked(Task, before_update=lambda *_: returned), pytest.raises(error):
            await update_row(task.id, {"title": "b"}, session, Task)
        assert await committed(engine, Task) == ["a"]

    async def test_replaced_data_are_coerced(self, session: AsyncSession) -> None:
        """Values that a hook puts in are coerced as a caller's are."""
        task = await existing_row(session, "a")
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
        """Nothing is written, the error propagates unchanged, and the session is usable."""
        task = await existing_row(session, "old")
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
        """It is rolled back with the failed write, as after any failure, and the error says so."""
        task = await existing_row(session, "old")
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
        """It undoes the block, and is wrapped like any other error."""
        task = await existing_row(session, "old")
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
        """Only the operation is undone; pending work is kept, and the block continues."""
        task = await existing_row(session, "old")
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
        task = await existing_row(session, "old")
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
        task = await existing_row(session, "old")
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
