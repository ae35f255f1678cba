"""The classification of errors that no test database raises on demand."""

from __future__ import annotations

import sqlite3
from typing import Any

import asyncmy.errors
import asyncpg
import psycopg
import psycopg.errors
import pymysql.err
import pytest
from sqlalchemy import Column, MetaData, Table, exc
from sqlalchemy.dialects.postgresql import INT4RANGE, ExcludeConstraint
from sqlalchemy.orm.exc import ObjectDeletedError, StaleDataError

from sqlmodel_crud_utils._core.errors.driver_errors import DriverError, read_driver_error
from sqlmodel_crud_utils._core.errors.translation import is_database_error, translate
from sqlmodel_crud_utils._core.errors.violations import constraint_violation
from sqlmodel_crud_utils.exceptions import (
    ConflictError,
    ConstraintViolationError,
    DatabaseConnectionError,
    QueryExecutionError,
    RecordNotFoundError,
    SQLModelCRUDError,
    TransactionError,
    ValidationError,
)
from tests.constraint_models import Gadget
from tests.models import Hero, HeroTag, Setting, Team

SECRET = "s3cr3t"


def _sqlite_error(text: str, code: int, name: str = "SQLITE_X") -> sqlite3.Error:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    error.sqlite_errorname = name
    return error


def _postgresql_error(state: str, **details: str) -> Exception:
    error = asyncpg.PostgresError(SECRET)
    error.sqlstate = state
    for name, value in details.items():
        setattr(error, name, value)
    return error


def _mysql_error(number: int, text: str = SECRET) -> Exception:
    return pymysql.err.OperationalError(number, text)


def _wrapped(
    original: BaseException, kind: type[exc.DBAPIError] = exc.OperationalError, sql: str = "X"
) -> exc.DBAPIError:
    return kind(sql, {"name": SECRET}, original)


@pytest.mark.parametrize("error", [RecordNotFoundError(Hero, 1), TransactionError("x")])
def test_our_own_errors_come_back(error: SQLModelCRUDError) -> None:
    """An error that is classified already is not touched."""
    assert translate(error, Hero) is error


@pytest.mark.parametrize(
    ("original", "expected"),
    [
        (_postgresql_error("08006"), "connection was lost"),
        (_postgresql_error("08P01"), "connection was lost"),
        (_postgresql_error("25P03"), "connection was lost"),
        (_postgresql_error("28P01"), "refuses the login"),
        (_postgresql_error("3D000"), "database does not exist"),
        (_postgresql_error("53300"), "accepts no more connections"),
        (_postgresql_error("57P03"), "starting up or shutting down"),
        (asyncpg.exceptions.ConnectionDoesNotExistError(SECRET), "connection was lost"),
        (asyncpg.InterfaceError(f"connection is closed {SECRET}"), "connection was lost"),
        (psycopg.OperationalError(SECRET), "cannot be reached or refuses the login"),
        (psycopg.errors.ConnectionTimeout(SECRET), "cannot be reached or refuses the login"),
        (psycopg.InterfaceError("the connection is closed"), "connection was lost"),
        (_mysql_error(1040), "accepts no more connections"),
        (_mysql_error(1044), "refuses the login"),
        (_mysql_error(1053), "starting up or shutting down"),
        (_mysql_error(2002), "cannot be reached"),
        (_mysql_error(2006), "connection was lost"),
        (asyncmy.errors.OperationalError(2013, SECRET), "connection was lost"),
        (_sqlite_error(SECRET, 14), "cannot be opened"),
        (_sqlite_error(SECRET, 14 | 2 << 8), "cannot be opened"),
        (ConnectionResetError(SECRET), "cannot be reached"),
        (TimeoutError(SECRET), "did not answer in time"),
    ],
)
@pytest.mark.parametrize("is_wrapped", [False, True])
def test_connection_failures(original: Exception, expected: str, is_wrapped: bool) -> None:
    """Codes of lost, refused and impossible connections, of each driver, wrapped or not."""
    if is_wrapped and isinstance(original, OSError):
        pytest.skip("SQLAlchemy lets these through")
    is_interface_error = type(original).__name__ == "InterfaceError"
    kind = exc.InterfaceError if is_interface_error else exc.OperationalError
    error = translate(_wrapped(original, kind) if is_wrapped else original, Hero)
    assert isinstance(error, DatabaseConnectionError)
    assert expected in str(error)
    assert SECRET not in str(error)


def test_an_invalidated_connection_is_a_lost_one() -> None:
    """SQLAlchemy notices some that have no code."""
    error = exc.DBAPIError("X", {}, sqlite3.ProgrammingError(SECRET), connection_invalidated=True)
    assert isinstance(translate(error), DatabaseConnectionError)


