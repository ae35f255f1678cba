"""Writes in chunks: all of them or none, with a progress report after each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlmodel_crud_utils._core.progress import Report, check_progress
from sqlmodel_crud_utils._runtime_async import (
    AsyncSession,
    call_hook,
    require_callable,
    sync_session,
)
from sqlmodel_crud_utils._session.blocks import block_of


@contextmanager
def all_or_none(session: AsyncSession) -> Iterator[None]:
    """Doom the current block after any error, because its transaction holds earlier chunks."""
    try:
        yield
    except BaseException as error:
        block = block_of(sync_session(session))
        if block is not None:
            block.doom(error)
        raise


def check_report(progress: Any) -> None:
    """Refuse a `progress` that cannot be called, before anything is written."""
    check_progress(progress)
    if callable(progress):
        require_callable(progress, "progress")


async def report_progress(report: Report | None, done: int, total: int | None) -> None:
    """Report how many rows are done, if the caller wants to know."""
    if report is not None:
        await call_hook(report, done, total)
