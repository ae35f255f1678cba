"""`ext.alembic`: projects with migrations, from `alembic init` to an empty second autogenerate."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy
from alembic import command
from sqlalchemy import (
    Column,
    DateTime,
    Engine,
    Enum,
    Integer,
    MetaData,
    Table,
    create_engine,
    inspect,
    text,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from sqlmodel_crud_utils import aio, sync
from sqlmodel_crud_utils.exceptions import (
    ConstraintViolationError,
    MigrationLockError,
    SchemaMismatchError,
    ValidationError,
)
from sqlmodel_crud_utils.ext.alembic import backfill, check_schema, upgrade
from tests.databases import Database
from tests.migration_models import Base, Mixed, Sailor, Ship
from tests.migration_projects import Project, empty_database, revision


@pytest.fixture
def addresses(database: Database, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The sync and the async URL of a database without tables."""
    with empty_database(database, tmp_path) as found:
        yield found


@pytest.fixture
def url(addresses: tuple[str, str]) -> str:
    """The sync URL of a database without tables."""
    return addresses[0]


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """An engine for the database, which enforces foreign keys on SQLite."""
    engine = sync.create_pooled_engine(url)
    yield engine
    engine.dispose()


def value(engine: Engine, query: str) -> Any:
    """Return the result of a query."""
    with engine.connect() as connection:
        return connection.execute(text(query)).scalar()


def run(engine: Engine, *statements: str) -> None:
    """Run statements, and commit."""
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


# --- a newcomer's project ------------------------------------------------------------------------

MODELS = """
from sqlmodel import Field, Relationship, SQLModel
from sqlmodel_crud_utils.aio import create_pooled_engine
from sqlmodel_crud_utils.ext.history import TrackChangesMixin
from sqlmodel_crud_utils.mixins import *

class Team(SQLModel, AuditMixin, TenantMixin, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, max_length=100)

class Hero(SQLModel, TimestampMixin, SoftDeleteMixin, VersionMixin, TrackChangesMixin, table=True):
    __table_args__ = (unique_when_not_deleted("name"),)
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=100)
    team_id: int | None = Field(default=None, foreign_key="team.id")
"""
NEWCOMER = """
import sys
from pathlib import Path
from alembic.config import main

url = sys.argv[1]
main(["init", "migrations"])
lines = [
    "from models import SQLModel",
    "from sqlmodel_crud_utils.ext.alembic import run_migrations",
    "run_migrations(SQLModel.metadata)",
]
Path("migrations/env.py").write_text("\\n".join(lines))
ini = Path("alembic.ini").read_text()
Path("alembic.ini").write_text(ini.replace("driver://user:pass@localhost/dbname", url))
for command in sys.argv[2].split(";"):
    main(command.split())
"""


def newcomer(folder: Path, url: str, *commands: str) -> str:
    """Run Alembic commands in a process, as a newcomer does; return the output."""
    (folder / "models.py").write_text(MODELS)
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", NEWCOMER, url, ";".join(commands)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def test_from_init_to_an_empty_autogenerate(
    addresses: tuple[str, str], database: Database, tmp_path: Path
) -> None:
    """Three lines of env.py; with every mixin, on an async URL, and without showing a password."""
    shown = newcomer(
        tmp_path,
        addresses[1].replace("%", "%%"),
        "revision --autogenerate -m first",
        "upgrade head",
        "check",
        "revision --autogenerate -m second",
        "upgrade head",
        "upgrade head --sql",
        "downgrade base",
    )
    assert "No new upgrade operations detected" in shown
    assert "Running upgrade  -> " in shown
    assert "CREATE TABLE hero" in shown
    first, second = sorted(
        (tmp_path / "migrations/versions").glob("*.py"), key=lambda each: each.name[13:]
    )
    assert "def upgrade() -> None:\n" in second.read_text()
    assert "op." not in second.read_text().split("def upgrade")[1]
    written = first.read_text()
    assert "import sqlmodel.sql.sqltypes\n" in written
    assert "sqlmodel_crud_utils.mixins.UTCDateTime()" in written
    assert "server_default=sqlmodel_crud_utils.ext.alembic.UTCNow()" in written
    engine = create_engine(database.sync_url)
    engine.dispose()


