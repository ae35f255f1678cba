"""Report to the cache a write that the library does not see."""

from __future__ import annotations

from typing import Any

from sqlmodel_crud_utils._async._running.operations import Operation
from sqlmodel_crud_utils._core import cached_reads
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.queries.keys import key_values

__all__ = ["invalidate_cache"]


async def invalidate_cache(model: type[Any], key: Any = None) -> None:
    """Invalidate a model's cache entries after a write that the library cannot see.

    Such a write is a `text()` statement, a statement on `session.connection()`, a trigger or
    cascade of the database, or the work of another program. Writes through the library or a session
    invalidate their entries automatically. The call acts at once, even inside a `transaction()`
    block, so call it after the commit. Without a configured cache it does nothing.

    Args:
        model: The table model whose rows were written.
        key: The primary key of the one row that was written, a tuple for a composite one; lists and
            counts are invalidated with it. Without a key, all entries of the model are.

    Raises:
        ValidationError: A class that is not a table model, or a key of a wrong type.

    Example:
        >>> await invalidate_cache(Hero)
        >>> await invalidate_cache(Hero, 1)
    """
    facts = facts_of(model)
    values = None if key is None else key_values(facts, facts.key, key)
    async with Operation(None, facts, "invalidate_cache"):
        if cached_reads.registered is not None:
            await cached_reads.registered.aio.invalidate(facts, values)
