"""Optimistic locking through the library's functions: the second writer gets an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import delete, event, select, update
from sqlalchemy.orm.exc import StaleDataError

from sqlmodel_crud_utils.aio import (
    delete_row,
    get_row,
    insert_data_rows,
    restore_row,
    soft_delete_row,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import ConflictError, TransactionError, ValidationError
from sqlmodel_crud_utils.hooks import registered_hook
from tests._runtime_async import AsyncEngine, AsyncSession, execute, first_of, sync_engine
from tests.models import Hero
from tests.models_mixins import Counter, Membership, Parcel
from tests.recording import recorded

Sessions = Callable[[], AsyncSession]


async def counter_of(session: AsyncSession) -> Counter:
    """Write a counter and return it."""
    _, counter = await write_row(Counter(value=1), session, raise_on_error=True)
    return counter


async def change_elsewhere(session_factory: Sessions, key: Any, value: int = 10) -> None:
    """Let another session change the counter."""
    other = session_factory()
    updated, _ = await update_row(key, {"value": value}, other, Counter)
    assert updated
    await other.close()


def details_of(error: ConflictError) -> tuple[Any, ...]:
    """Return what an error says about the row."""
    return error.model, error.key, error.expected, error.found


async def stored_counter(session: AsyncSession) -> tuple[int, int]:
    """Return the value and the version that the database has."""
    row = first_of(await execute(session, select(Counter.value, Counter.version)))
    return tuple(row)


# --- two sessions --------------------------------------------------------------------------------


async def write_changed(_key: Any, session: AsyncSession, counter: Counter, flag: Any) -> Any:
    """Change the object oneself and write it."""
    counter.value = 20
    return (await write_row(counter, session, raise_on_error=flag))[0]


WAYS: dict[str, Callable[..., Any]] = {
    "update_row": lambda key, session, _, flag: update_row(
        key, {"value": 20}, session, Counter, raise_on_error=flag
    ),
    "delete_row": lambda key, session, _, flag: delete_row(
        key, session, Counter, raise_on_error=flag
    ),
    "write_row": write_changed,
}


@pytest.mark.parametrize("way", WAYS)
async def test_a_lost_update_raises(session: AsyncSession, session_factory: Sessions, way: str):
    """The error has the model, the key and both versions, and the session can go on."""
    counter = await counter_of(session)
    key = counter.id
    await change_elsewhere(session_factory, key)
    with pytest.raises(ConflictError) as caught:
        await WAYS[way](key, session, counter, True)
    assert details_of(caught.value) == (Counter, key, 1, 2)
    assert isinstance(caught.value.__cause__, StaleDataError)
    assert await stored_counter(session) == (10, 2)
    updated, row = await update_row(key, {"value": 30}, session, Counter)
    assert (updated, row.value, row.version) == (True, 30, 3)


@pytest.mark.parametrize("way", WAYS)
async def test_a_lost_update_is_reported(
    session: AsyncSession, session_factory: Sessions, way: str
):
    """Without the flag by the result; nothing is written, and the session can go on."""
    counter = await counter_of(session)
    key = counter.id
    await change_elsewhere(session_factory, key)
    result = await WAYS[way](key, session, counter, None)
    if way == "update_row":
        assert result == (False, counter)
        assert (counter.value, counter.version) == (10, 2)
    else:
        assert result is False
    assert await stored_counter(session) == (10, 2)
    assert await delete_row(key, session, Counter) is True


@pytest.mark.parametrize("way", WAYS)
async def test_a_lost_update_dooms_a_block(
    session: AsyncSession, session_factory: Sessions, way: str
):
    """The flush has ended the transaction, so code that catches the error cannot commit."""
    counter = await counter_of(session)
    key = counter.id
    await change_elsewhere(session_factory, key)
    with pytest.raises(TransactionError) as failed:
        async with transaction(session):
            await write_row(Counter(value=5), session)
            with pytest.raises(ConflictError) as caught:
                await WAYS[way](key, session, counter, None)
    assert details_of(caught.value)[:3] == (Counter, key, 1)
    assert failed.value.original_error is caught.value
    assert await stored_counter(session) == (10, 2)
    assert (await update_row(key, {"value": 30}, session, Counter))[0] is True


@pytest.mark.parametrize("way", ["update_row", "delete_row"])
async def test_a_lost_update_of_which_a_block_takes_no_notice(
    session: AsyncSession, session_factory: Sessions, way: str
):
    """With `raise_on_error=False` only this write is undone."""
    counter = await counter_of(session)
    key = counter.id
    await change_elsewhere(session_factory, key)
    async with transaction(session):
        _, other = await write_row(Counter(value=5), session)
        result = await WAYS[way](key, session, counter, False)
    assert (result[0] if isinstance(result, tuple) else result) is False
    assert (await get_row(other.id, session, Counter))[0] is True
    _, row = await get_row(key, session, Counter)
    await session.refresh(row)
    assert (row.value, row.version) == (10, 2)


async def test_a_lost_update_from_before_the_savepoint(
    session: AsyncSession, session_factory: Sessions
):
    """Earlier changes of the caller are part of the block, so the block cannot continue."""
    counter = await counter_of(session)
    key = counter.id
    await change_elsewhere(session_factory, key)
    with pytest.raises(TransactionError) as failed:
        async with transaction(session):
            assert await write_changed(key, session, counter, False) is False
    assert isinstance(failed.value.original_error, ConflictError)
    assert await stored_counter(session) == (10, 2)


@pytest.mark.parametrize("inside", [False, True])
async def test_a_lost_update_that_the_exit_of_a_block_writes(
    session: AsyncSession, session_factory: Sessions, inside: bool
):
    """Pending changes are written at the end of a block, inner ones too; the error has the row."""
    counter = await counter_of(session)
    key = counter.id
    await change_elsewhere(session_factory, key)
    with pytest.raises(TransactionError) as failed:
        async with transaction(session):
            if inside:
                async with transaction(session):
                    counter.value = 20
            counter.value = 20
    error = failed.value.original_error
    assert isinstance(error, ConflictError)
    assert error.key == key
    assert await stored_counter(session) == (10, 2)


@pytest.mark.usefixtures("_hooks_change_nothing")
async def test_a_row_that_is_gone(session: AsyncSession, session_factory: Sessions):
    """Its version is unknown."""
    counter = await counter_of(session)
    key = counter.id
    counter.value = 20
    other = session_factory()
    await execute(other, delete(Counter))
    await other.commit()
    with pytest.raises(ConflictError, match="changed or removed") as caught:
        await write_row(counter, session, raise_on_error=True)
    assert details_of(caught.value) == (Counter, key, 1, None)


@contextmanager
def gone_after_an_update(engine: AsyncEngine) -> Iterator[None]:
    """Let every statement after an UPDATE fail as if the connection were lost."""
    seen: list[str] = []

    def fail(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "UPDATE" in seen:
            raise ConnectionResetError
        seen.append(statement.split(maxsplit=1)[0])

    event.listen(sync_engine(engine), "before_cursor_execute", fail)
    try:
        yield
    finally:
        event.remove(sync_engine(engine), "before_cursor_execute", fail)


async def test_the_database_goes_away_after_the_conflict(
    session: AsyncSession, session_factory: Sessions, engine: AsyncEngine
):
    """The error reports the conflict, without the version, which could not be looked up."""
    counter = await counter_of(session)
    key = counter.id
    await change_elsewhere(session_factory, key)
    with gone_after_an_update(engine), pytest.raises(ConflictError) as caught:
        await update_row(key, {"value": 20}, session, Counter, raise_on_error=True)
    assert details_of(caught.value) == (Counter, key, 1, None)
    assert await stored_counter(session) == (10, 2)


async def test_the_row_to_blame_is_found_among_others(
    session: AsyncSession, session_factory: Sessions
):
    """One flush may write many rows, of several models."""
    rows = [Counter(value=n) for n in range(3)]
    await insert_data_rows([*rows, Parcel(code="a")], session, raise_on_error=True)
    keys = [row.id for row in rows]
    await change_elsewhere(session_factory, keys[1])
    for row in rows:
        row.value += 100
    with pytest.raises(ConflictError) as caught:
        await write_row(Hero(name="Rusty", secret_name="?"), session, raise_on_error=True)
    assert details_of(caught.value) == (Counter, keys[1], 1, 2)


async def test_too_many_rows_to_tell(session: AsyncSession, session_factory: Sessions):
    """The error names the model alone, rather than ask the database for each row."""
    rows = [Counter(value=n) for n in range(101)]
    await insert_data_rows(rows, session, raise_on_error=True)
    await change_elsewhere(session_factory, rows[50].id)
    for row in rows:
        row.value += 100
    with pytest.raises(ConflictError) as caught:
        await write_row(rows[0], session, raise_on_error=True)
    assert details_of(caught.value) == (Counter, None, None, None)


async def test_a_conflict_of_the_users_own_is_forgotten(
    session: AsyncSession, session_factory: Sessions
):
    """It is not blamed for a later one."""
    first, second = await counter_of(session), Membership(email="a", nick="b")
    key = first.id
    await session.refresh(first)
    first.value = 20
    await change_elsewhere(session_factory, key)
    with pytest.raises(StaleDataError):
        await session.flush()
    await session.rollback()
    await write_row(second, session, raise_on_error=True)
    other = session_factory()
    await execute(other, delete(Membership))
    await other.commit()
    second.nick = "c"
    with pytest.raises(ConflictError) as caught:
        await write_row(second, session, raise_on_error=True)
    assert details_of(caught.value) == (Membership, None, None, None)


async def test_what_a_block_flushes_at_its_end(session: AsyncSession, session_factory: Sessions):
    """A change of the user's own object is refused with the library's error, too."""
    counter = await counter_of(session)
    key = counter.id
    await change_elsewhere(session_factory, key)
    with pytest.raises(TransactionError) as failed:
        async with transaction(session):
            counter.value = 20
    error = failed.value.original_error
    assert isinstance(error, ConflictError)
    assert details_of(error)[:3] == (Counter, key, 1)
    assert isinstance(error.__cause__, StaleDataError)


async def test_with_hooks(session: AsyncSession, session_factory: Sessions):
    """A write with hooks has a savepoint, and the outcome is the same."""

    class Nothing:
        def before_update(self, instance: Any, data: Any) -> None:
            """Change nothing."""

    counter = await counter_of(session)
    key = counter.id
    await change_elsewhere(session_factory, key)
    with registered_hook(Counter, Nothing()):
        with pytest.raises(ConflictError) as caught:
            await update_row(key, {"value": 20}, session, Counter, raise_on_error=True)
        assert details_of(caught.value) == (Counter, key, 1, 2)
        _, counter = await get_row(key, session, Counter)
        await change_elsewhere(session_factory, key, 11)
        with pytest.raises(TransactionError):
            async with transaction(session):
                with pytest.raises(ConflictError) as caught:
                    await update_row(key, {"value": 20}, session, Counter)
        assert details_of(caught.value) == (Counter, key, 2, 3)
    assert await stored_counter(session) == (11, 3)


async def test_soft_deletions_and_restorations_count(
    session: AsyncSession, session_factory: Sessions
):
    """They are updates, so a concurrent change of the row conflicts with them."""
    _, parcel = await write_row(Parcel(code="a"), session, raise_on_error=True)
    key = parcel.id
    other = session_factory()
    await soft_delete_row(key, other, Parcel)
    parcel.size = 2
    with pytest.raises(ConflictError) as caught:
        await write_row(parcel, session, raise_on_error=True)
    assert details_of(caught.value) == (Parcel, key, 1, 2)
    restored, row = await restore_row(key, session, Parcel)
    assert (restored, row.version) == (True, 3)


# --- expected_version ----------------------------------------------------------------------------


async def test_the_expected_version_is_there(session: AsyncSession):
    """The row is written; the version may come as text, as from a web request."""
    counter = await counter_of(session)
    key = counter.id
    updated, row = await update_row(key, {"value": 2}, session, Counter, expected_version=1)
    assert (updated, row.value, row.version) == (True, 2, 2)
    values: dict[str, Any] = {"expected_version": "2"}
    assert (await update_row(key, {"value": 3}, session, Counter, **values))[0] is True
    assert await delete_row(key, session, Counter, expected_version=3) is True


@pytest.mark.parametrize("expected", [0, 1, 3])
async def test_another_version_is_there(session: AsyncSession, expected: int):
    """Nothing is written, and the returned row has the database's values."""
    counter = await counter_of(session)
    key = counter.id
    await update_row(key, {"value": 2}, session, Counter)
    data = {"value": 9}
    result = await update_row(key, data, session, Counter, expected_version=expected)
    assert result == (False, counter)
    assert (counter.value, counter.version) == (2, 2)
    assert await delete_row(key, session, Counter, expected_version=expected) is False
    options: dict[str, Any] = {"expected_version": expected, "raise_on_error": True}
    for call in (
        lambda: update_row(key, data, session, Counter, **options),
        lambda: delete_row(key, session, Counter, **options),
    ):
        with pytest.raises(ConflictError) as caught:
            await call()
        assert details_of(caught.value) == (Counter, key, expected, 2)
        assert caught.value.__cause__ is None
    assert await stored_counter(session) == (2, 2)


