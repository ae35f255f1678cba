"""Numbers in a URL, which asyncpg takes as numbers."""

from __future__ import annotations

import pytest
from sqlalchemy import make_url, text
from sqlmodel.ext.asyncio.session import AsyncSession

from sqlmodel_crud_utils.aio import create_pooled_engine
from sqlmodel_crud_utils.exceptions import ValidationError
from tests.databases import Database

NAMES = [
    *("command_timeout", "max_cacheable_statement_size", "max_cached_statement_lifetime"),
    *("prepared_statement_cache_size", "statement_cache_size", "timeout"),
]


@pytest.mark.databases("postgresql")
async def test_numbers_are_taken(database: Database) -> None:
    """All of them at once."""
    query = "&".join(f"{name}=20" for name in NAMES)
    # The address may have a query of its own: the folder of a Unix socket.
    url = make_url(database.async_url).update_query_string(query)
    engine = create_pooled_engine(url.render_as_string(hide_password=False))
    async with AsyncSession(engine) as session:
        assert await session.scalar(text("SELECT 1")) == 1
    await engine.dispose()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", ["s3cret", "-1", "nan"])
def test_others_show_when_the_engine_is_made(name: str, value: str) -> None:
    """A negative size would keep SQLAlchemy busy for ever at the first statement."""
    with pytest.raises(ValidationError, match=name) as caught:
        create_pooled_engine(f"postgresql+asyncpg://h/d?{name}={value}")
    assert value not in str(caught.value)
