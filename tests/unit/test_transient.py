"""Which errors let a transaction run again, and when it does."""

from __future__ import annotations

import sqlite3
from typing import Any

import asyncpg
import psycopg
import pymysql.err
import pytest
from sqlalchemy import exc
from sqlalchemy.orm.exc import StaleDataError

from sqlmodel_crud_utils._core.errors import retry_delays
from sqlmodel_crud_utils._core.errors.retry_delays import Retries, retries_for
from sqlmodel_crud_utils._core.errors.transient import cause_of
from sqlmodel_crud_utils.exceptions import (
    ConflictError,
    ConstraintViolationError,
    DatabaseConnectionError,
    QueryExecutionError,
    RecordNotFoundError,
    TransactionError,
    ValidationError,
)


def sqlite(code: int) -> sqlite3.Error:
    """An error of SQLite's driver."""
    error = sqlite3.OperationalError("?")
    error.sqlite_errorcode = code
    error.sqlite_errorname = "SQLITE_X"
    return error


def postgresql(state: str) -> Exception:
    """An error of a PostgreSQL."""
    error = asyncpg.PostgresError("?")
    error.sqlstate = state
    return error


def mysql(number: int, text: str = "?") -> Exception:
    """An error of a MySQL."""
    return pymysql.err.OperationalError(number, text)


def wrapped(original: Exception, sql: str | None = "X") -> exc.DBAPIError:
    """SQLAlchemy's error around it."""
    return exc.OperationalError(sql, None, original)


RACES = [
    *(postgresql("40001"), postgresql("40P01")),
    *(mysql(1213), mysql(1205), mysql(1020), mysql(1047), mysql(1180)),
    mysql(1305, "SAVEPOINT sa_savepoint_1 does not exist"),
    *(sqlite(517), sqlite(5), sqlite(261)),
]


@pytest.mark.parametrize("original", RACES, ids=str)
def test_races(original: Exception) -> None:
    """The driver's error is recognized inside any other error."""
    failure = QueryExecutionError("?", original_error=wrapped(original, None))
    by_user = RuntimeError()
    by_user.__cause__ = TransactionError(original_error=failure)
    for error in (original, wrapped(original, None), failure, by_user):
        assert cause_of(error) == "race"


@pytest.mark.parametrize(
    ("statement", "expected"), [("BEGIN IMMEDIATE", "race"), (None, "race"), ("INSERT", None)]
)
def test_a_locked_file(statement: str | None, expected: str | None) -> None:
    """At the begin and the end another program has the lock; in between this one has it."""
    assert cause_of(wrapped(sqlite(5), statement)) == expected


@pytest.mark.parametrize(
    "error",
    [
        *(postgresql("55P03"), postgresql("57014"), postgresql("23505"), postgresql("25006")),
        *(mysql(3572), mysql(1062), mysql(1305), mysql(2003)),
        *(sqlite(6), sqlite(8), sqlite(1555)),
        *(psycopg.OperationalError("timeout expired"), exc.TimeoutError(), exc.ArgumentError()),
        *(OSError(), ConnectionResetError(), TimeoutError(), ValueError()),
        *(ValidationError("?"), RecordNotFoundError("Hero", 1), DatabaseConnectionError("?")),
        ConstraintViolationError("?", kind="unique"),
        DatabaseConnectionError("?", original_error=exc.TimeoutError()),
        DatabaseConnectionError("?", original_error=ConnectionRefusedError()),
        ConflictError("Hero", 1, version_given=True),
        exc.PendingRollbackError("?"),
        ExceptionGroup("?", [postgresql("40001")]),
    ],
    ids=repr,
)
def test_final_errors(error: Exception) -> None:
    """Another attempt would meet them again, or they say nothing about the database."""
    assert cause_of(error) is None
    assert cause_of(TransactionError(original_error=error)) is None


@pytest.mark.parametrize(
    "error",
    [
        *(postgresql("57P01"), mysql(2013), mysql(1927)),
        exc.OperationalError("X", None, Exception(), connection_invalidated=True),
        exc.PendingRollbackError("?", code="8s2b"),
        exc.InterfaceError("X", None, asyncpg.InterfaceError("the connection is closed")),
    ],
    ids=repr,
)
def test_lost_connections(error: Exception) -> None:
    """The connection existed, and was lost."""
    assert cause_of(error) == "connection"
    assert cause_of(DatabaseConnectionError("?", original_error=error)) == "connection"


def test_conflicts() -> None:
    """The row was changed meanwhile."""
    assert cause_of(ConflictError("Hero", 1)) == "race"
    assert cause_of(StaleDataError()) == "race"


def test_an_unknown_outcome_is_final_whatever_led_to_it() -> None:
    """The transaction may be written."""
    unknown = TransactionError(original_error=postgresql("40001"), outcome_unknown=True)
    by_user = RuntimeError()
    by_user.__cause__ = unknown
    assert cause_of(unknown) is None
    assert cause_of(by_user) is None


def test_errors_that_cause_each_other() -> None:
    """They come to an end."""
    one, two = RuntimeError(), RuntimeError()
    one.__cause__, two.__cause__ = two, one
    assert cause_of(one) is None


class TestRetries:
    def test_pauses_are_drawn_below_a_growing_bound(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It doubles up to a second."""
        monkeypatch.setattr(retry_delays.random, "uniform", lambda _low, high: high)
        found = Retries(10)
        pauses = [found.next_pause("race") for _ in range(9)]
        assert pauses == [0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0, 1.0]
        assert found.next_pause("race") is None
        assert found.made == 10

    def test_one_connection_may_be_lost(self) -> None:
        """Regardless of other failures."""
        found = Retries(10)
        assert found.next_pause("race") is not None
        assert found.next_pause("connection") is not None
        assert found.next_pause("race") is not None
        assert found.next_pause("connection") is None

    def test_a_deadline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The pause counts."""
        clock: list[Any] = [100.0]
        monkeypatch.setattr(retry_delays, "monotonic", lambda: clock[0])
        monkeypatch.setattr(retry_delays.random, "uniform", lambda _low, _high: 0.5)
        found = retries_for(10, 2)
        clock[0] = 101.5
        assert found.next_pause("race") == 0.5
        clock[0] = 101.51
        assert found.next_pause("race") is None
        assert found.made == 2