async def test_the_session_holds_an_older_version(session: AsyncSession, session_factory: Sessions):
    """The version in the database counts."""
    counter = await counter_of(session)
    key = counter.id
    await session.rollback()
    _, counter = await get_row(key, session, Counter)
    await session.commit()
    await session.refresh(counter)
    await session.commit()
    await change_elsewhere(session_factory, key)
    updated, row = await update_row(key, {"value": 3}, session, Counter, expected_version=2)
    assert (updated, row.value, row.version) == (True, 3, 3)


async def test_an_unexpected_version_dooms_no_block(session: AsyncSession):
    """It is found out before the database is asked to write anything."""
    counter = await counter_of(session)
    async with transaction(session):
        with pytest.raises(ConflictError):
            await update_row(counter.id, {"value": 9}, session, Counter, expected_version=7)
        assert await update_row(
            counter.id, {"value": 9}, session, Counter, expected_version=7, raise_on_error=False
        ) == (False, counter)
        await update_row(counter.id, {"value": 8}, session, Counter, expected_version=1)
    assert await stored_counter(session) == (8, 2)


async def test_an_expected_version_needs_versions(session: AsyncSession):
    """A model without them and a version that is not a number are mistakes."""
    await write_row(Hero(name="Rusty", secret_name="?"), session)
    for model, expected in ((Hero, 1), (Counter, "new"), (Counter, 1.5)):
        values: dict[str, Any] = {"expected_version": expected}
        with pytest.raises(ValidationError, match="version"):
            await update_row(1, {"id": 1}, session, model, **values)
        with pytest.raises(ValidationError, match="version"):
            await delete_row(1, session, model, **values)


async def test_two_stateless_callers(session_factory: Sessions):
    """Both have seen version 1, each has a session of its own: one of them wins."""
    first, second = session_factory(), session_factory()
    key = (await counter_of(first)).id
    await first.close()
    for session, wins in ((session_factory(), True), (second, False)):
        done, row = await update_row(key, {"value": 5}, session, Counter, expected_version=1)
        assert (done, row.version) == (wins, 2)
        await session.close()


# --- what it costs -------------------------------------------------------------------------------


async def test_a_model_without_versions_pays_nothing(engine: AsyncEngine, session: AsyncSession):
    """An update is a SELECT and an UPDATE, with or without versions."""
    counter = await counter_of(session)
    key = counter.id
    _, hero = await write_row(Hero(name="Rusty", secret_name="?"), session)
    hero_key = hero.id
    for call in (
        lambda: update_row(key, {"value": 2}, session, Counter),
        lambda: update_row(hero_key, {"age": 2}, session, Hero),
    ):
        with recorded(engine) as words:
            assert (await call())[0] is True
        assert [word for word in words if word in {"SELECT", "UPDATE"}] == ["SELECT", "UPDATE"]
    assert await execute(session, update(Counter).values(value=3))