def test_an_exhausted_pool_without_numbers() -> None:
    """A pool of another kind may say it in other words."""
    error = translate(exc.TimeoutError("no luck"))
    assert isinstance(error, DatabaseConnectionError)
    assert "no connection became free; close" in str(error)


@pytest.mark.parametrize(
    ("original", "expected"),
    [
        (_postgresql_error("40001"), "run the transaction again"),
        (_postgresql_error("40P01"), "waited for each other"),
        (_postgresql_error("55P03"), "held a lock for too long"),
        (_postgresql_error("57014"), "took too long"),
        (_postgresql_error("42501"), "not allowed"),
        (_postgresql_error("25P02"), "roll it back"),
        (_mysql_error(1205), "held a lock for too long"),
        (_mysql_error(1213), "waited for each other"),
        (
            pymysql.err.OperationalError(1305, "SAVEPOINT x does not exist"),
            "as in a deadlock",
        ),
        (_mysql_error(1020), "run the transaction again"),
        (_mysql_error(1290), "read-only"),
        (_sqlite_error(SECRET, 5), "database is locked"),
        (_sqlite_error(SECRET, 6), "database is locked"),
        (_sqlite_error(SECRET, 517), "run the transaction again"),
        (_sqlite_error(SECRET, 8), "read-only"),
        (_sqlite_error("table x has no column named y", 1), "a column does not exist"),
    ],
)
def test_failures_that_are_told_in_words(original: Exception, expected: str) -> None:
    """Errors such as locks and deadlocks say what to do; they are not connection failures."""
    for error in (translate(original), translate(_wrapped(original), Hero)):
        assert isinstance(error, QueryExecutionError)
        assert expected in str(error)
        assert SECRET not in str(error)
        assert error.original_error is not None


@pytest.mark.parametrize(
    "error",
    [
        exc.InvalidRequestError("provisioning a new connection", code="isce"),
        exc.IllegalStateChangeError("Can't run operation 'close()'", code="isce"),
        asyncpg.InterfaceError("cannot perform operation: another operation is in progress"),
    ],
)
def test_a_session_that_two_tasks_use(error: Exception) -> None:
    """It is the caller's mistake, whether SQLAlchemy or the driver notices it."""
    for told in (translate(error), translate(error, Hero)):
        assert isinstance(told, ValidationError)
        assert told.field == "session"
        assert "one session per task" in str(told)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (_postgresql_error("XX000"), "Query execution failed for Hero (PostgresError, SQLSTATE XX"),
        (_mysql_error(1305), "Query execution failed for Hero (OperationalError, error 1305)"),
        (_mysql_error(9999), "Query execution failed for Hero (OperationalError, error 9999)"),
        (pymysql.err.InternalError(SECRET), "Query execution failed for Hero (InternalError)"),
        (_sqlite_error(SECRET, 999), "Query execution failed for Hero (SQLITE_X)"),
        (_wrapped(ValueError(SECRET)), "Query execution failed for Hero (ValueError)"),
        (exc.InvalidRequestError(SECRET), "Query execution failed for Hero (InvalidRequestError)"),
        (
            exc.PendingRollbackError(SECRET),
            (
                "Query execution failed for Hero: an earlier statement failed; roll the session "
                "back first, and in a transaction() block, run what may fail in a nested one"
            ),
        ),
        (KeyError(SECRET), "Query execution failed for Hero (KeyError)"),
    ],
)
def test_other_failures(error: Exception, text: str) -> None:
    """Errors without a message of the library's are reported by class and code."""
    translated = translate(error, Hero)
    assert isinstance(translated, QueryExecutionError)
    assert str(translated).startswith(text)
    assert SECRET not in str(translated)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (_postgresql_error("22001"), "a value is too long for its column"),
        (_postgresql_error("22007"), "a value does not fit the type of its column"),
        (_postgresql_error("2201B"), "the pattern is not a valid regular expression"),
        (_sqlite_error(SECRET, 3091), "a value does not fit"),
        (_mysql_error(1367), "a value does not fit"),
        (OverflowError(SECRET), "a value does not fit"),
        (_wrapped(psycopg.DataError(SECRET), exc.DataError), "a value does not fit"),
        (
            _wrapped(pymysql.err.ProgrammingError("inf can not be used with MySQL")),
            "a value of Hero cannot be converted",
        ),
        (
            _wrapped(psycopg.ProgrammingError(f"cannot adapt type {SECRET!r}")),
            "a value of Hero cannot be converted",
        ),
    ],
)
def test_data_that_the_database_cannot_take(error: Exception, text: str) -> None:
    """It is a mistake of the caller's, and no broken constraint."""
    translated = translate(error, Hero)
    assert type(translated) is ValidationError
    assert text in str(translated)
    assert SECRET not in str(translated)