def test_an_error_names_the_columns_of_a_constraint(
    url: str, engine: Engine, tmp_path: Path
) -> None:
    """Even if only the migrations know the constraint's name."""
    project = Project(tmp_path, url)
    (tmp_path / "migrations" / "versions" / "first.py").unlink()
    project.autogenerated("first")
    upgrade(project.config)
    (unique,) = inspect(engine).get_unique_constraints("ship")
    assert unique["name"] == "uq_ship_name"
    Base.metadata.naming_convention = MetaData().naming_convention
    with sync.session_factory(engine)() as session:
        ships = sync.Repository(session, Ship)
        ships.create(name="Beagle")
        with pytest.raises(ConstraintViolationError) as refused:
            ships.create(name="Beagle")
        assert refused.value.columns == ("name",)
        with pytest.raises(ConstraintViolationError) as refused:
            sync.Repository(session, Sailor).create(name="Charles", ship_id=99)
        assert refused.value.kind == "foreign_key"


# --- batches on SQLite ---------------------------------------------------------------------------

WIDEN = """with op.batch_alter_table("ship") as batch:
        batch.alter_column("name", type_=sa.String(60), existing_type=sa.String(50))"""
FILL = (
    "INSERT INTO ship (id, name) VALUES (1, 'Beagle')",
    "INSERT INTO sailor (id, name, ship_id) VALUES (1, 'Charles', 1), (2, 'Robert', 1)",
)


def test_a_batch_loses_no_row(url: str, engine: Engine, tmp_path: Path) -> None:
    """A parent table is copied, and its children stay; afterwards foreign keys are enforced."""
    project = Project(tmp_path, url)
    _use(project, engine)
    upgrade(project.config)
    run(engine, *FILL)
    project.add(second=revision("second", "first", WIDEN))
    upgrade(project.config)
    assert value(engine, "SELECT count(*) FROM sailor") == 2
    with pytest.raises(DBAPIError):
        run(engine, "INSERT INTO sailor (id, name, ship_id) VALUES (3, 'Syms', 99)")


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("failing", ["raise ZeroDivisionError", "op.execute('nonsense')"])
def test_foreign_keys_are_on_again_after_a_failure(url: str, tmp_path: Path, failing: str) -> None:
    """The connection returns to the pool unchanged, and nothing of the revision is kept."""
    engine = sync.create_pooled_engine(url, pool_size=1, max_overflow=0)
    project = Project(tmp_path, url)
    _use(project, engine)
    upgrade(project.config)
    run(engine, *FILL)
    project.add(second=revision("second", "first", f"{WIDEN}\n    {failing}"))
    with pytest.raises((ZeroDivisionError, DBAPIError)):
        upgrade(project.config)
    assert value(engine, "SELECT version_num FROM alembic_version") == "first"
    assert value(engine, "PRAGMA foreign_keys") == 1
    assert value(engine, "SELECT count(*) FROM sailor") == 2
    engine.dispose()


@pytest.mark.databases("sqlite")
def test_a_foreign_key_that_is_broken_is_an_error(url: str, engine: Engine, tmp_path: Path) -> None:
    """Rows that a revision deletes leave their children, so nothing is committed."""
    project = Project(tmp_path, url)
    upgrade(project.config)
    run(engine, *FILL)
    project.add(second=revision("second", "first", 'op.execute("DELETE FROM ship")'))
    with pytest.raises(ConstraintViolationError, match="2 rows of sailor without the rows of ship"):
        upgrade(project.config)
    assert value(engine, "SELECT count(*) FROM ship") == 1


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("settings", [{}, {"transaction_per_migration": True}])
def test_no_commit_breaks_a_foreign_key(
    url: str, engine: Engine, tmp_path: Path, settings: dict[str, bool]
) -> None:
    """A revision that commits before the end is checked before that commit."""
    project = Project(tmp_path, url)
    _use(project, engine, **settings)
    upgrade(project.config)
    run(engine, *FILL, "DELETE FROM sailor WHERE id = 2")
    project.add(second=revision("second", "first", 'op.execute("DELETE FROM ship")'))
    commits = 'with op.get_context().autocommit_block(): op.execute("SELECT 1")'
    project.add(third=revision("third", "second", commits))
    with pytest.raises(ConstraintViolationError, match="1 row of sailor without"):
        upgrade(project.config)
    assert value(engine, "SELECT count(*) FROM ship") == 1
    assert value(engine, "SELECT version_num FROM alembic_version") == "first"


# --- one upgrade at a time -----------------------------------------------------------------------

SLOW = (
    "time.sleep(0.3)\n    "
    + WIDEN
    + "\n    op.execute(\"INSERT INTO ship (id, name) VALUES (7, 'x')\")"
)
UPGRADE = """
import sys
from alembic.config import main
print("ready", flush=True)
sys.stdin.readline()
main(["-c", sys.argv[1], "upgrade", "head"])
"""


def started(project: Project) -> subprocess.Popen[str]:
    """Start a process that upgrades on request."""
    return subprocess.Popen(
        [sys.executable, "-c", UPGRADE, str(project.folder / "alembic.ini")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=project.environment,
    )


FOUR = """
import os, sys, traceback
import tests.migration_models, sqlmodel_crud_utils.sync, sqlmodel_crud_utils.ext.alembic
from alembic.config import main

def upgrade(number):
    log = os.open(f"{sys.argv[1]}/{number}.log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 2)
    try:
        main(["-c", f"{sys.argv[1]}/alembic.ini", "upgrade", "head"])
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)

children = [os.fork() or upgrade(number) for number in range(4)]
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


def test_four_processes_upgrade_at_once(url: str, engine: Engine, tmp_path: Path) -> None:
    """One upgrades, and three wait and find nothing to do."""
    project = Project(tmp_path, url, second=revision("second", "first", SLOW))
    ran = subprocess.run(
        [sys.executable, "-c", FOUR, str(tmp_path)],
        env=project.environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    logs = [(tmp_path / f"{number}.log").read_text() for number in range(4)]
    assert ran.stdout == "[0, 0, 0, 0]\n", logs
    upgraded = sorted("Running upgrade first -> second" in log for log in logs)
    assert upgraded == [False, False, False, True]
    assert value(engine, "SELECT count(*) FROM ship") == 1


def test_a_killed_holder_lets_go(url: str, engine: Engine, tmp_path: Path) -> None:
    """The waiting process then upgrades."""
    waiting = "open('waiting', 'w').close()\n    time.sleep(30)"
    project = Project(tmp_path, url, second=revision("second", "first", waiting))
    ready = tmp_path / "waiting"
    project.add(second=revision("second", "first", waiting.replace("'waiting'", repr(str(ready)))))
    holder = started(project)
    assert holder.stdin is not None
    holder.stdin.write("go\n")
    holder.stdin.flush()
    give_up_at = time.monotonic() + 30
    while not ready.exists() and time.monotonic() < give_up_at:
        assert holder.poll() is None, holder.communicate()
        time.sleep(0.02)
    project.add(second=revision("second", "first", SLOW))
    project.write_env("wait=0.2")
    with pytest.raises(MigrationLockError, match=r"did not finish within 0\.2 s"):
        upgrade(project.config)
    holder.kill()
    holder.communicate()
    project.write_env("wait=20")
    upgrade(project.config)
    assert value(engine, "SELECT count(*) FROM ship") == 1


def test_threads_queue_up(url: str, engine: Engine, tmp_path: Path) -> None:
    """They would share Alembic's module-level state."""
    project = Project(tmp_path, url, second=revision("second", "first", SLOW))
    failures: list[BaseException] = []

    def work() -> None:
        try:
            upgrade(project.config)
        except Exception as error:  # noqa: BLE001 - all of them are shown
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert value(engine, "SELECT count(*) FROM ship") == 1


async def test_where_a_loop_runs(
    addresses: tuple[str, str], engine: Engine, tmp_path: Path
) -> None:
    """In the lifespan of a service, with an async URL, or the service's async engine."""
    project = Project(tmp_path, addresses[1])
    upgrade(project.folder / "alembic.ini")
    assert value(engine, "SELECT version_num FROM alembic_version") == "first"
    for make in (create_async_engine, aio.create_pooled_engine):
        own = make(addresses[1])
        async with own.connect() as connection:
            await connection.execute(text("SELECT 1"))
        _use(project, own)
        upgrade(project.config)
        command.downgrade(project.config, "base")
        async with own.connect() as connection:
            await connection.execute(text("SELECT 1"))
        await own.dispose()


def _use(project: Project, engine: Any, **settings: object) -> None:
    """Let the project run with an engine of this process."""
    from tests import migration_models

    migration_models.ENGINES[:] = [engine]
    (project.folder / "migrations" / "env.py").write_text(
        "from tests.migration_models import Base, ENGINES\n"
        "from sqlmodel_crud_utils.ext.alembic import run_migrations\n"
        f"run_migrations(Base.metadata, engine=ENGINES[0], **{settings})\n"
    )


# --- lock_timeout --------------------------------------------------------------------------------


@pytest.mark.databases("postgresql", "mysql")
def test_ddl_gives_up_when_a_table_is_locked(url: str, engine: Engine, tmp_path: Path) -> None:
    """It does not limit the wait for another upgrading process."""
    project = Project(tmp_path, url, 'lock_timeout="1s"')
    upgrade(project.config)
    project.add(second=revision("second", "first", WIDEN))
    with engine.connect() as reader:
        reader.execute(text("SELECT * FROM ship"))
        with pytest.raises(DBAPIError, match=r"(?i)timeout"):
            upgrade(project.config)
    with _locked(engine):
        thread = threading.Timer(1.3, lambda: None)
        thread.start()
        project.write_env('lock_timeout="0.1s", wait=0.3')
        with pytest.raises(MigrationLockError):
            upgrade(project.config)
        thread.join()
    upgrade(project.config)


SESSION = {
    "postgresql": "SHOW lock_timeout",
    "mysql": "SELECT @@SESSION.lock_wait_timeout",
}


@pytest.mark.databases("postgresql", "mysql")
def test_a_limit_ends_with_the_transaction(url: str, engine: Engine, tmp_path: Path) -> None:
    """Statements outside a transaction, and the connection's next user, have no limit."""
    query = SESSION[engine.dialect.name]
    before = value(engine, query)
    seen = f"""seen = lambda: str(op.get_bind().scalar(sa.text("{query}")))
    limit = seen()
    with op.get_context().autocommit_block():
        assert seen() == "{before}"
    assert seen() == limit != "{before}\""""
    project = Project(tmp_path, url)
    project.add(second=revision("second", "first", seen))
    _use(project, engine, lock_timeout="2s")
    upgrade(project.config)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            connection = stack.enter_context(engine.connect())
            assert connection.scalar(text(query)) == before


@pytest.mark.databases("postgresql", "mysql")
def test_a_limit_of_nothing(url: str, engine: Engine, tmp_path: Path) -> None:
    """It is the database's shortest limit, instead of no limit."""
    project = Project(tmp_path, url, "lock_timeout=0")
    upgrade(project.config)
    project.add(second=revision("second", "first", WIDEN))
    with engine.connect() as reader:
        reader.execute(text("SELECT * FROM ship"))
        with pytest.raises(DBAPIError, match=r"(?i)timeout"):
            upgrade(project.config)


def test_a_limit_beyond_what_databases_can_hold(url: str, engine: Engine, tmp_path: Path) -> None:
    """It is the longest that they can hold, instead of none or an error."""
    project = Project(tmp_path, url, "wait=10**9, lock_timeout=10**9")
    upgrade(project.config)
    project.add(second=revision("second", "first", WIDEN))
    with engine.connect() as writer:
        writer.execute(text("INSERT INTO ship (name) VALUES ('x')"))
        ending = threading.Timer(0.3, writer.commit)
        ending.start()
        upgrade(project.config)
        ending.join()


@contextlib.contextmanager
def _locked(engine: Engine) -> Iterator[None]:
    """Hold the lock of an upgrade, like another process."""
    from sqlmodel_crud_utils.ext.alembic.locks import upgrade_lock

    with upgrade_lock(engine, 0):
        yield


@pytest.mark.databases("postgresql")
def test_an_index_that_is_built_concurrently(url: str, engine: Engine, tmp_path: Path) -> None:
    """It may wait for a transaction longer than `lock_timeout`."""
    concurrently = """with op.get_context().autocommit_block():
        op.create_index("ix_ship_name", "ship", ["name"], postgresql_concurrently=True)
    assert op.get_bind().scalar(sa.text("SHOW lock_timeout")) == "100ms\""""
    project = Project(tmp_path, url, 'lock_timeout="100ms"')
    upgrade(project.config)
    project.add(second=revision("second", "first", concurrently))
    with engine.connect() as writer:
        writer.execute(text("INSERT INTO ship (name) VALUES ('x')"))
        ending = threading.Timer(0.3, writer.commit)
        ending.start()
        upgrade(project.config)
        ending.join()
    assert value(
        engine, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_ship_name'::regclass"
    )


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("duration", ["5 hours", -1, None, True])
def test_a_duration_that_is_none(url: str, tmp_path: Path, duration: Any) -> None:
    """It is refused before anything is done."""
    project = Project(tmp_path, url, f"wait={duration!r}")
    with pytest.raises(ValidationError, match="for 'wait': must be a number of seconds"):
        upgrade(project.config)


# --- addresses, and --sql ------------------------------------------------------------------------


@pytest.mark.databases("sqlite")
def test_an_async_address_needs_no_sync_driver(tmp_path: Path) -> None:
    """Nothing of psycopg or PyMySQL is loaded."""
    program = """
import sys
for name in ("psycopg", "psycopg2", "pymysql", "MySQLdb"):
    sys.modules[name] = None
from alembic.config import Config, main
main(["-c", sys.argv[1], "upgrade", "head"])
assert "sqlmodel_crud_utils.sync" not in sys.modules
"""
    project = Project(tmp_path, f"sqlite+aiosqlite:///{tmp_path}/heroes.db")
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "alembic.ini")],
        env=project.environment, check=True,
    )  # fmt: skip


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (None, "is missing: set sqlalchemy.url"),
        ("postgresql://app:s3cret@@host/db", 'has more than one "@"'),
        ("postgresql+asyncpg://app:s3cret%40@host:port/db", "cannot be read"),
        ("oracle://app:s3cret@host/db", "not a supported database"),
    ],
)
@pytest.mark.usefixtures("database")
def test_no_error_shows_a_password(tmp_path: Path, url: str | None, problem: str) -> None:
    """Neither that of a malformed URL, nor that of an unreachable server."""
    project = Project(tmp_path, url or "driver://user:pass@localhost/dbname")
    with pytest.raises(ValidationError) as refused:
        upgrade(project.config)
    assert problem in str(refused.value)
    assert "s3cret" not in str(refused.value)


@pytest.mark.databases("sqlite")
@pytest.mark.usefixtures("database")
def test_a_percent_sign_in_alembic_ini(tmp_path: Path) -> None:
    """ConfigParser's own error quotes the password."""
    project = Project(tmp_path, "URL")
    ini = tmp_path / "alembic.ini"
    ini.write_text(ini.read_text().replace("URL", "postgresql://app:s3cret%40x@host/db"))
    project.set_url("")
    with pytest.raises(ValidationError, match="written as %%") as refused:
        upgrade(project.config)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


@pytest.mark.databases("sqlite")
@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    ("address", "limit"),
    [
        ("postgresql+asyncpg://app:s3cret@nowhere.invalid/db", "SET LOCAL lock_timeout = '5000ms'"),
        ("mysql://app:s3cret@nowhere.invalid/db", "SET SESSION lock_wait_timeout = 5"),
        ("sqlite:////nowhere/heroes.db", ""),
    ],
)
def test_sql_for_review(tmp_path: Path, address: str, limit: str) -> None:
    """With `--sql` there is no connection, no lock, and no password in the output."""
    project = Project(tmp_path, address, 'lock_timeout="5s"')
    project.config.output_buffer = io.StringIO()
    command.upgrade(project.config, "head", sql=True)
    written = project.config.output_buffer.getvalue()
    assert "CREATE TABLE ship" in written
    assert limit in written
    assert "s3cret" not in written
    assert "_lock(" not in written.lower()


@pytest.mark.databases("sqlite")
@pytest.mark.usefixtures("database")
def test_the_line_for_the_makefile(tmp_path: Path) -> None:
    """The output that the guide pipes into squawk contains only SQL."""
    project = Project(tmp_path, "postgresql+asyncpg://app:s3cret@nowhere.invalid/db")
    guide = (Path(__file__).parent.parent / "docs" / "migrations.md").read_text(encoding="utf-8")
    (tmp_path / "Makefile").write_text(guide.split("```make\n")[1].split("```")[0])
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "squawk").write_text("#!/bin/sh\ncat > read.sql\n")
    (programs / "alembic").write_text(f'#!/bin/sh\nexec {sys.executable} -m alembic "$@"\n')
    for each in programs.iterdir():
        each.chmod(0o755)
    environment = project.environment | {"PATH": f"{programs}:{os.environ['PATH']}"}
    subprocess.run(["make", "lint-migrations"], cwd=tmp_path, env=environment, check=True)
    read = (tmp_path / "read.sql").read_text()
    assert read.startswith("BEGIN;\n")
    assert "CREATE TABLE ship" in read
    assert read.rstrip().endswith("COMMIT;")


# --- columns of the mixins -----------------------------------------------------------------------

TABLES = ("stamped", "audited", "deletable", "versioned", "rented")
ADD = """add_timestamps(op, "stamped")
    add_audit(op, "audited")
    add_soft_delete(op, "deletable")
    add_version(op, "versioned")
    add_tenant(op, "rented", tenant="acme")"""
