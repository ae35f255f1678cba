"""Hooks of the functions that write many rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sqlmodel_crud_utils.aio import (
    bulk_update_rows,
    delete_rows_within_id_list,
    get_rows,
    insert_data_rows,
    transaction,
    write_row,
)
from sqlmodel_crud_utils.exceptions import (
    BulkOperationError,
    ConstraintViolationError,
    TransactionError,
)
from sqlmodel_crud_utils.hooks import ValidateOnWrite, clear_hooks, registered_hook
from tests._async.hooking import block, committed, existing_row, inside_and_outside, is_usable
from tests._runtime_async import AsyncEngine, AsyncSession
from tests.hook_models import (
    Event,
    Failing,
    Page,
    Project,
    Recorder,
    RefusalError,
    Task,
    hooked,
)
from tests.models import DeferredChild, Parent


@pytest.fixture(autouse=True)
def _no_leftovers() -> Iterator[None]:
    yield
    clear_hooks()


class TestBulk:
    @inside_and_outside
    async def test_row_by_row(
        self, session: AsyncSession, engine: AsyncEngine, inside: bool
    ) -> None:
        """Functions for lists of keys run the hooks of each row, in the order of the keys."""
        keys = [(await existing_row(session, title)).id for title in "abc"]
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
        """Soft deletions of many rows run the delete hooks."""
        keys = [(await existing_row(session, title, Page)).id for title in "ab"]
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
        keys = [(await existing_row(session, title)).id for title in "ab"]

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
        keys = [(await existing_row(session, title)).id for title in ("a", "b")]
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
        await existing_row(session, "b")
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

    async def test_several_refusals(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """Every refused row is reported; rows without a key do not get one."""
        for title in "ac":
            await existing_row(session, title)
        rows = [Task(title=t) for t in "abc"]
        with registered_hook(Task, Recorder()):
            any_inserted, outcome = await insert_data_rows(rows, session)
        assert any_inserted
        assert outcome == {"success": [rows[1]], "failed": [rows[0], rows[2]]}
        assert [row.id is None for row in rows] == [True, False, True]
        assert await committed(engine, Task) == ["a", "c", "b"]

    async def test_all_or_nothing(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """With `raise_on_error=True` no row is kept, and none is hooked twice either."""
        await existing_row(session, "b")
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
        await existing_row(session, "b")
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


@pytest.mark.databases("sqlite", "postgresql")
async def test_a_constraint_that_the_commit_checks(session: AsyncSession) -> None:
    """It blames no row, and hooks do not run twice: no row is kept."""
    parent = Parent(name="p")
    await write_row(parent, session)
    rows = [DeferredChild(parent_id=key) for key in (parent.id, 10**6)]
    with registered_hook(DeferredChild, ValidateOnWrite()):
        result = await insert_data_rows(rows, session)
        assert result == (False, {"success": [], "failed": rows})
        assert [row.id for row in rows] == [None, None]
        with pytest.raises(ConstraintViolationError) as raised:
            await insert_data_rows(rows, session, raise_on_error=True)
    assert raised.value.kind == "foreign_key"
    assert await get_rows(session, DeferredChild) == (False, [])
