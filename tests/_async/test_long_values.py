"""Values that are more together than a MySQL server takes in one statement."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from sqlmodel_crud_utils.aio import (
    delete_rows_within_id_list,
    get_rows_within_id_list,
    insert_data_rows,
    transaction,
)
from tests._runtime_async import AsyncSession, execute, first_of
from tests.bulk_models import Everything

pytestmark = pytest.mark.databases("mysql")


@pytest.fixture
async def texts(session: AsyncSession) -> list[str]:
    """A few texts that are longer together than a statement may be."""
    most = first_of(await execute(session, text("SELECT @@max_allowed_packet")))
    await session.rollback()
    length = 1_500_000
    return [f"{n:03}" + "x" * length for n in range(most // length + 2)]


async def test_rows_with_long_texts_are_written_and_found_by_them(
    session: AsyncSession, texts: list[str]
) -> None:
    """Each statement is cut to what the server takes; all of them are one transaction."""
    rows = [Everything(text=each) for each in texts]
    async with transaction(session):
        written, _ = await insert_data_rows(rows, session)
        assert written
    session.expunge_all()
    _, found = await get_rows_within_id_list(texts, session, Everything, "text")
    assert {row.text for row in found} == set(texts)
    session.expunge_all()
    deleted = await delete_rows_within_id_list(texts, session, Everything, "text")
    assert deleted == (True, len(texts))