DROP = """drop_timestamps(op, "stamped")
    drop_audit(op, "audited")
    drop_soft_delete(op, "deletable")
    drop_version(op, "versioned")
    drop_tenant(op, "rented")"""


def test_the_columns_of_the_mixins(url: str, engine: Engine, tmp_path: Path) -> None:
    """On tables with rows; autogenerate finds no difference, and `drop_` removes them."""
    project = Project(tmp_path, url, "compare_server_default=True")
    project.add(
        second=revision("second", "first", "pass"), third=revision("third", "second", ADD, DROP)
    )
    env = tmp_path / "migrations" / "env.py"
    env.write_text(env.read_text().replace("Base", "Mixed"))
    upgrade(project.config, "second")
    run(engine, "DROP TABLE sailor", "DROP TABLE ship")
    for table in TABLES:
        run(engine, f"CREATE TABLE {table} (id INTEGER NOT NULL PRIMARY KEY)")
        run(engine, f"INSERT INTO {table} (id) VALUES (1)")
    upgrade(project.config)
    assert value(engine, "SELECT tenant_id FROM rented") == "acme"
    assert value(engine, "SELECT created_at FROM stamped") is not None
    assert value(engine, "SELECT version FROM versioned") == 1
    assert not value(engine, "SELECT is_deleted FROM deletable")
    check_schema(engine, Mixed.metadata, script_location=tmp_path / "migrations")
    _, lines = project.autogenerated("fourth")
    assert lines == ["pass"]
    command.downgrade(project.config, "second")
    for table in TABLES:
        described = inspect(engine)
        assert [each["name"] for each in described.get_columns(table)] == ["id"]
        assert described.get_indexes(table) == []
        assert value(engine, f"SELECT count(*) FROM {table}") == 1


def test_a_tenant_for_rows_that_exist(url: str, engine: Engine, tmp_path: Path) -> None:
    """Without rows no tenant is needed; with rows an error says what to write."""
    run(engine, "CREATE TABLE rented (id INTEGER NOT NULL PRIMARY KEY)")
    add = revision("second", "first", 'add_tenant(op, "rented")', 'drop_tenant(op, "rented")')
    project = Project(tmp_path, url, second=add)
    upgrade(project.config)
    command.downgrade(project.config, "first")
    run(engine, "INSERT INTO rented (id) VALUES (1)")
    with pytest.raises(ValidationError, match=r'add_tenant\(op, "rented", tenant="..."\)'):
        upgrade(project.config)
    assert value(engine, "SELECT version_num FROM alembic_version") == "first"


@pytest.mark.databases("sqlite")
@pytest.mark.usefixtures("database")
def test_sql_that_adds_a_tenant(tmp_path: Path) -> None:
    """It names the tenant of the existing rows."""
    project = Project(tmp_path, "postgresql://nowhere.invalid/db")
    project.add(second=revision("second", "first", 'add_tenant(op, "rented", tenant="acme")'))
    project.config.output_buffer = written = io.StringIO()
    command.upgrade(project.config, "first:second", sql=True)
    assert "UPDATE rented SET tenant_id='acme'" in written.getvalue()


