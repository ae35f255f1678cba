"""The settings of an engine: numbers, drivers' options, the password, the pool's state."""

from __future__ import annotations

import math
import sqlite3
import sys
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import (
    AssertionPool,
    Engine,
    NullPool,
    QueuePool,
    SingletonThreadPool,
    StaticPool,
    create_engine,
    event,
    text,
)
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine

from sqlmodel_crud_utils import _runtime_async, _runtime_sync
from sqlmodel_crud_utils._core.connections.engine_settings import (
    SQLITE_BUSY_TIMEOUT,
    EnginePlan,
    build_engine,
    check_ping_after,
    check_pool_numbers,
    plan_engine,
)
from sqlmodel_crud_utils._session.engine_events import prepare_engine
from sqlmodel_crud_utils._session.engine_setup import status_of
from sqlmodel_crud_utils.exceptions import ValidationError

ASYNC = _runtime_async.DRIVERS
SYNC = _runtime_sync.DRIVERS
SECRET = "hunter2"
NUMBERS = {"pool_size": 5, "max_overflow": 10, "pool_timeout": 30}


def plan(
    url: str | URL, drivers: dict[str, str] = SYNC, password: Any = None, **options: Any
) -> EnginePlan:
    """A plan with the default numbers."""
    return plan_engine(url, drivers, NUMBERS, password, options)


def refused(url: str, password: Any = None, **options: Any) -> ValidationError:
    """The error for a plan that cannot be made."""
    with pytest.raises(ValidationError) as caught:
        plan(url, SYNC, password, **options)
    assert SECRET not in str(caught.value) + repr(vars(caught.value))
    return caught.value


class TestNumbers:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            *[("pool_size", value) for value in (0, -1, True, "5", 5.0, None)],
            *[("max_overflow", value) for value in (-2, False, "10", 1.5, None)],
            *[
                ("pool_timeout", value)
                for value in (0, -1, -0.5, float("nan"), float("inf"), True, "30", None)
            ],
        ],
    )
    def test_a_bad_number_is_refused_by_name(self, name: str, value: Any) -> None:
        """SQLAlchemy would take pool_size=0 for "no limit", and fail late on others."""
        with pytest.raises(ValidationError) as caught:
            check_pool_numbers(**{**NUMBERS, name: value})
        assert caught.value.field == name

    @pytest.mark.parametrize(
        "numbers", [(1, 0, 0.01), (5, -1, 30), (100, 1000, 3600)], ids=["least", "no limit", "many"]
    )
    def test_good_numbers_pass(self, numbers: tuple[int, int, float]) -> None:
        """No overflow, no limit and parts of a second are all fine."""
        check_pool_numbers(*numbers)

    @pytest.mark.parametrize("seconds", [-1, True, "1", None, math.nan])
    def test_a_rest_is_a_length_of_time(self, seconds: Any) -> None:
        """Anything else would never be reached, or always."""
        with pytest.raises(ValidationError) as caught:
            check_ping_after(seconds)
        assert caught.value.field == "pool_ping_after"

    @pytest.mark.parametrize("seconds", [0, 0.5, math.inf])
    def test_a_rest_may_be_none_or_endless(self, seconds: float) -> None:
        """So one is asked each time, or never."""
        check_ping_after(seconds)


