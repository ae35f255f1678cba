"""Updating a row with values that the database works out."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import aliased

from sqlmodel_crud_utils.aio import get_row, transaction, update_row, write_row
from sqlmodel_crud_utils.exceptions import (
    ConflictError,
    ConstraintViolationError,
    ValidationError,
)
from sqlmodel_crud_utils.hooks import ValidateOnWrite, registered_hook
from sqlmodel_crud_utils.mixins import acting_as
from tests._async.rows import given, stored_rows
from tests._runtime_async import AsyncSession
from tests.bulk_models import Truck
from tests.crud_models import Careful, Product
from tests.models import Currency, Hero, Seat, Team
from tests.models_mixins import Counter, Letter, Parcel, Visit


async def test_the_row_comes_back_with_the_new_value(session: AsyncSession) -> None:
    """Whether the session holds the row or not."""
    await given(session, Product(id=1, sku="a", stock=9))
    updated, row = await update_row(1, {"stock": Product.stock - 1, "shelf": 3}, session, Product)
    assert updated
    assert row is not None
    assert (row.stock, row.shelf) == (8, 3)
    _, row = await get_row(1, session, Product)
    assert await update_row("1", {"stock": Product.stock - 1}, session, Product) == (True, row)
    assert row.stock == 7
    [stored] = await stored_rows(session, Product)
    assert (stored.stock, stored.shelf) == (7, 3)


async def test_it_is_atomic(session: AsyncSession, session_factory: Any) -> None:
    """It counts from what the database has, not from what the session remembers."""
    await given(session, Product(id=1, sku="a", stock=9))
    _, row = await get_row(1, session, Product)
    await session.commit()
    for other in (session_factory(), session_factory(), session):
        await update_row(1, {"stock": Product.stock - 1}, other, Product, raise_on_error=True)
    assert row.stock == 6


@pytest.mark.parametrize("raise_on_error", [None, False])
async def test_in_a_block(session: AsyncSession, raise_on_error: bool | None) -> None:
    """The new value can be used there, and is undone with the block."""
    await given(session, Product(id=1, sku="a", stock=9), Team(id=1, name="x"))
    async with transaction(session):
        changes = {"stock": Product.stock - 1, "state": func.upper("new")}
        _, row = await update_row(1, changes, session, Product, raise_on_error=raise_on_error)
        assert row is not None
        assert (row.stock, row.state) == (8, "NEW")
    assert (row.stock, row.state) == (8, "NEW")
    with pytest.raises(KeyError):
        async with transaction(session, wrap_errors=False):
            await update_row(1, {"stock": Product.stock - 1}, session, Product)
            raise KeyError
    [stored] = await stored_rows(session, Product)
    assert stored.stock == 8


async def test_with_hooks(session: AsyncSession) -> None:
    """They see the expression before, and the new value after; validation leaves it alone."""
    seen: list[Any] = []

    class Watch:
        def before_update(self, instance: Product, data: dict[str, Any]) -> None:
            seen.extend((instance.sku, data["stock"]))

        def after_update(self, instance: Product) -> None:
            seen.append(instance.stock)

    await given(session, Product(id=1, sku="a", stock=9))
    one_less = Product.stock - 1
    with registered_hook(Product, Watch()), registered_hook(Product, ValidateOnWrite()):
        await update_row(1, {"stock": one_less}, session, Product)
    assert seen[1] is one_less
    assert (seen[0], seen[2]) == ("a", 8)


async def test_with_versions_and_stamps(session: AsyncSession) -> None:
    """They count and stamp as for any update, and refuse what was changed meanwhile."""
    await given(session, Counter(id=1), Visit(id=1, place="a"), Parcel(code="p"))
    _, counter = await update_row(1, {"value": Counter.value + 5}, session, Counter)
    assert counter is not None
    assert (counter.value, counter.version) == (5, 2)
    _, visit = await update_row(1, {"place": func.lower("B")}, session, Visit)
    assert visit is not None
    assert visit.place == "b"
    assert visit.updated_at is not None
    with acting_as("alice"):
        changes = {"size": Parcel.size + 1}
        _, parcel = await update_row("p", changes, session, Parcel, "code", expected_version=1)
    assert parcel is not None
    assert (parcel.size, parcel.version, parcel.updated_by) == (2, 2, "alice")
    with pytest.raises(ConflictError):
        await update_row(
            "p", changes, session, Parcel, "code", expected_version=1, raise_on_error=True
        )


async def test_a_soft_deleted_row(session: AsyncSession) -> None:
    """It is not there, unless it is asked for."""
    await given(session, Letter(id=1, text="a", is_deleted=True))
    changes = {"text": func.upper(Letter.text)}
    assert await update_row(1, changes, session, Letter) == (False, None)
    _, row = await update_row(1, changes, session, Letter, include_deleted=True)
    assert row is not None
    assert row.text == "A"


async def test_subqueries_and_other_keys(session: AsyncSession) -> None:
    """An expression may be a whole query, and the key of any type."""
    await given(session, Product(id=1, sku="a", stock=9), Currency(code="EUR", name="Euro"))
    await given(session, Seat(row="A", number=1))
    most = select(func.max(Product.stock)).scalar_subquery()
    _, euro = await update_row("EUR", {"numeric": most}, session, Currency)
    assert euro is not None
    assert euro.numeric == 9
    _, seat = await update_row(("A", 1), {"guest": func.lower("ANN")}, session, Seat)
    assert seat is not None
    assert seat.guest == "ann"


async def test_a_value_that_the_database_refuses(session: AsyncSession) -> None:
    """It follows `raise_on_error`, and the returned row has the database's values."""
    await given(
        session, Hero(id=1, name="a", secret_name="?"), Hero(id=2, name="B", secret_name="")
    )
    changes = {"name": func.upper("b")}
    updated, row = await update_row(1, changes, session, Hero)
    assert not updated
    assert row is not None
    assert row.name == "a"
    with pytest.raises(ConstraintViolationError) as refused:
        await update_row(1, changes, session, Hero, raise_on_error=True)
    assert refused.value.kind == "unique"


