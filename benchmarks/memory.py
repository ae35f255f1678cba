"""The memory growth of a process that reads a stream."""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path

from benchmarks._async import streams as async_streams
from benchmarks._async.case import Side
from benchmarks._sync import streams as sync_streams
from benchmarks.databases import Database
from benchmarks.models import Sizes
from benchmarks.results import Result

OPERATION = "stream 200k rows: growth"
_MIB = 2**20


def run(
    database: Database,
    api: str,
    sizes: Sizes,
    wanted: Callable[[str], bool],
    report: Callable[[Result], None],
) -> None:
    """Measure each side in a new process, if selected."""
    if wanted(f"memory: {OPERATION}"):
        sides: tuple[Side, Side] = ("library", "by hand")
        ours, theirs = (
            _in_a_process(database.urls[api], api, side, sizes.stream) for side in sides
        )
        report(Result("memory", OPERATION, database.kind, api, "MiB", ours / _MIB, theirs / _MIB))


def growth(url: str, api: str, side: Side, rows: int) -> int:
    """Return the growth in bytes from the end of a short stream to the peak of a long one."""
    _read(url, api, side, rows // 100)
    before = _resident()
    peaks = [before]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.001):
            peaks.append(max(peaks.pop(), _resident()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        _read(url, api, side, rows)
    finally:
        done.set()
        watcher.join()
    return peaks[0] - before


def _in_a_process(url: str, api: str, side: Side, rows: int) -> int:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(growth, url, api, side, rows).result()


def _read(url: str, api: str, side: Side, rows: int) -> None:
    if api == "async":
        asyncio.run(async_streams.read(url, side, rows))
    else:
        sync_streams.read(url, side, rows)


def _resident() -> int:
    """Return this process's memory in bytes; on systems other than Linux, its peak."""
    with suppress(FileNotFoundError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