class TestPool:
    def test_a_server_gets_a_queue_with_limits(self) -> None:
        """The queue's class is SQLAlchemy's choice, as it depends on the API."""
        arguments = plan("postgresql://host/db", ASYNC).arguments
        assert arguments == {
            "poolclass": None,
            "connect_args": {},
            "hide_parameters": True,
            **NUMBERS,
        }

    def test_sqlite_in_memory_gets_one_connection(self) -> None:
        """Each new connection would see an empty database of its own."""
        arguments = plan("sqlite://").arguments
        assert arguments == {
            "poolclass": StaticPool,
            "connect_args": {"check_same_thread": False},
            "hide_parameters": True,
        }

    def test_a_sqlite_file_gets_a_queue_and_a_busy_timeout(self) -> None:
        """A writer waits for another one instead of failing."""
        arguments = plan("sqlite:///a.db").arguments
        assert arguments["connect_args"] == {"timeout": SQLITE_BUSY_TIMEOUT}
        assert arguments["pool_size"] == 5

    def test_settings_in_a_sqlite_url_win(self) -> None:
        """SQLAlchemy lets connect_args win over the URL, which is not what its writer meant."""
        assert plan("sqlite:///a.db?timeout=2").arguments["connect_args"] == {}
        assert plan("sqlite://?check_same_thread=true").arguments["connect_args"] == {}

    def test_options_win(self) -> None:
        """The caller's options for SQLAlchemy are passed on."""
        arguments = plan("sqlite:///a.db", pool_pre_ping=False, echo=True).arguments
        assert arguments["pool_pre_ping"] is False
        assert arguments["echo"] is True

    @pytest.mark.parametrize(
        ("options", "hidden"),
        [
            ({}, True),
            ({"echo": False}, True),
            ({"echo": True}, False),
            ({"echo": "debug"}, False),
            ({"hide_parameters": False}, False),
            ({"echo": True, "hide_parameters": True}, True),
        ],
    )
    def test_parameters_are_hidden(self, options: dict[str, Any], hidden: bool) -> None:
        """From tracebacks, unless the caller wants to see statements."""
        assert plan("sqlite://", **options).arguments["hide_parameters"] is hidden

    def test_connect_args_are_merged(self) -> None:
        """Ours stay, the caller's win."""
        merged = plan("sqlite://", connect_args={"cached_statements": 5}).arguments["connect_args"]
        assert merged == {"check_same_thread": False, "cached_statements": 5}
        merged = plan("sqlite:///a.db", connect_args={"timeout": 1}).arguments["connect_args"]
        assert merged == {"timeout": 1}

    def test_connect_args_must_be_a_mapping(self) -> None:
        """A string would fail somewhere inside SQLAlchemy."""
        assert refused("sqlite://", connect_args=f"password={SECRET}").field == "connect_args"

    @pytest.mark.parametrize("kind", [NullPool, SingletonThreadPool])
    def test_a_pool_without_limits_gets_none(self, kind: Any) -> None:
        """They take no pool_timeout, and SQLAlchemy refuses what a pool doesn't take."""
        arguments = plan("sqlite:///a.db", poolclass=kind).arguments
        assert arguments.keys() == {"poolclass", "connect_args", "hide_parameters"}

    def test_an_api_brings_its_own_queue(self) -> None:
        """The caller's pool stays, and the one connection of a database in memory does."""
        assert plan("sqlite:///a.db").with_queue(QueuePool).arguments["poolclass"] is QueuePool
        assert plan("sqlite://").with_queue(QueuePool).arguments["poolclass"] is StaticPool
        chosen = plan("sqlite:///a.db", poolclass=NullPool).with_queue(QueuePool)
        assert chosen.arguments["poolclass"] is NullPool
        ready = StaticPool(lambda: sqlite3.connect(":memory:"))
        assert "poolclass" not in plan("sqlite://", pool=ready).with_queue(QueuePool).arguments

    def test_a_ready_pool_is_left_alone(self) -> None:
        """It has its settings already."""
        pool = StaticPool(lambda: sqlite3.connect(":memory:"))
        arguments = plan("sqlite://", pool=pool).arguments
        assert arguments.keys() == {"pool", "connect_args", "hide_parameters"}
        assert plan("sqlite://", pool=None).arguments["poolclass"] is StaticPool

    @pytest.mark.parametrize(
        "options",
        [{"no_such_option": 1}, {"future": False}, {"poolclass": "x"}, {"echo": "perhaps"}],
        ids=lambda options: next(iter(options)),
    )
    def test_what_sqlalchemy_refuses_is_a_validation_error(self, options: dict[str, Any]) -> None:
        """It is the caller's mistake."""
        with pytest.raises(ValidationError, match="SQLAlchemy refuses"):
            build_engine(create_engine, plan("sqlite:///a.db", **options))

    def test_a_bad_value_in_the_query_is_a_validation_error(self) -> None:
        """The driver's settings in the URL are converted when the engine is made."""
        with pytest.raises(ValidationError, match="has a value for connect_timeout"):
            build_engine(create_engine, plan("mysql://host/db?connect_timeout=soon"))


