"""The attributes exported for a call: names, numbers and codes, never values or messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from sqlalchemy import Table

from sqlmodel_crud_utils._core.errors.driver_errors import status_code_of
from sqlmodel_crud_utils._core.observers import Call
from sqlmodel_crud_utils._core.values.current_tenant import all_in_scope
from sqlmodel_crud_utils.exceptions import (
    BulkOperationError,
    RecordNotFoundError,
    TransactionError,
)
from sqlmodel_crud_utils.ext.opentelemetry import names

Attributes = dict[str, str | int | bool]


def of_begin(call: Call) -> Attributes:
    """Return the attributes known at the beginning of a call: the function and the table."""
    about: Attributes = {names.FUNCTION: call.name}
    if call.facts is not None:
        table, model = call.facts.mapper.local_table, call.facts.model
        # A model that is mapped to a query has no table of its own.
        about[names.COLLECTION] = table.name if isinstance(table, Table) else model.__name__
    return about


def of_scope() -> Attributes:
    """Return the attributes of a call's scope: whether it reaches the rows of all tenants."""
    return {names.ALL_TENANTS: True} if all_in_scope() else {}


def of_end(call: Call) -> Attributes:
    """Return the attributes known at the end of a call: rows, attempts, and the outcome."""
    found: Attributes = {}
    if call.rows is not None:
        found[names.WRITTEN_ROWS if call.kind == "write" else names.RETURNED_ROWS] = call.rows
    if call.batch is not None and call.batch != 1:  # one row is not a batch
        found[names.BATCH_SIZE] = call.batch
    if call.attempts > 1:
        found[names.ATTEMPTS] = call.attempts
    if call.cache is not None:
        found[names.CACHE_RESULT] = call.cache
    if call.refused:
        found[names.REFUSED] = True
    if (outcome := outcome_of(call)) is not None:
        found[names.OUTCOME] = outcome
    if call.error is not None:
        found |= _of_error(call.error)
    return found


def _of_error(error: BaseException) -> Attributes:
    found = {names.ERROR_TYPE: error_type_of(error), names.STATUS_CODE: _status_code(error)}
    return {name: value for name, value in found.items() if value is not None}


def error_type_of(error: BaseException | None) -> str | None:
    """Return the class of an error; None without an error, or if only no row was found."""
    if error is None or isinstance(error, RecordNotFoundError):
        return None
    if not isinstance(error, Exception):
        return "cancelled"
    return type(error).__name__


def outcome_of(call: Call) -> Literal["committed", "rolled_back", "unknown"] | None:
    """Return how a block's transaction has ended; None for any other call."""
    if call.kind != "block" or call.committed is None:
        return None
    if isinstance(call.error, TransactionError) and call.error.outcome_unknown:
        return "unknown"
    return "committed" if call.committed else "rolled_back"


def _status_code(error: BaseException | None) -> str | None:
    """Return the database's code for an error, if it comes from the database."""
    codes = (status_code_of(each) for each in _behind(error))
    return next((code for code in codes if code is not None), None)


def _behind(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes; of a bulk error, the first one."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = _first_of(error) if isinstance(error, BulkOperationError) else error.__cause__


def _first_of(failure: BulkOperationError) -> BaseException | None:
    errors = (each[1] if isinstance(each, tuple) else each for each in failure.errors)
    return next((error for error in errors if isinstance(error, BaseException)), None)