@pytest.mark.parametrize(
    ("model", "key", "changes", "reason"),
    [
        (Hero, 1, {"id": func.abs(1)}, "primary key of Hero cannot be changed"),
        (Seat, ("A", 1), {"number": Seat.number + 0}, "primary key of Seat cannot be changed"),
        (Hero, 1, {"team": select(Team.id).scalar_subquery()}, "takes a Team row or None"),
        (Hero, 1, {"tags": func.now()}, "takes a list of Tag rows"),
    ],
)
async def test_keys_and_relationships_take_none(
    session: AsyncSession, model: type[Any], key: Any, changes: dict[str, Any], reason: str
) -> None:
    """A `ValidationError` names the field, and nothing is written."""
    await given(session, Hero(id=1, name="a", secret_name="?"), Seat(row="A", number=1))
    [name] = changes
    with pytest.raises(ValidationError, match=reason) as refused:
        await update_row(key, changes, session, model)
    assert refused.value.field == name


async def test_a_model_that_validates_assignments(session: AsyncSession) -> None:
    """An expression bypasses Pydantic, because it has no value yet."""
    await given(session, Careful(id=1, size=4))
    _, row = await update_row(1, {"size": Careful.size + 1}, session, Careful)
    assert row is not None
    assert row.size == 5


async def test_a_value_of_another_table_needs_a_subquery(session: AsyncSession) -> None:
    """An UPDATE that names another table would take any of its rows; nothing is written."""
    await given(
        session,
        *(Team(id=number, name=f"team {number}") for number in (1, 2, 3)),
        Hero(id=1, name="Ann", secret_name="?", age=7, team_id=3),
    )
    _, hero = await get_row(1, session, Hero)
    assert hero is not None
    for value in (Team.id, Team.id + Hero.age, aliased(Hero).age):
        with pytest.raises(ValidationError, match="give a subquery") as caught:
            await update_row(1, {"age": value}, session, Hero)
        assert caught.value.field == "age"
        hero.age = value
        with pytest.raises(ValidationError, match="read from"):
            await write_row(hero, session)
        await session.rollback()
    assert [hero.age for hero in await stored_rows(session, Hero)] == [7]
    own = select(Team.id).where(Team.id == Hero.team_id).scalar_subquery()
    _, row = await update_row(1, {"age": own}, session, Hero)
    assert row is not None
    assert row.age == 3


async def test_a_value_of_another_table_of_the_row_itself(session: AsyncSession) -> None:
    """With joined inheritance, the table of a base class is another one."""
    await given(session, Truck(id=1, name="a", load=1), Truck(id=2, name="b", load=2))
    _, row = await update_row(2, {"load": Truck.load + 1}, session, Truck)
    assert row is not None
    assert row.load == 3
    with pytest.raises(ValidationError, match=r"Truck\.load is read from vehicle, another"):
        await update_row(2, {"load": func.length(Truck.name)}, session, Truck)
