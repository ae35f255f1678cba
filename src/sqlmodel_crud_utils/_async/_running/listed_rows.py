"""Writes to the rows with listed keys, one chunk of keys at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import select

from sqlmodel_crud_utils._async._running.chunked_writes import all_or_none, report_progress
from sqlmodel_crud_utils._async._running.fetching import fetch
from sqlmodel_crud_utils._async._running.hook_calls import hooks_of
from sqlmodel_crud_utils._async._running.operations import Write, run_or_raise
from sqlmodel_crud_utils._async._running.set_based_writes import write_set
from sqlmodel_crud_utils._async._running.settling import load_expired, reading_to_write
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.models.policies import Visibility
from sqlmodel_crud_utils._core.progress import Report, progress_to
from sqlmodel_crud_utils._core.queries.keys import Key, by_key_list
from sqlmodel_crud_utils._core.values.coercion import is_sql
from sqlmodel_crud_utils._core.writes.key_lists import KeyList, key_list_of
from sqlmodel_crud_utils._core.writes.table_writes import WriteKind
from sqlmodel_crud_utils._core.writes.updates import update_of
from sqlmodel_crud_utils._runtime_async import (
    AsyncSession,
    dialect_of,
    execute_writing,
    sync_session,
)
from sqlmodel_crud_utils._session.held_rows import held, synchronization

OneChunk = Callable[["ListedWrite", list[Key]], Any]


class ListedWrite(NamedTuple):
    """A write to listed rows."""

    write: Write
    listed: KeyList

    @property
    def by_row(self) -> bool:
        """Whether each row must be read and written individually."""
        return bool(self.write.hooks) or not self.write.facts.is_one_table

    async def in_chunks(
        self,
        one_chunk: OneChunk,
        chunk_size: int | None,
        progress: bool | Report | None,
        *,
        changing: Iterable[str] = (),
    ) -> int:
        """Write to all rows in one transaction, and return their number.

        Args:
            one_chunk: Writes to the rows of some keys, and counts them.
            chunk_size: The caller's number of keys in a chunk.
            progress: The caller's progress option.
            changing: The fields that are written.
        """
        session = self.write.session

        async def work() -> Sequence[Any]:
            await session.flush()
            rows = await self._fixed(chunk_size, changing)
            keys, done = rows.listed.keys, 0
            with (
                all_or_none(session),
                progress_to(progress, self.write.model.__name__, len(keys)) as report,
            ):
                for chunk in rows.listed.chunks(chunk_size):
                    await self.write.written(await one_chunk(rows, chunk))
                    done += len(chunk)
                    await report_progress(report, done, len(keys))
            return []

        async with self.write as write:
            write.batch = len(self.listed.keys)
            if self.listed.keys:
                await run_or_raise(write, work)
            return write.rows or 0

    async def _fixed(self, chunk_size: int | None, changing: Iterable[str]) -> ListedWrite:
        """Return the write with keys that it does not change.

        Otherwise a later chunk could match a row by the value that an earlier chunk has written.
        """
        listed = self.listed
        if listed.is_one_chunk(chunk_size) or set(listed.names).isdisjoint(changing):
            return self
        found: list[Key] = []
        for keys in listed.chunks(None):
            statement = select(*listed.facts.key_attributes).where(*listed.criteria(keys))
            found += map(tuple, (await execute_writing(self.write.session, statement)).all())
        names = listed.facts.key
        return self._replace(listed=listed._replace(names=names, keys=list(dict.fromkeys(found))))

    async def read(self, keys: list[Key]) -> list[Any]:
        """Return the rows of some keys, in the keys' order."""
        listed, visibility = self.listed, self.listed.visibility
        statement = by_key_list(listed.model, listed.names, keys, listed.dialect, visibility)
        async with reading_to_write(self.write.session):
            rows = await fetch(self.write.session, listed.model, statement, visibility=visibility)
        return listed.in_order(keys, rows)

    async def update(self, keys: list[Key], changes: dict[str, Any]) -> int:
        """Write the same values to the rows of some keys, and return their number."""
        session, listed = self.write.session, self.listed
        plain = sync_session(session)
        loaded = held(plain, listed.model) if any(map(is_sql, changes.values())) else []
        criteria = listed.criteria(keys)
        statement = update_of(listed.model, changes, criteria)
        options = synchronization(plain, listed.model)
        count = await write_set(session, listed.facts, statement, criteria, options)
        # Load what the database has computed, so that no lazy load is left.
        await load_expired(session, loaded)
        return count


def listed_write(
    session: AsyncSession,
    model: type[Any],
    name: str,
    operation: WriteKind,
    keys: Iterable[Any],
    pk_field: str | Sequence[str] | None,
    visibility: Visibility,
) -> ListedWrite:
    """Return a write to the rows in a caller's list of keys.

    Raises:
        UnknownFieldError: `pk_field` is not a column of the model.
        ValidationError: A key has a wrong type, or the keys are not a list.
    """
    facts = facts_of(model)
    dialect = dialect_of(session, facts)
    listed = key_list_of(facts, pk_field, keys, dialect, visibility)
    write = Write(
        session,
        facts,
        name,
        raise_on_error=True,
        hooks=hooks_of(model, operation),
        deletes=operation == "delete",
    )
    return ListedWrite(write, listed)
