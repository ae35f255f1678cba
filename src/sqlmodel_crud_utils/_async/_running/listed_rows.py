"""Writes to all rows whose keys are in a list, a chunk of keys at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel_crud_utils._async._running.fetching import fetch
from sqlmodel_crud_utils._async._running.hooks import Operation, hooks_of
from sqlmodel_crud_utils._async._running.operations import Write, insist
from sqlmodel_crud_utils._core.models.mapping import is_one_table
from sqlmodel_crud_utils._core.queries.keys import by_key_list
from sqlmodel_crud_utils._core.writes.key_lists import Key, KeyList, key_list_of
from sqlmodel_crud_utils._core.writes.updates import update_of
from sqlmodel_crud_utils._runtime_async import (
    AsyncSession,
    dialect_of,
    execute,
    sync_session,
)
from sqlmodel_crud_utils._session.held_rows import synchronization

OneChunk = Callable[[list[Key]], Any]


@dataclass(frozen=True, slots=True)
class ListedWrite:
    """A write to listed rows: how it runs, and which rows they are."""

    write: Write
    listed: KeyList

    @property
    def by_row(self) -> bool:
        """Whether each row has to be read, and written by itself."""
        return bool(self.write.hooks) or not is_one_table(self.write.model)

    async def in_chunks(self, chunk_size: int | None, one_chunk: OneChunk) -> int:
        """Write to all rows as one transaction, and return how many there were.

        Args:
            chunk_size: How many rows are written at once, as the caller wishes.
            one_chunk: Writes to the rows of some keys, and counts them.
        """
        count = 0

        async def work() -> Sequence[Any]:
            nonlocal count
            await self.write.session.flush()
            for keys in self.listed.chunks(chunk_size):
                count += await one_chunk(keys)
            return []

        if self.listed.keys:
            await insist(self.write, work)
        return count

    async def read(self, keys: list[Key]) -> list[Any]:
        """Return the rows of some keys, as these are listed."""
        listed, include_deleted = self.listed, self.listed.include_deleted
        statement = by_key_list(
            listed.model, listed.names, keys, listed.dialect, include_deleted=include_deleted
        )
        rows = await fetch(
            self.write.session, listed.model, statement, include_deleted=include_deleted
        )
        return listed.in_order(keys, rows)

    async def update(self, keys: list[Key], changes: dict[str, Any]) -> int:
        """Write the same values into the rows of some keys, and return how many there were."""
        session, listed = self.write.session, self.listed
        statement = update_of(listed.model, changes, listed.criteria(keys))
        options = synchronization(sync_session(session), listed.model)
        count: int = (await execute(session, statement, execution_options=options)).rowcount
        return count


def listed_write(
    session: AsyncSession,
    model: type[Any],
    name: str,
    operation: Operation,
    keys: Iterable[Any],
    pk_field: str | Sequence[str] | None,
    *,
    include_deleted: bool,
) -> ListedWrite:
    """Return a write to the rows that a caller's list of keys stands for.

    Raises:
        UnknownFieldError: `pk_field` is none of the model's columns.
        ValidationError: A key of a wrong type, no list of keys, or columns that are no unique key.
    """
    dialect = dialect_of(session, model)
    listed = key_list_of(model, pk_field, keys, dialect, include_deleted=include_deleted)
    write = Write(session, model, name, raise_on_error=True, hooks=hooks_of(model, operation))
    return ListedWrite(write, listed)
