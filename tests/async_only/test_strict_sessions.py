"""Strict sessions of the async API: loads that cannot be awaited are refused."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from pydantic import BaseModel, ValidationError as PydanticError
from sqlmodel import SQLModel

from sqlmodel_crud_utils.aio import get_row, session_factory, write_row
from sqlmodel_crud_utils.exceptions import RelationshipNotLoadedError
from tests._runtime_async import AsyncEngine, make_engine
from tests.bulk_models import Truck, Vehicle
from tests.databases import Database, prepare
from tests.models import Hero, Team


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """A plain engine."""
    engine = make_engine(database.async_url)
    prepare(engine)
    yield engine
    await engine.dispose()
    database.clear()


class TeamRead(SQLModel):
    """The model of a response."""

    name: str


class HeroRead(BaseModel):
    """The same, with a related row."""

    model_config = {"from_attributes": True}

    name: str
    team: TeamRead | None


async def test_the_error_in_place_of_missing_greenlet(engine: AsyncEngine) -> None:
    """By default; to await a load works as before."""
    async with session_factory(engine)() as session:
        await write_row(Hero(name="Ann", secret_name="?", team=Team(name="Owls")), session)
        session.expunge_all()
        _, hero = await get_row("Ann", session, Hero, pk_field="name")
        assert hero is not None
        with pytest.raises(RelationshipNotLoadedError, match=r"Hero\.team"):
            _ = hero.team
        with pytest.raises(PydanticError, match=r"Hero\.team is not loaded"):
            HeroRead.model_validate(hero)
        team = await session.run_sync(lambda _: hero.team)
        assert team.name == "Owls"


async def test_columns_that_have_expired(engine: AsyncEngine) -> None:
    """The text names them, and why."""
    async with session_factory(engine)() as session:
        _, hero = await write_row(Hero(name="Ann", secret_name="?"), session)
        await session.commit()
        with pytest.raises(RelationshipNotLoadedError, match=r"name.*commit"):
            _ = hero.name
        await session.refresh(hero)
        assert hero.name == "Ann"


async def test_columns_of_a_subclass(engine: AsyncEngine) -> None:
    """A read of the base class leaves them to later loads, unless their mapping says otherwise."""
    async with session_factory(engine)() as session:
        await write_row(Truck(id=1, name="a", load=7), session)
        session.expunge_all()
        _, truck = await get_row(1, session, Vehicle)
        assert isinstance(truck, Truck)
        with pytest.raises(RelationshipNotLoadedError, match=r"columns of Truck .*\(load\)"):
            _ = truck.load
        await session.refresh(truck)
        assert truck.load == 7
