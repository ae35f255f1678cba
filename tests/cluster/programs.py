"""Programs that a test starts on loopback, in folders of their own, and kills."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_PLACES = [
    *(str(each) for each in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)),
    *("/usr/sbin", "/usr/bin", "/usr/local/bin"),
]


def found(program: str, package: str) -> str:
    """Return the path of a program; one that is missing is a failure that says what to install."""
    path = shutil.which(program, path=os.pathsep.join([*_PLACES, os.environ.get("PATH", "")]))
    assert path is not None, f"the tests of clusters need {program}: apt-get install {package}"
    return path


def user() -> str | None:
    """Return the user that runs the servers if the tests run as root, which servers refuse."""
    if os.geteuid() != 0:
        return None
    known = {each.pw_name for each in pwd.getpwall()}
    return next(name for name in ("postgres", "mysql", "nobody") if name in known)


@contextmanager
def folder() -> Iterator[Path]:
    """A folder that the servers may write to; not one of pytest's, which is root's alone."""
    path = Path(tempfile.mkdtemp(prefix="cluster-"))
    if name := user():
        shutil.chown(path, name)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def free_port() -> int:
    """Return a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def run(*command: Any) -> None:
    """Run a program to its end, as the user of the servers."""
    done = subprocess.run(
        [str(part) for part in command], user=user(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Program:
    """A server that can be killed and started again.

    Attributes:
        command: What starts it.
    """

    def __init__(self, command: Sequence[Any], log: Path) -> None:
        self.command = [str(part) for part in command]
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, in a group of processes of its own."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                user=user(),
                start_new_session=True,
            )

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """Kill it and all of its processes with SIGKILL, so that nothing is finished."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            _wait_until_empty(self._process.pid)

    def log(self) -> str:
        """Return the end of what it has logged."""
        return self._log.read_text(errors="replace")[-3000:]


def _wait_until_empty(group: int) -> None:
    while any(
        _group_of(entry) == group for entry in Path("/proc").iterdir() if entry.name.isdigit()
    ):
        time.sleep(0.01)


def _group_of(entry: Path) -> int | None:
    try:
        state, _, group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
    except OSError:
        return None
    return None if state == "Z" else int(group)


def wait_for(condition: Callable[[], bool], program: Program | None = None) -> None:
    """Wait until something is so, a minute at most; a program that ends meanwhile is a failure."""
    end = time.monotonic() + 60
    while not condition():
        if program is not None:
            assert program.is_running, program.log()
        assert time.monotonic() < end, "waited in vain" + (program.log() if program else "")
        time.sleep(0.02)
