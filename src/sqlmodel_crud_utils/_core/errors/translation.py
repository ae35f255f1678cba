"""Translates the errors of SQLAlchemy and the drivers to the errors of the library."""

from __future__ import annotations

import re
from collections.abc import Container
from traceback import walk_tb
from typing import Any

from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    InterfaceError,
    InvalidRequestError,
    PendingRollbackError,
    SQLAlchemyError,
    StatementError,
    TimeoutError as PoolTimeoutError,
    UnboundExecutionError,
)
from sqlalchemy.orm.exc import ObjectDeletedError, StaleDataError

from sqlmodel_crud_utils._core.errors.connecting import (
    parameters_of_connecting,
    refused_arguments,
)
from sqlmodel_crud_utils._core.errors.driver_errors import (
    VAGUE,
    DriverError,
    is_cut_connection,
    is_lost_race,
    read_driver_error,
)
from sqlmodel_crud_utils._core.errors.refused_values import (
    MISFITS,
    column_at,
    failing_default,
    unwritable_field,
)
from sqlmodel_crud_utils._core.errors.violations import as_reference, constraint_violation
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils.exceptions import (
    ConflictError,
    DatabaseConnectionError,
    QueryExecutionError,
    SQLModelCRUDError,
    TransactionError,
    ValidationError,
)

__all__ = [
    "ON_A_LOST_CONNECTION",
    "ends_transaction",
    "is_database_error",
    "is_raised_by_driver",
    "is_unreachable",
    "says_closed",
    "shared_session",
    "translate",
    "unknown_outcome",
]


def translate(
    error: Exception, model: type[Any] | None = None, *, deletes: bool = False
) -> SQLModelCRUDError:
    """Return the library's error for an error of SQLAlchemy or a driver.

    The caller raises it `from` the original. Its text is made of names and codes alone, as the
    texts of drivers hold the values of rows.

    Args:
        error: What was raised; an error of the library comes back as it is.
        model: The model that was worked on. Its tables tell what the driver does not.
        deletes: Whether a row was to be removed, so that a reference to it could not be cleared.

    Example:
        >>> print(translate(ConnectionRefusedError()))
        Database connection failed: the server cannot be reached (ConnectionRefusedError)
    """
    if isinstance(error, SQLModelCRUDError):
        return error
    if isinstance(error, StaleDataError | ObjectDeletedError):
        return ConflictError(model if model is not None else "table")
    driver = _uncleared_key(error) or read_driver_error(error)
    if driver is not None and driver.problem not in {"value", "connection", "query"}:
        statement = _statement(error) or ""
        if deletes:
            driver = as_reference(driver, statement, model)
        return constraint_violation(driver, statement, model)
    if _is_connection_failure(error, driver):
        return _connection_failure(error, driver)
    if failing_default(error) is not None:  # no value is to blame
        return _query_failure(error, driver, model)
    return (
        refused_arguments(error)
        or _mistake(error, driver, model)
        or _query_failure(error, driver, model)
    )


_BAD_VALUE = "a value does not fit the type of its column"
_DRIVERS = {"aiosqlite", "asyncmy", "asyncpg", "psycopg", "psycopg2", "pymysql", "sqlite3"}


def is_database_error(error: BaseException) -> bool:
    """Return whether an error comes from SQLAlchemy or a driver, and so is one to translate.

    Not all of them are SQLAlchemy's: SQLAlchemy 2.0 lets through what asyncpg raises while it
    connects, 2.1 still the operating system's errors, and drivers raise Python's own errors for
    values that they cannot write: numbers that are too large, text that cannot be encoded.

    Example:
        >>> is_database_error(ConnectionRefusedError()), is_database_error(KeyError())
        (True, False)
    """
    return (
        isinstance(error, SQLAlchemyError | OSError | OverflowError)
        or _is_drivers(error)
        or _is_raised_by_execution(error)
        or _uncleared_key(error) is not None
        or refused_arguments(error) is not None
    )


def is_raised_by_driver(error: BaseException) -> bool:
    """Return whether an error that is not SQLAlchemy's was raised by a driver's call.

    asyncpg lets errors of the operating system through, and a program may raise its own.
    """
    return _is_drivers(error) or (
        isinstance(error, OSError) and _is_raised_in(error, _EXECUTIONS | _COMMITS)
    )


