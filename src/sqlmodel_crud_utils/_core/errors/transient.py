"""Transient failures: caused by other transactions or the connection, so a retry may succeed.

The chain of causes is searched; the first error that says what went wrong decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from sqlalchemy.exc import DBAPIError, PendingRollbackError, SQLAlchemyError
from sqlalchemy.orm.exc import StaleDataError

from sqlmodel_crud_utils._core.errors.driver_errors import (
    is_cut_off,
    is_worth_repeating,
    read_driver_error,
)
from sqlmodel_crud_utils._core.errors.translation import (
    ON_A_LOST_CONNECTION,
    is_raised_by_driver,
    says_closed,
)
from sqlmodel_crud_utils.exceptions import (
    ConflictError,
    DatabaseConnectionError,
    TransactionError,
    ValidationError,
)

Cause = Literal["race", "connection"]

_Verdict = Cause | Literal["final"]


def is_transient(error: BaseException) -> bool:
    """Return whether `run_transaction` would run a transaction again after this error.

    It would if the transaction failed only because of others and nothing of it was written: after a
    deadlock, a serialization failure, a lock timeout on MySQL, a lock on SQLite's file, a Galera
    node that cannot commit, a row that has changed since it was read, or a connection that was lost
    before the COMMIT. It would not if the outcome is unknown, if the caller passed the version of a
    row, or if a second run would fail in the same way.

    Args:
        error: An error raised by the library, SQLAlchemy or a driver, or one raised `from` such an
            error.

    Returns:
        Whether a new attempt may succeed.

    Example:
        >>> from sqlmodel_crud_utils.exceptions import ConflictError, TransactionError
        >>> is_transient(ConflictError("Hero", 5)), is_transient(ValueError("no seats left"))
        (True, False)
        >>> is_transient(TransactionError(outcome_unknown=True))
        False
    """
    return cause_of(error) is not None


def cause_of(error: BaseException | None) -> Cause | None:
    """Return why a transaction may be retried after an error, or None if it may not."""
    for each in _chain(error):
        verdict = _verdict(each)
        if verdict is not None:
            return None if verdict == "final" else verdict
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Return an error and the chain of its causes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = getattr(error, "original_error", None) or error.__cause__


def _verdict(error: BaseException) -> _Verdict | None:
    """Return the verdict of one error, or None if its causes have to decide."""
    match error:
        case TransactionError(outcome_unknown=True) | ConflictError(version_given=True):
            return "final"
        case ConflictError() | StaleDataError():
            return "race"
        case ValidationError():
            return "final"
        case DatabaseConnectionError():
            return "connection" if _is_lost(error.original_error) else "final"
    is_known = isinstance(error, SQLAlchemyError) or is_raised_by_driver(error)
    return _of_database(error) if is_known else None


def _of_database(error: BaseException) -> _Verdict | None:
    if is_worth_repeating(error):
        return "race"
    if _is_lost(error):
        return "connection"
    return None if read_driver_error(error) is None else "final"


def _is_lost(error: BaseException | None) -> bool:
    """Return whether an established connection was lost."""
    match error:
        case PendingRollbackError():
            return error.code == ON_A_LOST_CONNECTION
        case DBAPIError(connection_invalidated=True):
            return True
        case Exception():
            return is_cut_off(error) or says_closed(error)
    return False