# --- backfill ------------------------------------------------------------------------------------

BACKFILL = """sailor = sa.table("sailor", sa.column("id"), sa.column("age"))
    statement = sa.update(sailor).values(age=sailor.c.id % 7).where(sailor.c.age.is_(None))
    written = backfill(op, statement, by=sailor.c.id, size=10)
    assert written == EXPECTED, written"""


def test_a_backfill_goes_on_after_a_crash(url: str, engine: Engine, tmp_path: Path) -> None:
    """Chunks are committed, and finished ones are not touched again."""
    project = Project(tmp_path, url)
    upgrade(project.config)
    with engine.begin() as connection:
        for number in range(1, 36):
            connection.execute(text(f"INSERT INTO sailor (id, name) VALUES ({number}, 'x')"))
    if engine.dialect.name == "postgresql":
        _crash_at_25(engine)
        project.add(second=revision("second", "first", BACKFILL))
        with pytest.raises(DBAPIError, match="a crash"):
            upgrade(project.config)
        run(engine, "DROP TRIGGER crash ON sailor")
        expected = 15
    else:
        run(engine, "UPDATE sailor SET age = 1 WHERE id <= 20")
        expected = 15
    assert value(engine, "SELECT count(*) FROM sailor WHERE age IS NULL") == expected
    filled = BACKFILL.replace("EXPECTED", str(expected))
    project.add(second=revision("second", "first", filled))
    upgrade(project.config)
    assert value(engine, "SELECT count(*) FROM sailor WHERE age IS NULL") == 0
    assert value(engine, "SELECT age FROM sailor WHERE id = 35") == 0


def _crash_at_25(engine: Engine) -> None:
    run(
        engine,
        """CREATE FUNCTION crash() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.id = 25 THEN RAISE EXCEPTION 'a crash'; END IF; RETURN NEW; END $$""",
        "CREATE TRIGGER crash BEFORE UPDATE ON sailor FOR EACH ROW EXECUTE FUNCTION crash()",
    )


@pytest.mark.parametrize("kind", ["Uuid", "String(40)", "DateTime(True)"])
def test_a_backfill_by_another_key(url: str, engine: Engine, tmp_path: Path, kind: str) -> None:
    """Any type that the database can sort by."""
    keys = {
        "Uuid": [UUID(int=7**number) for number in range(23)],
        "String(40)": [f"{'aBcD'[number % 4]}{number}" for number in range(23)],
        "DateTime(True)": [datetime(2026, 1, 1, number, tzinfo=UTC) for number in range(23)],
    }
    thing = Table(
        "thing",
        MetaData(),
        Column("id", eval(kind, vars(sqlalchemy)), primary_key=True),
        Column("age", Integer),
    )
    thing.create(engine)
    with engine.begin() as connection:
        connection.execute(thing.insert(), [{"id": key} for key in keys[kind]])
    filling = f"""thing = sa.table("thing", sa.column("id", sa.{kind}), sa.column("age"))
    statement = sa.update(thing).values(age=7).where(thing.c.age.is_(None))
    assert backfill(op, statement, by=thing.c.id, size=10) == 23"""
    upgrade(Project(tmp_path, url, second=revision("second", "first", filling)).config)
    assert value(engine, "SELECT count(*) FROM thing WHERE age = 7") == 23


@pytest.mark.parametrize(
    ("statement", "by", "size", "problem"),
    [
        ("update(table).values(age=0)", "table.c.id", 1, "has no WHERE"),
        ("select(table.c.id)", "table.c.id", 1, "must be an update() or a delete(), not Select"),
        ("delete(table).where(table.c.age > 1)", "other.c.id", 1, "a column of the table"),
        ("delete(table).where(table.c.age > 1)", "table.c.id", 0, "1 or more"),
    ],
)
def test_what_is_no_backfill(statement: str, by: str, size: int, problem: str) -> None:
    """It is refused before anything is sent."""
    names = {
        "table": sqlalchemy.table("sailor", sqlalchemy.column("id"), sqlalchemy.column("age")),
        "other": sqlalchemy.table("ship", sqlalchemy.column("id")),
    }
    with pytest.raises(ValidationError) as refused:
        backfill(None, eval(statement, vars(sqlalchemy), names), by=eval(by, names), size=size)
    assert problem in str(refused.value)


