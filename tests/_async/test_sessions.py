"""Every kind of session will do, and none of the other API."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from sqlalchemy.engine import make_url
from sqlmodel import select

from sqlmodel_crud_utils.aio import (
    delete_row,
    get_one_or_create,
    get_result_from_query,
    get_row,
    get_rows,
    get_rows_within_id_list,
    insert_data_rows,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import (
    DatabaseConnectionError,
    RecordNotFoundError,
    ValidationError,
)
from tests._runtime_async import AsyncEngine, AsyncSession, PlainSession, make_engine, scoped
from tests.models import Currency, Seat, Team


async def use(session: Any) -> None:
    """Call every function once."""
    _, team = await write_row(Team(name="Preventers"), session, raise_on_error=True)
    key = team.id
    _, rows = await insert_data_rows([Team(name="b"), Team(name="c")], session)
    assert [row.name for row in rows] == ["b", "c"]
    assert (await get_row(key, session, Team))[1] is team
    assert len((await get_rows(session, Team, name__ne="b"))[1]) == 2
    assert len((await get_rows_within_id_list([key], session, Team))[1]) == 1
    assert await get_result_from_query(select(Team).where(Team.name == "b"), session) is rows[0]
    _, team = await update_row(key, {"city": "Oslo"}, session, Team, raise_on_error=True)
    assert team.city == "Oslo"
    assert (await get_one_or_create(session, Team, name="b"))[1]
    async with transaction(session) as same:
        assert same is session
        await write_row(Team(name="d"), session)
    assert await delete_row(key, session, Team)


@pytest.mark.parametrize("expire", [True, False])
@pytest.mark.parametrize("kind", [AsyncSession, PlainSession])
async def test_sessions_of_sqlmodel_and_sqlalchemy(
    engine: AsyncEngine, kind: Any, expire: bool
) -> None:
    """With both settings of `expire_on_commit`."""
    async with kind(engine, expire_on_commit=expire) as session:
        await use(session)


async def test_scoped_sessions(engine: AsyncEngine) -> None:
    """The registry itself is passed."""
    registry = scoped(engine)
    await use(registry)
    await registry.remove()


def calls_with(session: Any) -> list[Callable[[], Any]]:
    """Return calls of the functions, each with this session."""
    return [
        lambda: write_row(Team(name="x"), session),
        lambda: insert_data_rows([Team(name="x")], session),
        lambda: get_row(1, session, Team),
        lambda: get_rows(session, Team),
        lambda: get_rows_within_id_list([1], session, Team),
        lambda: get_result_from_query(select(Team), session),
        lambda: update_row(1, {}, session, Team),
        lambda: delete_row(1, session, Team),
        lambda: get_one_or_create(session, Team, name="x"),
    ]


@pytest.mark.parametrize("thing", [None, 5, "session"])
async def test_what_is_no_session_is_refused(thing: Any) -> None:
    """Each function says what would be right."""
    for call in calls_with(thing):
        with pytest.raises(ValidationError, match=rf"must be an? \w+, not {type(thing).__name__}"):
            await call()


async def test_arguments_in_a_wrong_order(session: AsyncSession) -> None:
    """The text shows how the function is called."""
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: get_row(session, 1, Team), "int; call get_row(id_str, session_inst, model)"),
        (
            lambda: get_row(1, Team, session),
            "the class Team; call get_row(id_str, session_inst, model)",
        ),
        (lambda: get_rows(Team, session), "the class Team; call get_rows(session_inst, model)"),
        (
            lambda: update_row(1, session, {}, Team),
            "dict; call update_row(id_str, data, session_inst, model)",
        ),
        (
            lambda: write_row(session, Team(name="x")),
            "Team; call write_row(data_row, session_inst)",
        ),
        (
            lambda: get_one_or_create(Team, session, name="x"),
            "the class Team; call get_one_or_create(session_inst, model)",
        ),
    ]
    for call, text in calls:
        with pytest.raises(ValidationError) as refused:
            await call()
        assert str(refused.value).startswith("Validation failed for 'session': session_inst must")
        assert str(refused.value).endswith(f", not {text}")


@pytest.mark.parametrize(
    ("model", "key", "pk_field", "name"),
    [
        (Team, 7, None, "id"),
        (Team, "x", "name", "name"),
        (Team, "x", ["name"], "name"),
        (Seat, ("A", 1), None, ("row", "number")),
        (Seat, ("A", 1), ["row", "number"], ("row", "number")),
        (Currency, "EUR", None, "code"),
    ],
)
async def test_the_key_of_a_row_that_is_not_there(
    session: AsyncSession, model: type[Any], key: Any, pk_field: Any, name: Any
) -> None:
    """Every function reports the column as a name, several as a tuple."""
    for call in (
        partial(get_row, key, session, model, pk_field=pk_field, raise_on_error=True),
        partial(update_row, key, {}, session, model, pk_field, raise_on_error=True),
        partial(delete_row, key, session, model, pk_field, raise_on_error=True),
    ):
        with pytest.raises(RecordNotFoundError) as missing:
            await call()
        assert (missing.value.pk_field, missing.value.id_value) == (name, key)


async def test_an_unbound_session_is_refused() -> None:
    """Without a database, the call is a mistake and must not return a result."""
    async with AsyncSession() as session:
        for call in calls_with(session):
            with pytest.raises(ValidationError, match="not bound to an engine"):
                await call()


@pytest.mark.databases("postgresql", "mysql")
async def test_an_unreachable_database_is_never_not_found(database: Any) -> None:
    """Reads and strict writes raise, and many rows do; one row fails as a refused one does."""
    url = make_url(database.async_url).set(host="127.0.0.1", port=1, query={})
    engine = make_engine(url.render_as_string(hide_password=False))
    async with AsyncSession(engine) as session:
        reads = [
            lambda: get_row(1, session, Team),
            lambda: get_row(1, session, Team, raise_on_error=False),
            lambda: get_rows(session, Team),
            lambda: get_rows_within_id_list([1], session, Team),
            lambda: get_result_from_query(select(Team), session),
            lambda: update_row(1, {"city": "x"}, session, Team, raise_on_error=False),
            lambda: delete_row(1, session, Team, raise_on_error=False),
            lambda: get_one_or_create(session, Team, name="x"),
            lambda: write_row(Team(name="x"), session, raise_on_error=True),
            lambda: insert_data_rows([Team(name="x")], session, raise_on_error=True),
            # To name all rows as refused would be to blame the good ones.
            lambda: insert_data_rows([Team(name=f"{n}") for n in range(50)], session),
        ]
        for call in reads:
            with pytest.raises(DatabaseConnectionError):
                await call()
        assert await write_row(Team(name="x"), session) == (False, None)
    await engine.dispose()
