"""Cached reads: look up an entry, or else query once for all waiting callers and store it."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Literal

from sqlalchemy.orm import Session as PlainSession

from sqlmodel_crud_utils._async._running.fetching import remember_read
from sqlmodel_crud_utils._core.cached_reads import Question
from sqlmodel_crud_utils._core.connections.positions import use_primary
from sqlmodel_crud_utils._core.logs import get_logger
from sqlmodel_crud_utils._core.models.facts import Facts, facts_of
from sqlmodel_crud_utils._core.observers import Call
from sqlmodel_crud_utils._runtime_async import (
    AsyncSession,
    Signal,
    Work,
    dialect_of,
    event_loop,
    shielded,
    sync_session,
    wait_for,
    within,
)
from sqlmodel_crud_utils._session import cached_rows
from sqlmodel_crud_utils._session.routing import as_writing
from sqlmodel_crud_utils.ext.cache.answers import Reader, UnfitError, Writer, loaded_states
from sqlmodel_crud_utils.ext.cache.entries import Asked, Settings, asked_of, entry_of, made_entry
from sqlmodel_crud_utils.ext.cache.flights import Flight, Flights
from sqlmodel_crud_utils.ext.cache.permissions import may_fill, may_read
from sqlmodel_crud_utils.ext.cache.store_names import model_tokens, new_token
from sqlmodel_crud_utils.ext.cache.stored_values import DamagedError, UncacheableError

_PATIENCE = 1.0
"""For how many seconds a read waits for another, which may be waiting for its connection."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """The store's content for a read.

    Attributes:
        tokens: The tokens; None for each missing one.
        entry: The entry, or None.
    """

    tokens: list[bytes | None]
    entry: bytes | None


class Reads:
    """The cached reads of one API.

    Args:
        store: The store for entries.
        settings: The settings that both APIs share.
    """

    def __init__(self, store: Any, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._outages = settings.outages
        self._flights: Flights[Signal] = Flights(Signal)

    async def answer(self, call: Call, question: Question, query: Work[list[Any]]) -> list[Any]:
        """Return the answer to a question, from the cache or from a query."""
        call.cache = call.cache or "bypass"
        session: AsyncSession = call.session
        plain = sync_session(session)
        if self._outages.owes():
            await shielded(self.renew, ())
        if not self._outages.may_read() or not may_read(plain):
            return await query()
        asked = asked_of(plain, question, dialect_of(session, facts_of(question.model)))
        if asked is None:
            return await query()
        return await _Read(self, call, asked, query).run()

    async def invalidate(self, facts: Facts, key: Sequence[Any] | None) -> None:
        """Invalidate the entries of a model, or of one of its rows and all lists."""
        await shielded(self.renew, model_tokens(facts, key))

    async def renew(self, names: Iterable[str]) -> None:
        """Replace tokens by new ones, which invalidates all entries with the old ones."""
        renewed = {*names, *self._outages.take_owed()}
        if self._outages.may_renew():
            for _ in range(2):
                entries = {name: new_token() for name in renewed}
                if await self._tried("set_many", entries, self._settings.token_ttl) is not _FAILED:
                    return
            self._outages.pause_renewals()
        self._outages.owe(renewed)

    def renew_in_commit(self, names: Iterable[str]) -> None:
        """Renew tokens inside a session's commit, even if it is cancelled meanwhile."""
        wait_for(shielded(self.renew, names))

    # --- the store -------------------------------------------------------------------------------

    async def look(self, asked: Asked) -> _Seen | None:
        """Return the store's content for a read, or None if the store fails."""
        found = await self._tried("get_many", [asked.name, *asked.tokens])
        return None if found is _FAILED else _Seen(found[1:], found[0])

    async def tokens_for(self, asked: Asked, seen: _Seen) -> list[bytes] | None:
        """Return the tokens, adding missing ones; return None if another caller adds one first."""
        tokens: list[bytes] = []
        for name, token in zip(asked.tokens, seen.tokens, strict=True):
            if token is not None:
                tokens.append(token)
                continue
            made = new_token()
            if await self._tried("add", name, made, self._settings.token_ttl) is not True:
                return None
            tokens.append(made)
        return tokens

    async def keep(self, asked: Asked, entry: bytes) -> bool:
        """Store an entry; return whether the store has accepted it."""
        # Spread the expiry of entries that were made at the same time.
        longest = asked.question.ttl or self._settings.ttl
        ttl = longest * random.uniform(0.9, 1.0)  # noqa: S311 - needs no secrecy
        self._outages.keep_for(longest)
        return await self._tried("set_many", {asked.name: entry}, ttl) is True

    async def _tried(self, operation: str, *args: Any) -> Any:
        try:
            found = await within(self._store.timeout, getattr(self._store, operation), *args)
        except Exception as error:  # noqa: BLE001 - after any error, the database answers
            self._outages.failed(operation, error)
            return _FAILED
        self._outages.succeeded(operation)
        return found

    @property
    def flights(self) -> Flights[Signal]:
        """The reads in progress."""
        return self._flights


