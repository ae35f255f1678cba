"""The cache in forked processes: each has connections of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import cache_servers

PROGRAM = """
import os, sys
from threading import Event, Thread
from sqlalchemy import event
from sqlmodel import Field, Session, SQLModel, create_engine
from sqlmodel_crud_utils.sync import get_row, update_row, write_row
from sqlmodel_crud_utils.ext.cache import MemcachedCache, RedisCache, configure_cache

class Ware(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    stock: int

kind, port, file = sys.argv[1:]
make = {"redis": RedisCache, "memcached": MemcachedCache}[kind]
configure_cache(make(f"{kind}://127.0.0.1:{port}", timeout=5), ttl=60)
engine = create_engine(f"sqlite:///{file}", connect_args={"check_same_thread": False})
SQLModel.metadata.create_all(engine)

def stock(key):
    with Session(engine) as session:
        return get_row(key, session, Ware, raise_on_error=True, use_cache=True)[1].stock

with Session(engine) as session:
    for key in (1, 2):
        write_row(Ware(id=key, stock=0), session, raise_on_error=True)
assert stock(1) == stock(1) == 0

# A thread is in the middle of a read of the second row when the process forks.
begun, go_on = Event(), Event()
def hold(*_):
    begun.set()
    go_on.wait(30)
event.listen(engine, "before_cursor_execute", hold)
thread = Thread(target=stock, args=(2,))
thread.start()
begun.wait(30)
event.remove(engine, "before_cursor_execute", hold)
children = []
for number in range(3):
    child = os.fork()
    if child == 0:
        engine.dispose(close=False)
        try:
            from time import monotonic
            before = monotonic()
            stock(2)
            assert monotonic() - before < 0.9, "it waited for a thread of its parent"
            for turn in range(200):
                assert stock(1) is not None
            os._exit(0)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
    children.append(child)
for turn in range(200):
    assert stock(1) is not None
go_on.set()
thread.join()
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
with Session(engine) as session:
    update_row(1, {"stock": 5}, session, Ware)
assert stock(1) == 5
print("done")
"""


@pytest.mark.parametrize("kind", ["redis", "memcached"])
def test_forked_processes_share_no_connection(kind: str, tmp_path: Path) -> None:
    """Nor do they wait for a read that was running in the parent."""
    with getattr(cache_servers, kind)() as server:
        command = [sys.executable, "-W", "ignore", "-c", PROGRAM, kind, str(server.port)]
        done = subprocess.run(
            [*command, str(tmp_path / "wares.db")],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr
