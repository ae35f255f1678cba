"""Pages of rows with their selected fields."""

from __future__ import annotations

from typing import TypeVar

from sqlmodel_crud_utils._async.query_builder import AsyncQueryBuilder, page_after
from sqlmodel_crud_utils.ext.graphql.pages import Connection, Selected, connection_of
from sqlmodel_crud_utils.ext.graphql.selected_rows import selecting

T = TypeVar("T")


async def page(
    builder: AsyncQueryBuilder[T], selected: Selected, size: int, after: str | None, max_depth: int
) -> Connection[T]:
    """Return the selected parts of the page after a cursor."""
    builder = selecting(builder, selected.rows, max_depth)
    found = await page_after(builder, size, after) if selected.has_rows else None
    total = await builder.count() if selected.has_total else None
    return connection_of(found, total, is_later=after is not None)