class TestPgBouncer:
    @pytest.mark.parametrize(
        ("driver", "names"),
        [
            (
                "asyncpg",
                {
                    *("statement_cache_size", "prepared_statement_cache_size"),
                    "prepared_statement_name_func",
                },
            ),
            ("psycopg", {"prepare_threshold"}),
            ("psycopg2", set()),
        ],
    )
    def test_nothing_is_prepared_for_later(self, driver: str, names: set[str]) -> None:
        """Each driver has its own settings; the caller's win."""
        url = f"postgresql+{driver}://app@localhost/heroes"
        planned = plan_engine(url, {"postgresql": driver}, NUMBERS, None, {}, pgbouncer=True)
        assert set(planned.arguments["connect_args"]) == names
        given = dict.fromkeys(names, 1)
        options = {"connect_args": given}
        planned = plan_engine(url, {"postgresql": driver}, NUMBERS, None, options, pgbouncer=True)
        assert planned.arguments["connect_args"] == given

    def test_names_are_never_the_same(self) -> None:
        """Two clients share a server connection, one after the other."""
        url = "postgresql+asyncpg://app@localhost/heroes"
        planned = plan_engine(url, ASYNC, NUMBERS, None, {}, pgbouncer=True)
        name = planned.arguments["connect_args"]["prepared_statement_name_func"]
        assert name() != name()

    @pytest.mark.parametrize("url", ["sqlite://", "mysql+pymysql://app@localhost/heroes"])
    def test_other_databases_are_refused(self, url: str) -> None:
        """It speaks PostgreSQL's protocol."""
        with pytest.raises(ValidationError, match="asyncpg, psycopg, psycopg2") as caught:
            plan_engine(url, SYNC, NUMBERS, None, {}, pgbouncer=True)
        assert caught.value.field == "pgbouncer"


