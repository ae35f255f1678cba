"""Hooks that call the library again, and the writes that have not a test of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from sqlmodel_crud_utils.aio import (
    bulk_upsert_mappings,
    delete_row,
    get_one_or_create,
    get_row,
    get_rows,
    restore_row,
    soft_delete_row,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import (
    ConstraintViolationError,
    TransactionError,
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
    Event,
    Failing,
    Page,
    Project,
    Recorder,
    RefusalError,
    Task,
    hook_of,
    hooked,
)


@pytest.fixture(autouse=True)
def _no_leftovers() -> Iterator[None]:
    yield
    clear_hooks()


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
        """Everything that hooks wrote is undone if a later one raises."""
        task = await existing_row(session, "old")

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
        await existing_row(session, "taken")

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
        """With `raise_on_error=False`, or in its own block, the hook continues after it."""
        await existing_row(session, "taken")

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
        await existing_row(session, "taken")

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
        first = (await existing_row(session, "a", Page)).id
        second = (await existing_row(session, "b", Page)).id
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
        """The row's flags are unchanged."""
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
        """They are set-based, as documented."""
        recorder = Recorder()
        with registered_hook(Task, recorder):
            await bulk_upsert_mappings([{"id": 1, "title": "a", "done": False}], session, Task)
        assert recorder.calls == []
        assert "Hooks do not run" in (bulk_upsert_mappings.__doc__ or "")
