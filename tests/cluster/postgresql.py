"""A PostgreSQL primary with streaming standbys, and a PgBouncer in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from tests.cluster.programs import Program, folder, found, free_port, run, wait_for

_SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
fsync = off
wal_level = replica
hot_standby = on
wal_keep_size = 512MB
max_connections = 100
wal_receiver_status_interval = 1s
wal_retrieve_retry_interval = 100ms
max_standby_streaming_delay = 0
"""


class PostgreSQL:
    """One server.

    Attributes:
        url: Its address, for any driver.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        command = [found("postgres", "postgresql"), "-D", place, "-p", self.port]
        self.program = Program(command, place.with_suffix(".log"))

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.program.start()
        wait_for(self.answers, self.program)

    def answers(self) -> bool:
        """Return whether it answers."""
        try:
            self.ask("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def ask(self, statement: str) -> Any:
        """Return what a statement returns, its first value."""
        while True:
            # A standby ends a query that is in the way of what it has to repeat.
            with suppress(psycopg.errors.SerializationFailure):
                return self._asked(statement)

    def _asked(self, statement: str) -> Any:
        with psycopg.connect(self.url, autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement)
            row = cursor.fetchone() if cursor.description else None
        return None if row is None else row[0]

    def has_repeated(self, end: str) -> bool:
        """Return whether a standby has come to a place in the log."""
        return self.ask(f"SELECT pg_last_wal_replay_lsn() >= '{end}'") is True

    def pause(self) -> None:
        """Let a standby repeat nothing more."""
        self.ask("SELECT pg_wal_replay_pause()")
        wait_for(lambda: self.ask("SELECT pg_get_wal_replay_pause_state()") == "paused")

    def resume(self) -> None:
        """Let a standby go on."""
        self.ask("SELECT pg_wal_replay_resume()")


class Cluster:
    """A primary with two standbys."""

    def __init__(self, place: Path) -> None:
        self.primary = PostgreSQL(place / "primary")
        initdb = [found("initdb", "postgresql"), "-D", self.primary.place]
        run(*initdb, "-A", "trust", "-U", "postgres", "--no-sync")
        with (self.primary.place / "postgresql.conf").open("a") as settings:
            settings.write(_SETTINGS)
        self.standbys: list[PostgreSQL] = []

    def start(self) -> None:
        """Start all."""
        self.primary.start()
        for number in (1, 2):
            standby = PostgreSQL(self.primary.place.with_name(f"standby{number}"))
            backup = [found("pg_basebackup", "postgresql"), "-D", standby.place, "-R", "--no-sync"]
            source = ["-h", "127.0.0.1", "-p", self.primary.port, "-U", "postgres"]
            run(*backup, *source, "-X", "stream", "-c", "fast")
            self.standbys.append(standby)
            standby.start()

    def wait_until_equal(self) -> None:
        """Wait until the standbys have repeated all that is committed."""
        end = self.primary.ask("SELECT pg_current_wal_flush_lsn()")
        for standby in self.standbys:
            wait_for(partial(standby.has_repeated, end))

    def stop(self) -> None:
        """End all."""
        for server in (*self.standbys, self.primary):
            server.program.kill()


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Run a primary with its standbys, until the end."""
    with folder() as place:
        cluster = Cluster(place)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


class PgBouncer:
    """A PgBouncer in transaction mode, with few connections to its server.

    Attributes:
        url: Its address.
    """

    def __init__(self, place: Path, server: PostgreSQL, connections: int, user: str) -> None:
        port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        settings = place / "pgbouncer.ini"
        settings.write_text(
            f"""
[databases]
* = host=127.0.0.1 port={server.port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {connections}
max_client_conn = 500
server_login_retry = 1
"""
        )
        self.program = Program([found("pgbouncer", "pgbouncer"), settings], place / "pgbouncer.log")

    def answers(self) -> bool:
        """Return whether it answers."""
        try:
            with psycopg.connect(self.url, connect_timeout=5) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def running_pgbouncer(
    server: PostgreSQL, connections: int, user: str = "postgres"
) -> Iterator[PgBouncer]:
    """Run a PgBouncer in front of a server, until the end; all callers are one user there."""
    with folder() as place:
        bouncer = PgBouncer(place, server, connections, user)
        try:
            bouncer.program.start()
            wait_for(bouncer.answers, bouncer.program)
            yield bouncer
        finally:
            bouncer.program.kill()
