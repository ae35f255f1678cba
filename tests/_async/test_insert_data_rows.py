"""Inserting many rows: all, or what can be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import InvalidRequestError

from sqlmodel_crud_utils.aio import get_rows, insert_data_rows, transaction, write_row
from sqlmodel_crud_utils.exceptions import (
    BulkOperationError,
    ConstraintViolationError,
    DatabaseConnectionError,
    QueryExecutionError,
    TransactionError,
    ValidationError,
)
from tests._runtime_async import AsyncEngine, AsyncSession, PlainSession, sync_session
from tests.models import DeferredChild, Document, Hero, Parent, Setting, Tag, Team
from tests.recording import ListenerError, recorded


def heroes(*names: str, **values: Any) -> list[Hero]:
    """Return heroes that are not written yet."""
    return [Hero(name=name, secret_name="?", **values) for name in names]


async def stored_names(session: AsyncSession) -> list[str]:
    """Return the names of the heroes in the database."""
    session.expunge_all()
    return [hero.name for hero in (await get_rows(session, Hero, sort_field="name"))[1]]


async def test_rows_are_inserted_together(session: AsyncSession, engine: AsyncEngine) -> None:
    """The answer is `(True, rows)`, in one transaction; the rows can be read."""
    rows = heroes("a", "b", "c")
    with recorded(engine) as words:
        assert await insert_data_rows(rows, session) == (True, rows)
    assert set(words) == {"INSERT", "COMMIT"}
    assert [row.name for row in rows] == ["a", "b", "c"]
    assert all(row.id for row in rows)


@pytest.mark.parametrize("flag", [None, False, True])
async def test_no_rows_are_inserted_with_success(session: AsyncSession, flag: bool | None) -> None:
    """Nothing failed."""
    assert await insert_data_rows([], session, raise_on_error=flag) == (True, [])
    assert await insert_data_rows(iter(()), session, raise_on_error=flag) == (True, [])


async def test_any_iterable_of_rows_will_do(session: AsyncSession) -> None:
    """A generator is read once; the rows come back as a list. Models may be mixed."""
    inserted, rows = await insert_data_rows((row for row in heroes("a", "b")), session)
    assert inserted
    assert isinstance(rows, list)
    assert (await insert_data_rows([Team(name="t"), *heroes("c"), Document(title="d")], session))[0]
    assert await stored_names(session) == ["a", "b", "c"]


async def test_after_a_refusal_each_row_is_tried_alone(session: AsyncSession) -> None:
    """The good ones are kept and can be read; the others are reported."""
    await write_row(heroes("b")[0], session)
    rows = heroes("a", "b", "c", "a", "d")
    any_inserted, outcome = await insert_data_rows(rows, session)
    assert any_inserted is True
    assert isinstance(outcome, dict)
    assert outcome == {"success": [rows[0], rows[2], rows[4]], "failed": [rows[1], rows[3]]}
    assert [row.name for row in outcome["success"]] == ["a", "c", "d"]
    assert [row.id is None for row in rows] == [False, True, False, True, False]
    assert await stored_names(session) == ["a", "b", "c", "d"]


async def test_when_all_fail_the_answer_is_false(session: AsyncSession) -> None:
    """v0.1.0 returned a tuple there, which is true."""
    await insert_data_rows(heroes("a", "b"), session)
    rows = heroes("a", "b")
    assert await insert_data_rows(rows, session) == (False, {"success": [], "failed": rows})
    rows[0].name = "c"
    assert await insert_data_rows(rows[:1], session) == (True, rows[:1])


@pytest.mark.usefixtures("_hooks_change_nothing")
async def test_all_or_nothing_names_every_failing_row(session: AsyncSession) -> None:
    """No row is kept; the errors say what is wrong with each, without values."""
    await write_row(heroes("s3cret")[0], session)
    rows = [*heroes("a", "s3cret", "c", "a"), Hero(name="d", secret_name="?", team_id=10**6)]
    with pytest.raises(BulkOperationError, match="3/5 rows failed") as raised:
        await insert_data_rows(rows, session, raise_on_error=True)
    error = raised.value
    assert error.indexes == (1, 3, 4)
    assert error.failed_records == [rows[1], rows[3], rows[4]]
    kinds = [failure.kind for _, failure in error.errors]
    assert kinds == ["unique", "unique", "foreign_key"]
    assert "success rate 40.0%" in str(error)
    assert "s3cret" not in error.get_error_summary()
    assert error.__cause__ is not None
    assert {row.id for row in rows} == {None}
    assert not any(row in session for row in rows)
    assert await stored_names(session) == ["s3cret"]


@contextmanager
def before_flushes(session: AsyncSession, check: Callable[[set[str]], None]) -> Iterator[None]:
    """Call a check with the names of the new rows before each flush."""

    def listen(plain: Any, *_: Any) -> None:
        check({row.name for row in plain.new})

    event.listen(sync_session(session), "before_flush", listen)
    try:
        yield
    finally:
        event.remove(sync_session(session), "before_flush", listen)


async def test_rows_that_are_refused_just_together(session: AsyncSession) -> None:
    """No row is named, because each alone is accepted; none is kept."""

    def check(names: set[str]) -> None:
        if len(names) > 1:
            raise InvalidRequestError

    with before_flushes(session, check), pytest.raises(QueryExecutionError):
        await insert_data_rows(heroes("a", "b"), session, raise_on_error=True)
    assert await stored_names(session) == []


@pytest.mark.parametrize("names", [["bad"], ["a", "a", "bad"]])
async def test_what_a_listener_raises_comes_out(session: AsyncSession, names: list[str]) -> None:
    """From all rows together, and from one that is tried alone."""

    def check(new: set[str]) -> None:
        if new == {"bad"}:
            raise ListenerError

    with before_flushes(session, check), pytest.raises(ListenerError):
        await insert_data_rows(heroes(*names), session, raise_on_error=True)
    assert await stored_names(session) == []


async def test_a_database_that_goes_while_rows_are_tried(session: AsyncSession) -> None:
    """No row is blamed for it."""

    def check(names: set[str]) -> None:
        if names == {"b"}:
            raise ConnectionResetError

    with before_flushes(session, check), pytest.raises(DatabaseConnectionError):
        await insert_data_rows(heroes("a", "a", "b"), session, raise_on_error=True)
    assert await stored_names(session) == []


@pytest.mark.usefixtures("_hooks_change_nothing")
async def test_rows_can_be_inserted_again_after_a_failure(session: AsyncSession) -> None:
    """The keys that they were given are taken back, and are free for others."""
    rows = heroes("a", "b", "b")
    with pytest.raises(BulkOperationError):
        await insert_data_rows(rows, session, raise_on_error=True)
    await insert_data_rows(heroes("x", "y", "z"), session, raise_on_error=True)
    rows[2].name = "c"
    await insert_data_rows(rows, session, raise_on_error=True)
    assert await stored_names(session) == ["a", "b", "c", "x", "y", "z"]


async def test_a_refusal_undoes_the_block(session: AsyncSession) -> None:
    """Inside a block it is all or nothing, caught or not."""
    await write_row(heroes("b")[0], session)
    with pytest.raises(TransactionError) as raised:
        async with transaction(session):
            await write_row(Team(name="Gone"), session)
            await insert_data_rows(heroes("a", "b"), session)
    assert isinstance(raised.value.original_error, BulkOperationError)
    with pytest.raises(TransactionError, match="the database refused a statement"):
        async with transaction(session):
            with pytest.raises(BulkOperationError):
                await insert_data_rows(heroes("a", "b"), session)
    assert await stored_names(session) == ["b"]
    assert await get_rows(session, Team) == (False, [])


async def test_false_in_a_block_undoes_just_the_rows_that_failed(session: AsyncSession) -> None:
    """The block continues, and all returned rows can be read after it."""
    await write_row(heroes("b")[0], session)
    async with transaction(session):
        _, team = await write_row(Team(name="Kept"), session)
        any_inserted, outcome = await insert_data_rows(
            heroes("a", "b", "c", team_id=team.id), session, raise_on_error=False
        )
        assert any_inserted
        assert isinstance(outcome, dict)
        assert [row.name for row in outcome["success"]] == ["a", "c"]
        any_inserted, _ = await insert_data_rows(heroes("b"), session, raise_on_error=False)
        assert any_inserted is False
    assert [(row.name, row.team_id == team.id) for row in outcome["success"]] == [
        ("a", True),
        ("c", True),
    ]
    assert await stored_names(session) == ["a", "b", "c"]


async def test_rows_with_one_team_are_judged_alone(session: AsyncSession) -> None:
    """A refused row does not come back with the next one that has the same team."""
    await write_row(heroes("b")[0], session)
    _, team = await write_row(Team(name="Preventers"), session)
    _, outcome = await insert_data_rows(heroes("a", "b", "c", team=team), session)
    assert isinstance(outcome, dict)
    assert [row.name for row in outcome["success"]] == ["a", "c"]
    with pytest.raises(BulkOperationError) as raised:
        await insert_data_rows(heroes("d", "b", "e", team=team), session, raise_on_error=True)
    assert raised.value.indexes == (1,)
    assert await stored_names(session) == ["a", "b", "c"]


async def test_related_rows_come_along(session: AsyncSession) -> None:
    """New rows that several rows refer to are inserted once."""
    team, tag = Team(name="Preventers"), Tag(label="old")
    await insert_data_rows(heroes("a", "b", team=team, tags=[tag]), session, raise_on_error=True)
    assert len((await get_rows(session, Team))[1]) == 1
    assert len((await get_rows(session, Hero, tags__label="old"))[1]) == 2


async def test_server_defaults_can_be_read(session: AsyncSession) -> None:
    """After the commit too, and after rows were tried alone."""
    rows = [Setting(key=key) for key in ("a", "b", "a")]
    _, outcome = await insert_data_rows(rows, session)
    assert isinstance(outcome, dict)
    assert [(row.priority, row.state) for row in outcome["success"]] == [(5, "new")] * 2


@pytest.mark.parametrize("rows", ["ab", None, 5, [1], [Hero], [{"name": "a"}]])
async def test_what_is_no_list_of_rows_is_refused(session: AsyncSession, rows: Any) -> None:
    """Nothing is written, regardless of the flag."""
    with pytest.raises(ValidationError):
        await insert_data_rows(rows, session, raise_on_error=False)
    with pytest.raises(ValidationError, match="a row must be an instance of a SQLModel class"):
        await insert_data_rows([*heroes("a"), "b"], session)
    assert await stored_names(session) == []


async def test_a_row_of_another_session_is_refused(
    session: AsyncSession, session_factory: Any
) -> None:
    """Before anything is written."""
    rows = heroes("a")
    await insert_data_rows(rows, session_factory())
    with pytest.raises(ValidationError, match="belongs to another session"):
        await insert_data_rows([*heroes("b"), *rows], session)
    assert await stored_names(session) == ["a"]


async def test_rows_of_the_session_may_be_among_them(session: AsyncSession) -> None:
    """Even if they have expired."""
    _, row = await write_row(heroes("a")[0], session)
    session.expire_all()
    row.age = 5
    assert (await insert_data_rows([row, *heroes("b")], session))[0]
    assert row.age == 5


async def test_a_failing_commit_is_found_out(session: AsyncSession) -> None:
    """A constraint that is checked at commit: each row is tried alone, the keys are taken back."""
    if session.get_bind().dialect.name == "mysql":
        pytest.skip("MySQL has no deferred constraints")
    parent = Parent(name="p")
    await write_row(parent, session)
    rows = [DeferredChild(parent_id=key) for key in (parent.id, 10**6)]
    any_inserted, outcome = await insert_data_rows(rows, session)
    assert any_inserted
    assert outcome == {"success": rows[:1], "failed": rows[1:]}
    assert rows[1].id is None
    with pytest.raises(ConstraintViolationError) as raised:
        await insert_data_rows(rows[1:], session, raise_on_error=True)
    assert raised.value.kind == "foreign_key"
    assert rows[1].id is None


@pytest.mark.parametrize("expire", [True, False])
async def test_plain_sessions_of_both_settings(engine: AsyncEngine, expire: bool) -> None:
    """The rows can be read after partial failures too."""
    async with PlainSession(engine, expire_on_commit=expire) as session:
        _, outcome = await insert_data_rows(heroes("a", "a", "b"), session)
        assert isinstance(outcome, dict)
        assert [row.name for row in outcome["success"]] == ["a", "b"]
