"""A read that may be answered from the cache."""

from __future__ import annotations

from typing import TypeVar

from sqlmodel_crud_utils._core import cached_reads
from sqlmodel_crud_utils._core.cached_reads import Question
from sqlmodel_crud_utils._core.observers import Call
from sqlmodel_crud_utils._runtime_async import Work

_R = TypeVar("_R")


async def answered(call: Call, question: Question | None, query: Work[_R]) -> _R:
    """Return the answer to a question from the cache, or else the result of a query.

    Args:
        call: The read, on which the cache notes what it did.
        question: The question; None if the cache is not to be used.
        query: Queries the database.
    """
    reads = cached_reads.registered
    if question is None or reads is None:
        return await query()
    found: _R = await reads.aio.answer(call, question, query)
    return found