# --- check_schema --------------------------------------------------------------------------------


async def test_a_schema_that_fits(addresses: tuple[str, str], engine: Engine) -> None:
    """In both APIs; objects that only the database has are not a difference."""
    Base.metadata.create_all(engine)
    run(
        engine,
        "CREATE TABLE unknown (id INTEGER)",
        "CREATE INDEX by_hand ON sailor (age)",
        "ALTER TABLE sailor ADD COLUMN rank_name VARCHAR(20)",
    )
    check_schema(engine, Base.metadata)
    own = create_async_engine(addresses[1])
    assert await check_schema(own, Base.metadata) is None
    await own.dispose()


async def test_every_difference_is_named(addresses: tuple[str, str], engine: Engine) -> None:
    """A table, a column, an index, NULL, a type, and a column that an INSERT needs."""
    run(
        engine,
        "CREATE TABLE sailor (id INTEGER NOT NULL PRIMARY KEY, name INTEGER, "
        "extra INTEGER NOT NULL, ship_id INTEGER)",
    )
    with pytest.raises(SchemaMismatchError) as found:
        check_schema(engine, Base.metadata)
    expected = {
        "table ship is missing",
        "column sailor.age is missing",
        "index ix_sailor_name on sailor is missing",
        "foreign key on sailor (ship_id) is missing",
        "column sailor.extra is not in the models, and an INSERT needs it",
        "column sailor.name may be NULL, but is NOT NULL in the models",
    }
    differences = set(found.value.differences)
    assert expected <= differences
    (kind,) = differences - expected
    assert kind.startswith("column sailor.name is INTEGER")
    own = create_async_engine(addresses[1])
    with pytest.raises(SchemaMismatchError) as found_again:
        await check_schema(own, Base.metadata)
    assert set(found_again.value.differences) == differences
    await own.dispose()


@pytest.mark.databases("postgresql")
def test_types_have_the_names_of_the_database(engine: Engine) -> None:
    """Other databases have one name for both types."""
    run(engine, "CREATE TABLE event (id INTEGER PRIMARY KEY, held_at TIMESTAMP WITH TIME ZONE)")
    models = MetaData()
    Table("event", models, Column("id", Integer, primary_key=True), Column("held_at", DateTime()))
    with pytest.raises(SchemaMismatchError) as found:
        check_schema(engine, models)
    (difference,) = found.value.differences
    assert difference == (
        "column event.held_at is TIMESTAMP WITH TIME ZONE, "
        "but TIMESTAMP WITHOUT TIME ZONE in the models"
    )


@pytest.mark.databases("postgresql", "mysql")
def test_an_enum_that_lacks_members(engine: Engine) -> None:
    """An INSERT of them would fail. PostgreSQL may have further ones."""

    def models(*members: str) -> MetaData:
        found = MetaData()
        column = Column("rank", Enum(*members, name="rank"))
        Table("officer", found, Column("id", Integer, primary_key=True), column)
        return found

    models("mate", "captain").create_all(engine)
    check_schema(engine, models("mate", "captain"))
    with pytest.raises(SchemaMismatchError, match=r"column officer\.rank is .*admiral"):
        check_schema(engine, models("mate", "captain", "admiral"))
    if engine.dialect.name == "postgresql":
        check_schema(engine, models("captain"))


@pytest.mark.databases("sqlite")
def test_a_database_that_is_not_at_head(url: str, engine: Engine, tmp_path: Path) -> None:
    """It is reported if the folder of the migrations is given."""
    Base.metadata.create_all(engine)
    project = Project(tmp_path, url)
    with pytest.raises(SchemaMismatchError, match="at revision none, not at head first"):
        check_schema(engine, Base.metadata, script_location=tmp_path / "migrations")
    command.stamp(project.config, "head")
    check_schema(engine, Base.metadata, script_location=tmp_path / "migrations")
    with pytest.raises(ValidationError, match="an Engine or an AsyncEngine, not str"):
        check_schema(url, Base.metadata)  # type: ignore[call-overload]
