"""A Redis server on a free port that tests pause, empty and kill."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from redis import Redis
from redis.exceptions import RedisError

from tests import lacking

__all__ = ["OwnRedis", "own_redis"]


class OwnRedis:
    """The server.

    Attributes:
        url: Its URL.
    """

    def __init__(self, program: str) -> None:
        self._program = program
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port = listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self.start()

    def start(self) -> None:
        """Start the server without data, at the same address."""
        self._process = subprocess.Popen(
            [self._program, "--port", str(self._port), "--save", "", "--bind", "127.0.0.1"],
            stdout=subprocess.DEVNULL,
        )
        with Redis.from_url(self.url) as client:
            while not _answers(client):
                time.sleep(0.01)

    def kill(self) -> None:
        """Kill the server."""
        self._process.kill()
        self._process.wait()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause the server inside the block."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def keys(self) -> list[str]:
        """Return the stored keys."""
        with Redis.from_url(self.url) as client:
            return sorted(key.decode() for key in client.keys())

    def bytes_of(self, key: str) -> int:
        """Return the memory use of a key."""
        with Redis.from_url(self.url) as client:
            return client.memory_usage(key) or 0

    def forget(self) -> None:
        """Remove all keys and scripts."""
        with Redis.from_url(self.url) as client:
            client.flushall()
            client.script_flush()


def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False


@contextmanager
def own_redis() -> Iterator[OwnRedis]:
    """Run a Redis; if the program is missing, skip the test, or fail if CI is set."""
    program = shutil.which("redis-server")
    if program is None:
        (pytest.fail if "CI" in os.environ else pytest.skip)(lacking.REDIS)
    server = OwnRedis(program)
    try:
        yield server
    finally:
        server.kill()
