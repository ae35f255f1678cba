"""Rate limits of several processes, which share one Redis."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.redis_servers import own_redis

PROCESSES, RATE, SECONDS = 4, 100, 2

PROGRAM = """
import sys
import time

from sqlmodel import Field, SQLModel

from sqlmodel_crud_utils.ext.rate_limits import RateLimiter, RateLimitExceededError
from sqlmodel_crud_utils.sync import create_pooled_engine, get_row, session_factory


class Event(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)


url, rate, seconds = sys.argv[1:]
engine = create_pooled_engine("sqlite://")
SQLModel.metadata.create_all(engine)
limiter = RateLimiter(url, on_failure="refuse", timeout=5)
passed = 0
with session_factory(engine)() as session:
    get_row(1, session, Event)
    limiter.limit(f"{rate}/second", Event)
    print("ready", flush=True)
    sys.stdin.readline()
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        try:
            get_row(1, session, Event)
            passed += 1
        except RateLimitExceededError:
            pass
limiter.close()
print(passed)
"""


@pytest.mark.databases("sqlite")
def test_processes_share_a_limit() -> None:
    """Together they get what one would: the rate at once, and then the rate for each second."""
    with own_redis() as server:
        arguments = [sys.executable, "-c", PROGRAM, server.url, str(RATE), str(SECONDS)]
        processes = [
            subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(PROCESSES)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            print(file=process.stdin, flush=True)
        passed = [int(process.communicate(timeout=60)[0]) for process in processes]
    expected = RATE * (1 + SECONDS)
    assert 0.9 * expected <= sum(passed) <= 1.1 * expected
    assert min(passed) > 0