@pytest.mark.parametrize(
    ("words", "sql", "params", "field"),
    [
        ("Error binding parameter 2: type 'P' is not supported", "?, ?", (1, 2), "secret_name"),
        ("Error binding parameter 2: type 'P' is not supported", "?, ?", (1, 2, 3), None),
        ("Error binding parameter", "?, ?", (1, 2), None),
    ],
)
def test_the_place_of_a_parameter_tells_its_column(
    words: str, sql: str, params: tuple[Any, ...], field: str | None
) -> None:
    """Only if an INSERT has one parameter for each column."""
    original = sqlite3.ProgrammingError(words)
    statement = f"INSERT INTO hero (name, secret_name) VALUES ({sql})"
    error = exc.ProgrammingError(statement, params, original)
    translated = translate(error, Hero)
    assert isinstance(translated, ValidationError)
    assert translated.field == field


def test_a_query_is_kept_without_parameters() -> None:
    """The statement may be logged; its parameters are left behind."""
    error = translate(_wrapped(_mysql_error(1213), sql="UPDATE hero SET name = %s"))
    assert isinstance(error, QueryExecutionError)
    assert error.query == "UPDATE hero SET name = %s"


@pytest.mark.parametrize(
    "original",
    [ValueError(SECRET), TypeError(SECRET), LookupError(SECRET), AttributeError(SECRET)],
)
def test_a_value_that_a_type_refuses(original: Exception) -> None:
    """SQLAlchemy's types raise all of these for a wrong value, a caller's mistake."""
    error = translate(exc.StatementError("x", "INSERT", {"a": SECRET}, original))
    assert isinstance(error, ValidationError)
    assert str(error).startswith("Validation failed: a value cannot be converted")
    assert SECRET not in str(error)


def test_a_missing_parameter_is_no_refused_value() -> None:
    """SQLAlchemy's own errors in the same place are wrong statements."""
    original = exc.InvalidRequestError("A value is required")
    error = translate(exc.StatementError("x", "SELECT", {}, original))
    assert isinstance(error, QueryExecutionError)


@pytest.mark.parametrize("kind", [StaleDataError, ObjectDeletedError])
def test_a_row_that_is_gone_is_a_conflict(kind: type[Any]) -> None:
    """SQLAlchemy notices an update that found nothing."""
    original = kind.__new__(kind)
    error = translate(original, Hero)
    assert isinstance(error, ConflictError)
    assert str(error).startswith("A Hero row has been changed or removed")
    assert isinstance(translate(original), ConflictError)


def _violation(
    error: Exception, model: type[Any] | None = None, sql: str = "X"
) -> ConstraintViolationError:
    translated = translate(_wrapped(error, sql=sql), model)
    assert isinstance(translated, ConstraintViolationError)
    assert SECRET not in str(translated)
    return translated


