"""Related rows of many parents at once, for resolvers that load them themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlmodel_crud_utils._async.query_builder import AsyncQueryBuilder
from sqlmodel_crud_utils._core.chunks import chunked
from sqlmodel_crud_utils._core.models.facts import Facts
from sqlmodel_crud_utils._core.queries.keys import among_keys
from sqlmodel_crud_utils._runtime_async import AnySession, dialect_of, require_session

_Key = tuple[Any, ...]
_PARENTS_PER_QUERY = 500  # like SQLAlchemy's selectin


async def related_rows(
    session: AnySession, facts: Facts, name: str, keys: Sequence[_Key]
) -> dict[_Key, Any]:
    """Return the related rows of the rows with these keys, and close the session."""
    opened = require_session(session)
    found: dict[_Key, Any] = {}
    async with opened:
        dialect = dialect_of(opened, facts)
        query = AsyncQueryBuilder(opened, facts.model).load_only(*facts.key).joined(name)
        for chunk in chunked(keys, _PARENTS_PER_QUERY):
            these = query.where(among_keys(facts.model, facts.key, chunk, dialect))
            for row in await these.all():
                found[tuple(getattr(row, each) for each in facts.key)] = getattr(row, name)
    return found
