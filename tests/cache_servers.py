"""Redis and memcached servers that the tests start, kill, pause and fill."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import pytest

from sqlmodel_crud_utils._core import cached_reads
from tests import lacking


class Server:
    """A server that a test starts and stops.

    Args:
        command: The command that starts it; `PORT` is replaced by the port.

    Attributes:
        port: The port that it listens on.
    """

    def __init__(self, command: Sequence[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._command = [part.replace("PORT", str(self.port)) for part in command]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        if self._process is not None:
            return
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.01)
        raise AssertionError(f"{self._command[0]} did not start")

    def kill(self) -> None:
        """Kill the server, with all of its data."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause the server inside; it answers requests afterwards."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def tell(self, *words: str) -> None:
        """Send a command to Redis, and wait for its answer."""
        with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
            connection.sendall(" ".join(words).encode() + b"\r\n")
            assert connection.recv(100).startswith(b"+OK")


@contextmanager
def redis(*options: str) -> Iterator[Server]:
    """Run a Redis without persistence."""
    common = ["--port", "PORT", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with _running([_program("redis-server"), *common, *options]) as server:
        yield server


@contextmanager
def memcached(*options: str) -> Iterator[Server]:
    """Run a memcached."""
    user = ["-u", "nobody"] if os.getuid() == 0 else []
    common = ["-p", "PORT", "-l", "127.0.0.1", "-U", "0", *user]
    with _running([_program("memcached"), *common, *options]) as server:
        yield server


@contextmanager
def _running(command: Sequence[str]) -> Iterator[Server]:
    server = Server(command)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is not None:
        return found
    if "CI" in os.environ:
        raise LookupError(lacking.CACHES)
    pytest.skip(lacking.CACHES)


def is_read_under_way() -> bool:
    """Return whether a cached read is querying the database, so that others wait for it."""
    reads = cached_reads.registered
    assert reads is not None
    return any(each.flights._under_way for each in (reads.aio, reads.sync))