_FAILED = object()


class _Read:
    """A read that may be answered from the store."""

    def __init__(self, reads: Reads, call: Call, asked: Asked, query: Work[list[Any]]) -> None:
        self._reads = reads
        self._call = call
        self._session: AsyncSession = call.session
        self._plain: PlainSession = sync_session(call.session)
        self._asked = asked
        self._query = query

    async def run(self) -> list[Any]:
        flights, began = self._reads.flights, monotonic()
        key = (event_loop(), self._asked.name)
        is_certain = False
        while True:
            landed = flights.landed
            seen = await self._reads.look(self._asked)
            if seen is None:
                return await self._query()
            try:
                found = self._answered(seen)
            except UnfitError:
                return await self._query()
            if found is not None:
                self._note("hit")
                return found
            self._note("miss")
            flight, is_first = flights.join(key)
            if is_first:
                try:
                    if landed == flights.landed or is_certain:
                        return await self._queried(seen, flight)
                    is_certain = True  # another read may have stored the entry since the lookup
                finally:
                    flights.land(key)
                    flight.signal.give()
                continue
            left = began + _PATIENCE - monotonic()
            is_over = left > 0 and await flight.signal.wait(left)
            if not is_over or not (flight.is_stored or flight.has_failed):
                return await self._query()

    def _note(self, result: Literal["hit", "miss"]) -> None:
        """Note the result for observers; a call with several reads is a hit if all are."""
        self._call.cache = "miss" if self._call.cache == "miss" else result

    def _answered(self, seen: _Seen) -> list[Any] | None:
        """Return the store's answer, or None if it is missing, invalidated or damaged."""
        if seen.entry is None:
            return None
        asked = self._asked
        try:
            answer = entry_of(seen.entry, asked.name, seen.tokens)
            if answer is None:
                return None
            reader = Reader(self._plain, asked.dialect, asked.question, asked.types)
            found = reader.read(answer)
        except DamagedError:
            get_logger().warning("an entry of the cache is damaged; the database answers")
            return None
        question = asked.question
        remember_read(self._session, found, question.model, visibility=question.visibility)
        if reader.made:
            cached_rows.note(self._plain, reader.made)
        return found

    async def _queried(self, seen: _Seen, flight: Flight[Signal]) -> list[Any]:
        tokens = await self._reads.tokens_for(self._asked, seen)
        held = loaded_states(self._plain)
        with use_primary(), as_writing(self._plain):
            found = await self._query()
        flight.has_failed = False
        if tokens is not None and may_fill(self._plain):
            flight.is_stored = await self._kept(found, tokens, held)
        return found

    async def _kept(self, found: list[Any], tokens: list[bytes], held: Any) -> bool:
        asked = self._asked
        writer = Writer(asked.dialect, held, asked.question.form, asked.types)
        try:
            entry = made_entry(asked.name, tokens, writer.write(found))
        except UncacheableError:
            return False
        return await self._reads.keep(asked, entry)
