"""One row: found, or else created."""

from __future__ import annotations

import pytest

from sqlmodel_crud_utils.aio import (
    get_one_or_create,
    get_row,
    get_rows,
    insert_data_rows,
    transaction,
    write_row,
)
from sqlmodel_crud_utils.exceptions import (
    ConstraintViolationError,
    TransactionError,
    UnknownFieldError,
    ValidationError,
)
from tests._runtime_async import AsyncSession
from tests.models import Hero, Setting, Team


async def test_true_means_that_it_was_there(session: AsyncSession) -> None:
    """v0.1.0's order: the row, and whether it existed."""
    team, existed = await get_one_or_create(session, Team, {"city": "Oslo"}, name="Preventers")
    assert (team.city, existed) == ("Oslo", False)
    assert not session.in_transaction()
    again, existed = await get_one_or_create(session, Team, {"city": "Rome"}, name="Preventers")
    assert (again.city, existed) == ("Oslo", True)
    assert len((await get_rows(session, Team))[1]) == 1


async def test_further_values_win_and_are_coerced(session: AsyncSession) -> None:
    """Strings become the columns' types, in the search too."""
    values = {"age": "48", "name": "Rusty-Man"}
    hero, _ = await get_one_or_create(session, Hero, values, name="Rusty", secret_name="Tommy")
    assert (hero.name, hero.age) == ("Rusty-Man", 48)
    _, existed = await get_one_or_create(session, Hero, age="48")
    assert existed


async def test_of_several_rows_it_is_one(session: AsyncSession) -> None:
    """As in v0.1.0."""
    await insert_data_rows([Hero(name=name, secret_name="?", age=5) for name in "ab"], session)
    hero, existed = await get_one_or_create(session, Hero, age=5)
    assert (hero.age, existed) == (5, True)


async def test_relationships_are_searched_and_loaded(session: AsyncSession) -> None:
    """A to-one relationship is a value like others; selectin loads it."""
    _, team = await write_row(Team(name="Preventers"), session, raise_on_error=True)
    key = team.id
    hero, existed = await get_one_or_create(
        session, Hero, {"secret_name": "?"}, name="Rusty", team=team
    )
    assert (hero.team_id, existed) == (key, False)
    session.expunge_all()
    hero, existed = await get_one_or_create(session, Hero, None, True, "team", name="Rusty")
    assert existed
    assert hero.team is not None
    assert hero.team.name == "Preventers"


@pytest.mark.parametrize("flag", [None, False, True])
async def test_a_refusal_always_raises(session: AsyncSession, flag: bool | None) -> None:
    """As in v0.1.0; the session stays usable, and referenced rows are unchanged."""
    _, team = await write_row(Team(name="Preventers"), session, raise_on_error=True)
    await write_row(Hero(name="Rusty", secret_name="?"), session)
    with pytest.raises(ConstraintViolationError) as raised:
        await get_one_or_create(
            session, Hero, {"name": "Rusty", "team": team}, secret_name="s", raise_on_error=flag
        )
    assert raised.value.kind == "unique"
    assert (await write_row(Team(name="after"), session))[0]
    assert len((await get_rows(session, Hero))[1]) == 1


async def test_in_a_block_nothing_is_committed(session: AsyncSession) -> None:
    """A created row is undone with the block."""
    with pytest.raises(TransactionError):
        async with transaction(session):
            await get_one_or_create(session, Team, name="Gone")
            raise RuntimeError
    assert await get_rows(session, Team) == (False, [])
    async with transaction(session):
        team, _ = await get_one_or_create(session, Team, name="Kept")
    assert (await get_row(team.id, session, Team))[0]


async def test_server_defaults_can_be_read(session: AsyncSession) -> None:
    """After the commit too."""
    setting, _ = await get_one_or_create(session, Setting, key="theme")
    assert (setting.priority, setting.state, setting.scope) == (5, "new", "global")


async def test_mistakes_are_refused(session: AsyncSession) -> None:
    """Unknown names and values that do not fit; nothing is created."""
    with pytest.raises(UnknownFieldError, match="did you mean 'name'"):
        await get_one_or_create(session, Team, nmae="x")
    with pytest.raises(UnknownFieldError):
        await get_one_or_create(session, Team, {"nope": 1}, name="x")
    with pytest.raises(ValidationError):
        await get_one_or_create(session, Hero, {"age": "old"}, name="x")
    with pytest.raises(ValidationError, match="takes a Team row"):
        await get_one_or_create(session, Hero, team="x")
    assert await get_rows(session, Team) == (False, [])
