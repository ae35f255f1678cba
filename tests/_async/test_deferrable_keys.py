"""Constraints that are checked later, which PostgreSQL takes for no ON CONFLICT."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext
from typing import Any

import pytest

from sqlmodel_crud_utils.aio import (
    QueryBuilder,
    bulk_insert_rows,
    bulk_upsert_mappings,
    get_one_or_create,
    insert_data_rows,
    write_row,
)
from sqlmodel_crud_utils.exceptions import ConstraintViolationError, ValidationError
from sqlmodel_crud_utils.hooks import registered_hook
from tests._runtime_async import AsyncEngine, AsyncSession, run_on_connection
from tests.constraint_models import PostgresBase, Shift, Turn

pytestmark = pytest.mark.databases("postgresql")


@pytest.fixture(autouse=True)
async def _tables(engine: AsyncEngine) -> AsyncIterator[None]:
    async with AsyncSession(engine) as session:
        await run_on_connection(session, PostgresBase.metadata.create_all)
        await session.commit()
    yield
    async with AsyncSession(engine) as session:
        await run_on_connection(session, PostgresBase.metadata.drop_all)
        await session.commit()


async def test_a_row_is_got_or_created(session: AsyncSession) -> None:
    """A missing one as well as an existing one."""
    row, existed = await get_one_or_create(session, Shift, {"place": 1}, name="a")
    assert (row.place, existed) == (1, False)
    row, existed = await get_one_or_create(session, Shift, {"place": 2}, name="a")
    assert (row.place, existed) == (1, True)


async def test_skipping_is_refused_with_a_reason(session: AsyncSession) -> None:
    """Before anything is written."""
    with pytest.raises(ValidationError, match="deferrable"):
        await bulk_insert_rows([{"name": "a"}], session, Shift, on_conflict="ignore")
    assert await bulk_insert_rows([{"name": "a"}], session, Shift) == 1


async def test_only_keys_that_are_checked_at_once_are_upserted_by(session: AsyncSession) -> None:
    """The others are refused with a reason."""
    assert (await write_row(Shift(name="a", place=1), session))[0]
    rows = [{"name": "a", "place": 2}, {"name": "b", "place": 3}]
    _, written = await bulk_upsert_mappings(rows, session, Shift, "name")
    assert [row.place for row in written] == [2, 3]
    with pytest.raises(ValidationError, match="deferrable"):
        await bulk_upsert_mappings(rows, session, Shift, "place")


WRITES: dict[str, Callable[[AsyncSession, Any], Any]] = {
    "write_row": lambda s, row: write_row(row, s, raise_on_error=True),
    "insert_data_rows": lambda s, row: insert_data_rows([row], s, raise_on_error=True),
    "several": lambda s, row: insert_data_rows([Turn(), row, Turn()], s, raise_on_error=True),
    "many": lambda s, row: insert_data_rows(
        [*(Turn() for _ in range(150)), row], s, raise_on_error=True
    ),
    "bulk_insert_rows": lambda s, row: bulk_insert_rows([row], s, Turn),
}


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize("write", WRITES)
async def test_what_fails_at_the_commit_names_its_field(
    session: AsyncSession, write: str, hooked: bool
) -> None:
    """By whichever function the row was written, with a hook or without."""
    await write_row(Turn(place=1), session, raise_on_error=True)
    hooks = registered_hook(Turn, Silent()) if hooked else nullcontext()
    with hooks, pytest.raises(ConstraintViolationError) as raised:
        await WRITES[write](session, Turn(place=1))
    assert (raised.value.kind, raised.value.field) == ("unique", "place")
    assert await QueryBuilder(session, Turn).count() == 1


class Silent:
    """A hook that changes nothing."""

    def before_create(self, instance: Any) -> None:
        """Do nothing."""
