"""A server that requests passwords as PostgreSQL does, records them, and refuses them.

The tests' own servers trust all clients, and so would not refuse a password.
"""

from __future__ import annotations

import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_ENCRYPTION_REQUESTS = {80877103, 80877104}
_ASK_FOR_CLEARTEXT = b"R" + struct.pack("!ii", 8, 3)


@dataclass
class FakeServer:
    """The server's port, and the passwords that it received."""

    port: int
    passwords: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The URL without a password."""
        return f"postgresql://ann@127.0.0.1:{self.port}/heroes"


@contextmanager
def refusing_server() -> Iterator[FakeServer]:
    """Run a server that refuses every password."""
    with _Server(("127.0.0.1", 0), _Login) as server:
        server.told = FakeServer(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.told
        finally:
            server.shutdown()
            thread.join()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    told: FakeServer


class _Login(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        while (length := self._number()) and self._number() in _ENCRYPTION_REQUESTS:
            self.wfile.write(b"N")
        if not length:
            return
        self.rfile.read(length - 8)
        self.wfile.write(_ASK_FOR_CLEARTEXT)
        if self.rfile.read(1) != b"p":
            return
        password = self.rfile.read(self._number() - 4).removesuffix(b"\0")
        self.server.told.passwords.append(password.decode())
        fields = (b"SFATAL", b"VFATAL", b"C28P01", b'Mpassword authentication failed for "ann"')
        body = b"\0".join(fields) + b"\0\0"
        self.wfile.write(b"E" + struct.pack("!i", len(body) + 4) + body)

    def _number(self) -> int:
        """Read a number; return 0 if the client has disconnected."""
        data = self.rfile.read(4)
        return int.from_bytes(data, "big") if len(data) == 4 else 0
