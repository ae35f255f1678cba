"""Which engines replace dead connections; `test_lost_connections.py` tests the replacement."""

from __future__ import annotations

import asyncpg
import psycopg
import pymysql
import pytest
from sqlalchemy import create_engine

from sqlmodel_crud_utils._core.errors.driver_errors import is_cut_off
from sqlmodel_crud_utils._session.engine_events import replace_dead_connections


@pytest.mark.parametrize(("driver", "sends_again"), [("psycopg", True), ("other", False)])
def test_only_known_drivers_send_again(driver: str, sends_again: bool) -> None:
    """For other drivers it is unknown whether something was already sent."""
    engine = create_engine("postgresql+psycopg://host/db")
    engine.dialect.driver = driver
    replace_dead_connections(engine, 0.5)
    assert bool(engine.dialect.dispatch.do_execute) is sends_again  # type: ignore[attr-defined]
    assert bool(engine.pool.dispatch.checkout)


def test_sqlite_is_left_alone() -> None:
    """Its connections do not die."""
    engine = create_engine("sqlite://")
    replace_dead_connections(engine, 0.5)
    assert not engine.pool.dispatch.checkout


@pytest.mark.parametrize(
    ("error", "is_so"),
    [
        (psycopg.OperationalError("the connection is closed"), True),
        (psycopg.OperationalError("consuming input failed: server closed the connection"), True),
        (psycopg.OperationalError("sending query and params failed: no connection"), True),
        (psycopg.OperationalError("connection failed: Connection refused"), False),
        (psycopg.OperationalError("failed to resolve host 'sending failed'"), False),
        (psycopg.errors.AdminShutdown(), True),
        (psycopg.errors.UniqueViolation(), False),
        (pymysql.OperationalError(2013, "Lost connection"), True),
        (pymysql.OperationalError(2003, "Can't connect"), False),
        (ConnectionResetError(), True),
        (ConnectionRefusedError(), False),
        (asyncpg.InternalClientError("cannot switch to state 11"), True),
        (asyncpg.InternalClientError("no binary format encoder for type macaddr"), False),
        (asyncpg.ConnectionDoesNotExistError("closed in the middle of operation"), True),
    ],
    ids=repr,
)
def test_a_connection_that_was_there_is_told_from_one_that_could_not_be_made(
    error: Exception, is_so: bool
) -> None:
    """The first is tried again at once; the second would only cost time."""
    assert is_cut_off(error) is is_so
