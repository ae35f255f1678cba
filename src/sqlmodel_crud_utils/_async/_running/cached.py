"""A read that may be answered from the cache."""

from __future__ import annotations

from typing import TypeVar

from sqlmodel_crud_utils._core import cached_reads
from sqlmodel_crud_utils._core.cached_reads import Question
from sqlmodel_crud_utils._runtime_async import AsyncSession, Work

_R = TypeVar("_R")


async def answered(session: AsyncSession, question: Question | None, query: Work[_R]) -> _R:
    """Return the answer to a question, from the cache if it has it; else what a query returns.

    Args:
        session: The session to query with.
        question: What is asked for; None where the cache has no part in it.
        query: Queries the database.
    """
    reads = cached_reads.registered
    if question is None or reads is None:
        return await query()
    found: _R = await reads.aio.answer(session, question, query)
    return found
