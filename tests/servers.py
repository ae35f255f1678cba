"""A real server for the tests: uvicorn in a thread, on a free port of this machine."""

from __future__ import annotations

import asyncio
import inspect
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import httpx2
import uvicorn


@contextmanager
def served(app: Any, engine: Any) -> Iterator[httpx2.Client]:
    """Serve an application, and give a client that talks to it.

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
