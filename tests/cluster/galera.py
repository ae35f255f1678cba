"""A Galera cluster of three MariaDB nodes on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pymysql

from tests.cluster.programs import Program, folder, found, free_port, run, user, wait_for

_LIBRARIES = [
    Path("/usr/lib/galera/libgalera_smm.so"),
    Path("/usr/lib64/galera-4/libgalera_smm.so"),
    Path("/usr/lib/libgalera_smm.so"),
]
# A node that is killed is given up sooner than by default. An `inactive_timeout` of 2 s would make
# the cluster lose its quorum permanently.
_PROVIDER = "gcache.size=32M; evs.suspect_timeout=PT1S; evs.keepalive_period=PT0.3S"


class Node:
    """One node, a MariaDB server.

    Attributes:
        url: Its address, for any driver.
    """

    def __init__(self, place: Path, number: int) -> None:
        self.number = number
        self.place = place / f"node{number}"
        self.port, self.replication, self.catching_up = free_port(), free_port(), free_port()
        self.url = f"mysql://app@127.0.0.1:{self.port}/bank"
        self._log = place / f"node{number}.log"
        self.program: Program | None = None

    def install(self) -> None:
        """Create its files."""
        installer = found("mariadb-install-db", "mariadb-server")
        how = ["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]
        run(installer, "--no-defaults", f"--datadir={self.place}", *how)

    def start(self, address: str) -> None:
        """Start it as a member of a cluster; "gcomm://" begins a new one."""
        library = next((each for each in _LIBRARIES if each.exists()), None)
        assert library is not None, "the tests of clusters need Galera: apt-get install galera-4"
        provider = (
            f"gmcast.listen_addr=tcp://127.0.0.1:{self.replication}; "
            f"ist.recv_addr=127.0.0.1:{free_port()}; {_PROVIDER}"
        )
        options = [
            *(f"--datadir={self.place}", f"--socket={self.place}/sock", f"--port={self.port}"),
            *("--bind-address=127.0.0.1", "--skip-name-resolve", "--pid-file=pid"),
            *("--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=64M"),
            *("--innodb-log-file-size=16M", "--binlog-format=ROW"),
            "--default-storage-engine=InnoDB",
            *("--innodb-autoinc-lock-mode=2", "--max-connections=100"),
            *("--wsrep-on=ON", f"--wsrep-provider={library}", f"--wsrep-cluster-address={address}"),
            *("--wsrep-cluster-name=bank", f"--wsrep-node-name=node{self.number}"),
            *("--wsrep-node-address=127.0.0.1", "--wsrep-sst-method=rsync"),
            f"--wsrep-sst-receive-address=127.0.0.1:{self.catching_up}",
            f"--wsrep-provider-options={provider}",
        ]
        if name := user():
            options.append(f"--user={name}")
        self.program = Program(
            [found("mariadbd", "mariadb-server"), "--no-defaults", *options], self._log
        )
        self.program.start()

    @property
    def address(self) -> str:
        """The address for other nodes."""
        return f"127.0.0.1:{self.replication}"

    def ask(self, statement: str, name: str = "root") -> Any:
        """Return what a statement returns, its first row."""
        connection = pymysql.connect(
            host="127.0.0.1", port=self.port, user=name, connect_timeout=5, autocommit=True
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchone()

    def is_synced(self) -> bool:
        """Return whether it takes statements."""
        with suppress(pymysql.err.Error):
            state = self.ask("SHOW STATUS LIKE 'wsrep_local_state_comment'")
            return bool(state and state[1] == "Synced")
        return False

    def wait_until_synced(self) -> None:
        """Wait until it takes statements."""
        wait_for(self.is_synced, self.program)

    def kill(self) -> None:
        """End it with SIGKILL."""
        if self.program is not None:
            self.program.kill()


class Galera:
    """Three nodes that all accept writes."""

    def __init__(self, place: Path) -> None:
        self.nodes = [Node(place, number) for number in (1, 2, 3)]

    def start(self) -> None:
        """Start a new cluster, with an empty database."""
        for node in self.nodes:
            node.install()
        first, *others = self.nodes
        first.start("gcomm://")
        first.wait_until_synced()
        first.ask("CREATE DATABASE bank CHARACTER SET utf8mb4")
        first.ask("CREATE USER app@'127.0.0.1'")
        first.ask("GRANT ALL ON bank.* TO app@'127.0.0.1'")
        for node in others:
            self.join(node)

    def join(self, node: Node) -> None:
        """Start a node that belongs to the cluster, or was killed; wait until it has caught up."""
        others = ",".join(each.address for each in self.nodes if each is not node)
        node.start(f"gcomm://{others}")
        node.wait_until_synced()

    def stop(self) -> None:
        """End all."""
        for node in self.nodes:
            node.kill()


@contextmanager
def running_galera() -> Iterator[Galera]:
    """Run a cluster, until the end."""
    with folder() as place:
        cluster = Galera(place)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()
