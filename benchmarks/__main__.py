"""Run all groups: `python -m benchmarks [--quick]`."""

from __future__ import annotations

import asyncio
import sys

from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks import bulk, single_rows
from benchmarks.comparing import table
from benchmarks.models import databases, prepare, set_up

GROUPS = {"one at a time": single_rows.CASES, "many at a time": bulk.CASES}


async def run(share: float) -> None:
    """Print a table per database and group."""
    with databases() as found:
        for name, url in found.items():
            for title, cases in GROUPS.items():
                prepare(url)
                engine = create_async_engine(url)
                set_up(engine.sync_engine)
                await table(f"{name}, async: {title}", cases, engine, share)
                await engine.dispose()


if __name__ == "__main__":
    asyncio.run(run(0.3 if "--quick" in sys.argv else 1))
