"""Hooks that ask for the session of the operation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import pytest

from sqlmodel_crud_utils.aio import (
    bulk_update_rows,
    delete_row,
    delete_rows_within_id_list,
    get_one_or_create,
    get_rows,
    insert_data_rows,
    restore_row,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import TransactionError
from sqlmodel_crud_utils.hooks import METHODS, registered_hook
from tests._async.hooking import block, committed, inside_and_outside
from tests._async.rows import count_of, given
from tests._runtime_async import AsyncEngine, AsyncSession, execute, first_of, scoped
from tests.hook_models import Event, Page, Project, RefusalError, Task, hook_of
from tests.models import Hero, Tag, Team
from tests.recording import recorded


class Journal:
    """Queries and writes with the session that it is given, in every method."""

    def __init__(self) -> None:
        self.sessions: list[Any] = []

    async def _note(self, session: AsyncSession, text: str) -> None:
        self.sessions.append(session)
        _, events = await get_rows(session, Event)
        await write_row(Event(text=f"{len(events)} {text}"), session)

    async def before_create(self, instance: Task, session: AsyncSession) -> None:
        """Note it."""
        await self._note(session, f"before_create {instance.title}")

    async def after_create(self, instance: Task, *, session: AsyncSession) -> None:
        """Note it."""
        await self._note(session, f"after_create {instance.title}")

    async def before_update(
        self, instance: Task, data: dict[str, Any], session: AsyncSession
    ) -> dict[str, Any]:
        """Note it, and change the data."""
        await self._note(session, f"before_update {instance.title}")
        return {"title": f"{data['title']}!"}

    async def after_update(self, instance: Task, session: AsyncSession) -> None:
        """Note it."""
        await self._note(session, f"after_update {instance.title}")

    async def before_delete(self, instance: Task, session: AsyncSession) -> None:
        """Note it."""
        await self._note(session, f"before_delete {instance.title}")

    async def after_delete(self, instance: Task, session: AsyncSession) -> None:
        """Note it."""
        await self._note(session, f"after_delete {instance.title}")


NOTED = [
    "0 before_create a",
    "1 after_create a",
    "2 before_update a",
    "3 after_update b!",
    "4 before_delete b!",
    "5 after_delete b!",
]


@inside_and_outside
async def test_every_method_can_query_and_write(
    session: AsyncSession, engine: AsyncEngine, inside: bool
) -> None:
    """It gets the session of the operation, and what it writes is committed with the row."""
    journal = Journal()
    with registered_hook(Task, journal):
        async with block(session, inside):
            _, task = await write_row(Task(title="a"), session)
            assert task is not None
            await update_row(task.id, {"title": "b"}, session, Task)
            await delete_row(task.id, session, Task)
    assert all(each is session for each in journal.sessions)
    assert await committed(engine, Event) == NOTED


async def test_of_many_rows(session: AsyncSession, engine: AsyncEngine) -> None:
    """The functions for many rows pass it, too."""
    with registered_hook(Task, Journal()):
        _, rows = await insert_data_rows([Task(title="a")], session)
        [task] = rows
        await bulk_update_rows([task.id], {"title": "b"}, session, Task)
        await delete_rows_within_id_list([task.id], session, Task)
    assert await committed(engine, Event) == NOTED


async def test_it_is_that_of_a_registry(engine: AsyncEngine) -> None:
    """Out of a scoped session it is the session itself."""
    registry = scoped(engine)
    journal = Journal()
    with registered_hook(Task, journal):
        await get_one_or_create(registry, Task, title="a")
    assert all(each is registry() for each in journal.sessions)
    await registry.remove()


@inside_and_outside
async def test_what_it_writes_is_undone_with_the_row(
    session: AsyncSession, engine: AsyncEngine, inside: bool
) -> None:
    """If the hook refuses the row, nothing is kept."""

    class Quota:
        async def before_create(self, instance: Task, session: AsyncSession) -> None:
            await write_row(Event(text="asked"), session)
            if (await get_rows(session, Task))[0]:
                raise RefusalError(instance.title)

    with registered_hook(Task, Quota()):
        await write_row(Task(title="a"), session)
        with pytest.raises((RefusalError, TransactionError)):
            async with block(session, inside):
                await write_row(Task(title="b"), session)
    assert await committed(engine, Event) == ["asked"]
    assert await count_of(session, Task) == 1


async def test_a_query_before_a_row_that_is_linked(session: AsyncSession) -> None:
    """The row that waits for its hook does not disturb it, nor is it written by it."""
    counts: list[int] = []

    class Count:
        async def before_create(self, instance: Task, session: AsyncSession) -> None:
            assert instance.project is not None
            counts.append(len((await get_rows(session, Task))[1]))

    await given(session, Project(id=1, name="p"))
    with registered_hook(Task, Count()):
        _, projects = await get_rows(session, Project, selectin=True, select_in_keys=["tasks"])
        for title in ("a", "b"):
            await write_row(Task(title=title, project=projects[0]), session, raise_on_error=True)
        async with transaction(session):
            _, projects = await get_rows(session, Project, selectin=True, select_in_keys=["tasks"])
            tasks = [Task(title=title, project=projects[0]) for title in ("c", "d")]
            await insert_data_rows(tasks, session)
    assert counts == [0, 1, 2, 3]


async def test_what_a_hook_changes_of_the_links(session: AsyncSession) -> None:
    """Another row, and one more, are linked once and from both sides."""

    class Relink:
        async def before_create(self, instance: Hero, session: AsyncSession) -> None:
            assert instance.team is teams[0]
            assert instance.tags == tags[:1]
            await get_rows(session, Hero)
            instance.team = teams[1]
            instance.tags.append(tags[1])

    await given(session, *(Team(id=key, name=f"t{key}") for key in (1, 2)))
    await given(session, *(Tag(id=key, label=f"t{key}") for key in (1, 2)))
    loading: dict[str, Any] = {"selectin": True, "select_in_keys": ["heroes"]}
    async with transaction(session):
        _, teams = await get_rows(session, Team, **loading)
        _, tags = await get_rows(session, Tag, **loading)
        row = Hero(name="a", secret_name="?", team=teams[0], tags=[tags[0]])
        with registered_hook(Hero, Relink()):
            await write_row(row, session)
        assert row.team is teams[1]
        assert [team.heroes for team in teams] == [[], [row]]
        assert [tag.heroes for tag in tags] == [[row], [row]]
    _, stored = await get_rows(session, Tag, **loading)
    assert [len(tag.heroes) for tag in stored] == [1, 1]
    _, stored = await get_rows(session, Team, **loading)
    assert [len(team.heroes) for team in stored] == [0, 1]


async def test_plain_methods_get_it_as_well(session: AsyncSession, engine: AsyncEngine) -> None:
    """A `def` method may add rows to the session."""

    class Log:
        def before_create(self, instance: Task, session: AsyncSession) -> None:
            session.add(Event(text=instance.title))

    with registered_hook(Task, Log()):
        await write_row(Task(title="a"), session)
    assert await committed(engine, Event) == ["a"]


async def test_soft_deletion(session: AsyncSession, engine: AsyncEngine) -> None:
    """Marking and restoring are a deletion and an update."""

    def log(instance: Page, *_: Any, session: AsyncSession) -> None:
        session.add(Event(text=instance.title))

    with registered_hook(Page, hook_of(**dict.fromkeys(METHODS, log))):
        _, page = await write_row(Page(title="a"), session)
        assert page is not None
        await delete_row(page.id, session, Page)
        await restore_row(page.id, session, Page)
    assert await committed(engine, Event) == ["a"] * 6


class Unhashable:
    """Can be called, and cannot be the key of a cache."""

    __hash__ = None  # type: ignore[assignment]

    def __call__(self, instance: Task, session: AsyncSession) -> None:
        """Add an event."""
        session.add(Event(text=instance.title))


def added(instance: Task, session: AsyncSession) -> None:
    """Add an event."""
    session.add(Event(text=instance.title))


@wraps(added)
def wrapper(*args: Any, **kwargs: Any) -> None:
    """Call what it wraps."""
    added(*args, **kwargs)


@pytest.mark.parametrize("function", [added, partial(added), Unhashable(), wrapper])
async def test_whatever_can_be_called(
    session: AsyncSession, engine: AsyncEngine, function: Callable[..., None]
) -> None:
    """Functions, what wraps them, and objects that can be called."""
    with registered_hook(Task, hook_of(before_create=function)):
        await write_row(Task(title="a"), session)
    assert await committed(engine, Event) == ["a"]


async def test_others_get_nothing_more(session: AsyncSession) -> None:
    """Methods with **kwargs, or that use the name otherwise, are called as before."""
    calls: list[Any] = []

    def anything(*args: Any, **kwargs: Any) -> None:
        calls.append((len(args), kwargs))

    with registered_hook(Task, hook_of(before_create=anything, after_create=calls.append)):
        await write_row(Task(title="a"), session)
    assert calls[0] == (1, {})
    assert isinstance(calls[1], Task)
    assert first_of(await execute(session, Task.__table__.select())) is not None  # type: ignore[attr-defined]


async def test_a_hook_holds_the_lock_where_it_may_query(
    session: AsyncSession, engine: AsyncEngine
) -> None:
    """On SQLite a hook with the session runs in a transaction that has begun, others need none."""

    class Asking:
        def before_create(self, instance: Task, session: AsyncSession) -> None:
            """Do nothing."""

    with recorded(engine) as words:
        with registered_hook(Task, hook_of(before_create=lambda _: None)):
            await write_row(Task(title="a"), session)
        assert words == ["INSERT", "COMMIT"]
        words.clear()
        with registered_hook(Task, Asking()):
            await write_row(Task(title="b"), session)
    begun = ["BEGIN"] if engine.dialect.name == "sqlite" else []
    assert words == [*begun, "INSERT", "COMMIT"]


async def test_savepoints_of_a_hook_belong_to_its_write(
    session: AsyncSession, engine: AsyncEngine
) -> None:
    """Also of one that does not ask for the session, and brings its own."""

    async def fail(_: Task) -> None:
        async with session.begin_nested():
            session.add(Event(text="by hand"))
        await write_row(Event(text="by the library"), session, raise_on_error=False)
        raise RefusalError

    with registered_hook(Task, hook_of(before_create=fail)), pytest.raises(RefusalError):
        await write_row(Task(title="a"), session)
    assert await committed(engine, Event) == []