class TestConstraints:
    def test_mysql_8_tells_the_table_with_the_key(self) -> None:
        """MySQL writes 'table.key' where MariaDB writes 'key'."""
        error = _mysql_error(1062, f"Duplicate entry '{SECRET}' for key 'team.name'")
        assert _violation(error, Hero).columns == ("name",)
        assert "another team row has the same name" in str(_violation(error, Hero))

    def test_mysql_8_checks(self) -> None:
        """MySQL writes the name in quotes and no table."""
        error = _mysql_error(3819, "Check constraint 'ck_x' is violated.")
        assert (_violation(error).kind, _violation(error).constraint) == ("check", "ck_x")

    def test_numbered_names_of_mysql(self) -> None:
        """The second index that begins with a column is numbered."""
        error = _mysql_error(1062, f"Duplicate entry '{SECRET}' for key 'maker_2'")
        assert _violation(error, Gadget).columns == ("maker", "model")

    @pytest.mark.parametrize("number", [1048, 1062, 1216, 1217, 1364, 1452, 3819, 4025])
    @pytest.mark.parametrize("text", ["", SECRET, f"Ungültig: {SECRET}"])
    def test_texts_that_nobody_understands(self, number: int, text: str) -> None:
        """In any language, the kind is reported, and no part of the text is taken for a name."""
        error = _violation(_mysql_error(number, text))
        assert error.kind is not None
        assert error.columns == ()

    def test_an_error_without_a_text(self) -> None:
        """The error number is enough for the kind."""
        assert _violation(pymysql.err.IntegrityError(1062)).kind == "unique"

    def test_kinds_that_have_no_name(self) -> None:
        """A trigger's refusal is a broken constraint of no known kind."""
        for original in (_sqlite_error(SECRET, 1811), _postgresql_error("23000")):
            assert _violation(original, Hero).kind is None
            assert "violates a constraint of Hero" in str(_violation(original, Hero))

    def test_a_restricting_foreign_key(self) -> None:
        """PostgreSQL has a code of its own for ON DELETE RESTRICT."""
        error = _violation(_postgresql_error("23001", table_name="hero"), Team, "DELETE FROM team")
        assert error.kind == "foreign_key"
        assert "other rows still refer to this one" in str(error)

    def test_sqlite_with_several_foreign_keys(self) -> None:
        """SQLite does not report which one was violated, and nothing is guessed."""
        sql = 'INSERT OR IGNORE INTO "herotag" (hero_id, tag_id) VALUES (?, ?)'
        error = _violation(_sqlite_error("FOREIGN KEY constraint failed", 787), HeroTag, sql)
        assert error.columns == ()
        assert "a foreign key refers to a row that does not exist" in str(error)

    def test_postgresql_in_another_language(self) -> None:
        """The columns are found in any language; values that look like columns are not."""
        details = {
            "detail": f'Schlüssel »(scope, "key")=(x, ({SECRET})=(y))« existiert bereits.',
            "table_name": "nowhere",
        }
        assert _violation(_postgresql_error("23505", **details)).columns == ("scope", "key")

    def test_postgresql_without_details(self) -> None:
        """A server may hide the key from users who may not read the table."""
        error = _violation(_postgresql_error("23505", constraint_name="uq_setting_scope_key"))
        assert (error.constraint, error.columns) == ("uq_setting_scope_key", ())
        assert "another row has the same unique value" in str(error)

    def test_the_name_alone_tells_the_columns(self) -> None:
        """The model's table provides what the driver omits."""
        error = _violation(
            _postgresql_error("23505", constraint_name="uq_setting_scope_key"), Setting
        )
        assert error.columns == ("scope", "key")

    def test_an_update_that_breaks_a_foreign_key(self) -> None:
        """Of an update of the referring table it is not known which side is wrong."""
        details = {"table_name": "hero", "constraint_name": "hero_team_id_fkey"}
        error = _violation(_postgresql_error("23503", **details), Hero, "UPDATE hero SET team_id=1")
        assert (error.columns, error.field) == (("team_id",), "team_id")
        assert "team_id of Hero would refer to a row that does not exist" in str(error)

    def test_a_class_that_is_no_model(self) -> None:
        """Anything may be given as the model; then only the driver's information is used."""
        error = _violation(_sqlite_error("UNIQUE constraint failed: hero.name", 2067), int)
        assert (error.columns, error.field) == (("name",), None)

    def test_a_table_that_the_model_does_not_know(self) -> None:
        """A trigger may write into tables that no model has."""
        error = _violation(_sqlite_error("NOT NULL constraint failed: log.line", 1299), Hero)
        assert (error.columns, error.field) == (("line",), None)
        assert "line of log must not be null" in str(error)

    def test_an_exclusion_constraint_without_a_name(self) -> None:
        """A kind that the table does not declare is reported as far as the driver knows it."""
        error = constraint_violation(DriverError("exclusion", "X"), "", Hero)
        assert "the row conflicts with another Hero row" in str(error)

    def test_an_exclusion_constraint_with_the_name_that_the_database_made(self) -> None:
        """PostgreSQL names it after its columns."""
        table = Table(
            "shift", MetaData(), Column("during", INT4RANGE), ExcludeConstraint(("during", "&&"))
        )
        model = type("Shift", (), {"__table__": table})
        details = {"table_name": "shift", "constraint_name": "shift_during_excl"}
        error = _violation(_postgresql_error("23P01", **details), model)
        assert (error.kind, error.columns) == ("exclusion", ("during",))

    def test_a_sqlite_error_without_columns(self) -> None:
        """A text of another shape leaves the columns empty."""
        error = _violation(_sqlite_error(SECRET, 2067), Hero)
        assert (error.kind, error.columns) == ("unique", ())


def test_a_foreign_error_is_none_of_a_driver() -> None:
    """Only errors with a driver's codes are read."""
    assert read_driver_error(ValueError(1062, SECRET)) is None
    assert read_driver_error(exc.StatementError("x", "y", {}, None)) is None


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (exc.InvalidRequestError("x"), True),
        (StaleDataError("x"), True),
        (asyncpg.InvalidPasswordError("x"), True),
        (asyncpg.InterfaceError("x"), True),
        (psycopg.errors.UniqueViolation("x"), True),
        (pymysql.err.IntegrityError(1062, "x"), True),
        (asyncmy.errors.OperationalError(2013, "x"), True),
        (sqlite3.IntegrityError("x"), True),
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (OverflowError(), True),
        (ValueError("x"), False),
        (ValidationError("x"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_what_comes_from_a_database(error: BaseException, answer: bool) -> None:
    """Raw errors of drivers count too, as SQLAlchemy does not wrap all of them."""
    assert is_database_error(error) is answer