class TestMissingDriver:
    @pytest.mark.parametrize(
        ("drivers", "url", "module", "extra"),
        [
            (SYNC, f"postgresql://ann:{SECRET}@host/db", "psycopg", "postgresql"),
            (SYNC, f"mysql://ann:{SECRET}@host/db", "pymysql", "mysql"),
            (SYNC, f"mariadb://ann:{SECRET}@host/db", "pymysql", "mysql"),
            (ASYNC, "sqlite://", "aiosqlite", "sqlite"),
            (ASYNC, f"postgresql://ann:{SECRET}@host/db", "asyncpg", "postgresql"),
            (ASYNC, f"postgresql+psycopg://ann:{SECRET}@host/db", "psycopg", "postgresql"),
            (ASYNC, f"mysql://ann:{SECRET}@host/db", "asyncmy", "mysql"),
        ],
    )
    def test_the_extra_is_named(
        self,
        drivers: dict[str, str],
        url: str,
        module: str,
        extra: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A missing driver is a mistake in the set-up; the text says what to install."""
        monkeypatch.setitem(sys.modules, module, None)
        wanted = plan(url, drivers)
        create = create_async_engine if drivers is ASYNC else create_engine
        with pytest.raises(ValidationError) as caught:
            build_engine(create, wanted)
        assert f"{module} cannot be imported" in str(caught.value)
        assert f'pip install "sqlmodel-crud-utils[{extra}]"' in str(caught.value)
        assert SECRET not in str(caught.value)
        assert isinstance(caught.value.__cause__, ImportError)

    def test_for_another_driver_the_plain_scheme_is_named_too(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The extras bring no psycopg2."""
        monkeypatch.setitem(sys.modules, "psycopg2", None)
        with pytest.raises(ValidationError, match=r"install it, or write plain postgresql://"):
            build_engine(create_engine, plan("postgresql+psycopg2://host/db"))


class TestPassword:
    """The password that reaches the driver; a listener stops the connection attempt."""

    def given_to_driver(self, wanted: EnginePlan) -> dict[str, Any]:
        """The arguments of the driver's connect."""
        engine = build_engine(create_engine, wanted)
        seen: dict[str, Any] = {}
        prepare_engine(engine, wanted, lambda source: source())

        @event.listens_for(engine, "do_connect")
        def stop(_dialect: Any, _entry: Any, _args: Any, parameters: dict[str, Any]) -> None:
            seen.update(parameters)
            raise ConnectionAbortedError

        with pytest.raises(ConnectionAbortedError):
            engine.connect()
        assert SECRET not in repr(engine) + repr(engine.url) + str(engine.url) + repr(wanted)
        return seen

    @pytest.mark.parametrize(
        "password",
        [SECRET, SecretStr(SECRET), lambda: SECRET, lambda: SecretStr(SECRET)],
        ids=["str", "SecretStr", "callable", "callable for a SecretStr"],
    )
    def test_it_is_added_to_the_url(self, password: Any) -> None:
        """A URL may leave it out."""
        seen = self.given_to_driver(plan("postgresql://ann@host/db", SYNC, password))
        assert seen["password"] == SECRET
        assert seen["user"] == "ann"

    def test_it_wins_over_the_url(self) -> None:
        """The argument is the more explicit one."""
        wanted = plan("postgresql://ann:old@host/db?password=older", SYNC, SECRET)
        assert self.given_to_driver(wanted)["password"] == SECRET

    def test_one_in_the_url_is_used(self) -> None:
        """The usual case."""
        wanted = plan(f"postgresql://ann:{SECRET}@host/db")
        assert self.given_to_driver(wanted)["password"] == SECRET

    @pytest.mark.parametrize(
        ("url", "key"),
        [
            (f"postgresql://ann@host/db?password={SECRET}", "password"),
            (f"mysql://ann@host/db?passwd={SECRET}", "password"),
            (f"postgresql://ann@host/db?sslpassword={SECRET}", "sslpassword"),
        ],
    )
    def test_one_in_the_query_is_used_and_hidden(self, url: str, key: str) -> None:
        """SQLAlchemy would show it in the repr of the engine."""
        assert self.given_to_driver(plan(url))[key] in (SECRET, SECRET.encode())

    def test_one_in_connect_args_wins_over_the_url(self) -> None:
        """As it does in SQLAlchemy."""
        wanted = plan("postgresql://ann:old@host/db", connect_args={"password": SECRET})
        assert self.given_to_driver(wanted)["password"] == SECRET

    def test_there_may_be_none(self) -> None:
        """A trusted user, or one whose password is in a file that the driver reads."""
        assert "password" not in self.given_to_driver(plan("postgresql://ann@host/db"))

    def test_a_callable_is_asked_each_time(self) -> None:
        """Tokens rotate."""
        tokens = iter(["one", "two"])
        wanted = plan("postgresql://ann@host/db", SYNC, lambda: next(tokens))
        assert self.given_to_driver(wanted)["password"] == "one"
        assert self.given_to_driver(wanted)["password"] == "two"

    def test_the_mysql_drivers_get_bytes(self) -> None:
        """They encode text as Latin-1: wrong for the server, and the error shows the password."""
        wanted = plan("mysql://ann@host/db", SYNC, "p€ss")
        assert self.given_to_driver(wanted)["password"] == "p€ss".encode()

    @pytest.mark.parametrize("password", [5, SECRET.encode(), [SECRET], object()])
    def test_another_type_is_refused(self, password: Any) -> None:
        """The text names the type, not the value."""
        assert type(password).__name__ in str(refused("postgresql://host/db", password))

    @pytest.mark.parametrize("answer", [None, 5, SECRET.encode()])
    def test_another_type_from_a_callable_is_refused(self, answer: Any) -> None:
        """It can only be found out at the connection."""
        wanted = plan("postgresql://ann@host/db", SYNC, lambda: answer)
        with pytest.raises(ValidationError, match=f"returned {type(answer).__name__}"):
            self.given_to_driver(wanted)

    @pytest.mark.parametrize("password", [f"{SECRET}\0", f"{SECRET}\ud800"])
    def test_text_that_no_driver_can_send_is_refused(self, password: str) -> None:
        """Their errors would carry all of it."""
        assert refused("postgresql://host/db", password).field == "password"

    def test_sqlite_has_none(self) -> None:
        """It would be ignored, and give false security."""
        assert "SQLite has no passwords" in str(refused("sqlite://", SECRET))

    @pytest.mark.parametrize("name", ["creator", "async_creator", "pool"])
    def test_what_connects_by_itself_takes_none(self, name: str) -> None:
        """It would be ignored as well."""
        assert f"{name}=" in str(refused("postgresql://host/db", SECRET, **{name: object()}))


class TestPragmas:
    def opened(self, url: str, **options: Any) -> Engine:
        """An engine that is set up."""
        wanted = plan(url, **options)
        engine = build_engine(create_engine, wanted)
        prepare_engine(engine, wanted, lambda source: source())
        return engine

    def test_a_file_that_cannot_be_changed_can_be_read(self, tmp_path: Any) -> None:
        """WAL mode would have to write into it."""
        file = tmp_path / "old.db"
        with sqlite3.connect(file) as connection:
            connection.execute("CREATE TABLE hero (id INTEGER)")
        connection.close()
        engine = self.opened(f"sqlite:///file:{file}?mode=ro")
        with engine.connect() as connection:
            assert connection.execute(text("SELECT count(*) FROM hero")).scalar() == 0
            assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
            assert connection.execute(text("PRAGMA journal_mode")).scalar() == "delete"
        engine.dispose()

    def test_a_driver_that_has_begun_a_transaction_is_interrupted(self) -> None:
        """With autocommit=False (Python 3.12) the pragmas would do nothing otherwise."""
        run: list[str] = []

        class Cursor:
            def execute(self, statement: str) -> None:
                run.append(statement)

            def close(self) -> None:
                run.append("closed")

        class Connection:
            cursor = Cursor

        engine = self.opened("sqlite:///a.db", connect_args={"autocommit": False})
        (set_pragmas, *_) = reversed(list(engine.pool.dispatch.connect))
        set_pragmas(Connection(), None)
        assert run == [
            "COMMIT",
            "PRAGMA foreign_keys = ON",
            "PRAGMA journal_mode = WAL",
            "BEGIN",
            "closed",
        ]


class TestStatus:
    def test_a_queue_tells_all(self) -> None:
        """Overflow is never negative, as SQLAlchemy has it before the pool is full."""
        engine = create_engine("sqlite://", poolclass=QueuePool, pool_size=1, max_overflow=1)
        assert status_of(engine.pool) == {
            "size": 1,
            "checked_in": 0,
            "checked_out": 0,
            "overflow": 0,
        }
        with engine.connect(), engine.connect():
            assert status_of(engine.pool) == {
                "size": 1,
                "checked_in": 0,
                "checked_out": 2,
                "overflow": 1,
            }
        assert status_of(engine.pool)["checked_in"] == 1
        engine.dispose()

    @pytest.mark.parametrize(("kind", "size"), [(StaticPool, 1), (SingletonThreadPool, 5)])
    def test_other_pools_that_keep_connections_tell_about_them(self, kind: Any, size: int) -> None:
        """To ask does not connect."""
        engine = create_engine("sqlite://", poolclass=kind)
        idle = {"size": size, "checked_in": 0, "checked_out": 0, "overflow": 0}
        assert status_of(engine.pool) == idle
        with engine.connect():
            assert status_of(engine.pool) == {**idle, "checked_out": 1}
        assert status_of(engine.pool) == {**idle, "checked_in": 1}
        engine.dispose()
        assert status_of(engine.pool) == idle

    @pytest.mark.parametrize("kind", [NullPool, AssertionPool])
    def test_a_pool_without_a_count_has_zeros(self, kind: Any) -> None:
        """It is never an error to ask."""
        engine = create_engine("sqlite://", poolclass=kind)
        with engine.connect():
            assert set(status_of(engine.pool).values()) == {0}
        engine.dispose()


class TestTwins:
    """The parts of the two runtimes that engines are made with."""

    def test_an_engine_of_the_other_api_is_refused(self) -> None:
        """Sessions on it would fail much later, and oddly; the text names the right API."""
        plain, other = create_engine("sqlite://"), create_async_engine("sqlite+aiosqlite://")
        assert _runtime_sync.require_engine(plain) is plain
        assert _runtime_async.require_engine(other) is other
        with pytest.raises(ValidationError, match=r"not Engine; .*sqlmodel_crud_utils\.sync"):
            _runtime_async.require_engine(plain)
        with pytest.raises(ValidationError, match=r"not AsyncEngine; .*sqlmodel_crud_utils\.aio"):
            _runtime_sync.require_engine(other)
        with pytest.raises(ValidationError, match="not one with an async driver"):
            _runtime_sync.require_engine(other.sync_engine)

    def test_a_coroutine_is_no_password_for_sync_code(self) -> None:
        """A plain callable that returns one can be found out only when it is asked."""

        async def token() -> str:
            return SECRET

        wanted = plan("postgresql://ann@host/db", SYNC, token)
        engine = build_engine(create_engine, wanted)
        prepare_engine(engine, wanted, _runtime_sync.ask)
        with pytest.raises(ValidationError, match="the callable returned coroutine"):
            engine.connect()