def _is_drivers(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in _DRIVERS


# --- the unit of work

_UNCLEARED = r"Dependency rule on .* tried to blank-out .* column '(?:[^']*\.)?([^'.]+)\.([^'.]+)'"


def _uncleared_key(error: BaseException) -> DriverError | None:
    """Return the violation of a reference that is part of a primary key.

    The unit of work does not set such a column to NULL: it raises before it asks the database.
    """
    told = re.match(_UNCLEARED, str(error)) if isinstance(error, AssertionError) else None
    if told is None:
        return None
    table, column = told.groups()
    return DriverError("not_null", type(error).__name__, table=table, columns=(column,))


def ends_transaction(error: BaseException) -> bool:
    """Return whether an error ended the whole transaction: a lost connection or a lost race.

    The written rows are not to blame, and the transaction can run nothing else.
    """
    if isinstance(error, SQLModelCRUDError):
        original = getattr(error, "original_error", None)
        return isinstance(error, DatabaseConnectionError) or is_lost_race(original)
    return is_lost_race(error) or (
        isinstance(error, Exception)
        and is_database_error(error)
        and _is_connection_failure(error, read_driver_error(error))
    )


def is_unreachable(error: Exception) -> bool:
    """Return whether a server is unreachable or accepts no connections."""
    return (
        is_database_error(error)
        and not isinstance(error, PoolTimeoutError)
        and _is_connection_failure(error, read_driver_error(error))
    )


# These methods of a dialect send the COMMIT.
_COMMITS = frozenset({"do_commit", "do_commit_twophase"})


def unknown_outcome(error: Exception) -> TransactionError | None:
    """Return the error for a COMMIT with an unknown outcome; None for any other failure.

    Example:
        >>> unknown_outcome(ConnectionRefusedError()) is None  # no COMMIT was sent
        True
    """
    lost = is_database_error(error) and _is_connection_failure(error, read_driver_error(error))
    if not lost or not _is_raised_in(error, _COMMITS) or _was_closed_before(error):
        return None
    return TransactionError(
        "the connection was lost during COMMIT, so the transaction may or may not have been "
        "committed; check before you run it again",
        operation="commit",
        original_error=translate(error),
        outcome_unknown=True,
    )


def _was_closed_before(error: Exception) -> bool:
    """Return whether the driver knew that the connection was closed, and sent nothing."""
    original: Any = error.orig if isinstance(error, StatementError) else error
    text = str(original)
    return says_closed(error) or text in _NOT_SENT


# Messages of psycopg, PyMySQL and asyncmy; asyncpg says that the connection is closed.
_NOT_SENT = frozenset({"the connection is closed", "(0, '')", "(0, 'Not connected')"})


# --- connections

_POOL_LIMITS = r"size (\d+) overflow (-?\d+) .*timeout ([\d.]+)"


def _pool_exhausted(error: PoolTimeoutError) -> DatabaseConnectionError:
    limits = re.search(_POOL_LIMITS, str(error))
    told = ""
    if limits:
        size, overflow, seconds = limits.groups()
        told = f" within {float(seconds):g} s (pool_size={size}, max_overflow={overflow})"
    return DatabaseConnectionError(
        f"The connection pool is exhausted: no connection became free{told}; "
        "close sessions earlier, or allow more connections",
        original_error=error,
    )


def _is_connection_failure(error: Exception, driver: DriverError | None) -> bool:
    if driver is not None and driver.problem == "connection":
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    if isinstance(error, PendingRollbackError) and error.code == ON_A_LOST_CONNECTION:
        return True
    if is_cut_connection(error):
        return True
    # asyncpg lets the operating system's errors through.
    if isinstance(error, OSError | PoolTimeoutError) or says_closed(error):
        return True
    return parameters_of_connecting(error) is not None and refused_arguments(error) is None


# SQLAlchemy's error code for a transaction whose connection was lost.
ON_A_LOST_CONNECTION = "8s2b"


def says_closed(error: Exception) -> bool:
    """Return whether a driver says that a connection is closed."""
    # Drivers raise the same class for a closed connection and for misuse of an open one.
    original = error.orig if isinstance(error, InterfaceError) else error
    text = str(original)
    return (
        type(original).__name__ == InterfaceError.__name__
        and "connection" in text
        and "closed" in text
    )


def _connection_failure(error: Exception, driver: DriverError | None) -> DatabaseConnectionError:
    if isinstance(error, PoolTimeoutError):
        return _pool_exhausted(error)
    if driver is not None and driver.problem == "connection":
        reason = driver.reason
    elif isinstance(error, PendingRollbackError):
        reason = "the connection was lost, or a statement cut off; roll the session back first"
    elif isinstance(error, OSError):
        is_timeout = isinstance(error, TimeoutError)
        reason = f"the server {'did not answer in time' if is_timeout else 'cannot be reached'}"
    elif parameters_of_connecting(error) is not None:
        reason = "the connection is refused"
    else:
        reason = "the connection was lost"
    hint = _hint_at_parameters(error, driver)
    return DatabaseConnectionError(
        f"Database connection failed: {reason} ({_label(error, driver)}){hint}",
        original_error=error,
    )


def _hint_at_parameters(error: Exception, driver: DriverError | None) -> str:
    """Return which parameters of the URL may be behind a failed connection."""
    names = parameters_of_connecting(error)
    is_explained = (
        driver is not None and driver.problem == "connection" and driver.reason not in VAGUE
    )
    if not names or is_explained or isinstance(error, ConnectionError | TimeoutError):
        return ""
    # Of the network a driver's error may say nothing.
    condition = "if the server is up, " if driver is None or driver.problem == "connection" else ""
    return f"; {condition}check {', '.join(names)}"


# --- values and statements

# These methods of a dialect call nothing but the driver.
_EXECUTIONS = frozenset({"do_execute", "do_execute_no_params", "do_executemany"})


# Messages of drivers about values that they cannot send.
_REFUSED_BY_DRIVER = (
    r"Error binding parameter|cannot adapt type|(?:-?inf|nan) can not be used with MySQL"
)


def _mistake(
    error: Exception, driver: DriverError | None, model: type[Any] | None
) -> ValidationError | None:
    """Return the error for a mistake found before the statement reached the database."""
    name = "" if model is None else model.__name__
    if isinstance(error, UnboundExecutionError):
        return ValidationError(
            f"the session is not bound to an engine{name and f' for {name}'}; "
            "give the session a bind, or the model an entry in its binds",
            field="session",
        )
    if _says_shared(error):
        return shared_session()
    column = _column_of(error, driver)
    field = _field_of(error, model, column)
    if driver is not None and driver.problem == "value":
        named = f" {column!r}" if column else ""
        return ValidationError(f"{driver.reason}{named} ({driver.label})", field)
    if isinstance(error, DataError | OverflowError):
        return ValidationError(f"{_BAD_VALUE} ({_label(error, driver)})", field)
    if _is_refused_value(error):
        if model is not None and not isinstance(error, DBAPIError):
            name, field = unwritable_field(error, model) or (name, None)
        subject = f"{name}.{field}" if field else f"a value{name and f' of {name}'}"
        return ValidationError(
            f"{subject} cannot be converted to the type of its column "
            f"({_label(error, None)}; see the original error)",
            field,
        )
    return None


def _says_shared(error: Exception) -> bool:
    by_sqlalchemy = isinstance(error, InvalidRequestError) and error.code == "isce"
    return by_sqlalchemy or "cannot perform operation: another operation" in str(error)


def shared_session() -> ValidationError:
    """Return the error for a session that two tasks use at once."""
    return ValidationError(
        "the session is in use by another task or thread, and serves one at a time; "
        "open one session per task",
        field="session",
    )


def _column_of(error: Exception, driver: DriverError | None) -> str | None:
    """Return the name of the column whose value was refused, if the driver names it."""
    if driver is not None and driver.columns:
        return driver.columns[0]
    return column_at(error) if isinstance(error, DBAPIError) else None


def _field_of(error: Exception, model: type[Any] | None, column: str | None) -> str | None:
    """Return the model's field for a column, if the model's table was written."""
    if model is None or column is None:
        return None
    facts = facts_of(model)
    is_own = str(facts.mapper.local_table.description) in (_statement(error) or "")
    return next(iter(facts.names_of([column])), None) if is_own else None


def _is_refused_value(error: Exception) -> bool:
    """Return whether a column's type, or the driver, could not write the value."""
    if isinstance(error, DBAPIError):
        return re.match(_REFUSED_BY_DRIVER, str(error.orig)) is not None
    return _is_raised_by_execution(error) or (
        isinstance(error, StatementError)
        and isinstance(error.orig, MISFITS)
        and not isinstance(error.orig, SQLAlchemyError)
    )


def _is_raised_by_execution(error: BaseException) -> bool:
    # SQLAlchemy passes on, unwrapped, errors that are not the driver's own.
    if not isinstance(error, MISFITS) or isinstance(error, OverflowError):
        return False
    return _is_raised_in(error, _EXECUTIONS)


def _is_raised_in(error: BaseException, functions: Container[str]) -> bool:
    return any(frame.f_code.co_name in functions for frame, _ in walk_tb(error.__traceback__))


def _query_failure(
    error: Exception, driver: DriverError | None, model: type[Any] | None
) -> QueryExecutionError:
    reason = _query_reason(error, driver)
    of_model = f" for {model.__name__}" if model is not None else ""
    told = f": {reason}" if reason else ""
    return QueryExecutionError(
        f"Query execution failed{of_model}{told} ({_label(error, driver)})",
        query=_statement(error),
        original_error=error,
    )


def _query_reason(error: Exception, driver: DriverError | None) -> str:
    if driver is not None:
        return driver.reason
    if isinstance(error, PendingRollbackError):
        return (
            "an earlier statement failed; roll the session back first, and in a transaction() "
            "block, run what may fail in a nested one"
        )
    column = failing_default(error)
    if column is not None:
        return f"the default or onupdate of {column} failed"
    if "closed transaction inside context manager" in str(error):
        return "the transaction of your begin() block is over; leave the block first"
    return ""


def _label(error: Exception, driver: DriverError | None) -> str:
    if driver is not None:
        return driver.label
    original = error.orig if isinstance(error, StatementError) else None
    return type(original if original is not None else error).__name__


def _statement(error: Exception) -> str | None:
    return error.statement if isinstance(error, StatementError) else None
