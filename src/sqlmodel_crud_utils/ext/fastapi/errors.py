"""Convert the library's errors to HTTP responses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from inspect import iscoroutinefunction
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError, TimeoutError as PoolTimeoutError
from sqlalchemy.orm.exc import StaleDataError
from starlette.types import ASGIApp, Receive, Scope, Send

from sqlmodel_crud_utils._core.errors.transient import is_transient
from sqlmodel_crud_utils._core.errors.translation import is_database_error, translate
from sqlmodel_crud_utils._core.logs import log_failure
from sqlmodel_crud_utils.exceptions import (
    BulkOperationError,
    ConflictError,
    ConstraintViolationError,
    DatabaseConnectionError,
    QueryExecutionError,
    RateLimitExceededError,
    RateLimitUnavailableError,
    RecordNotFoundError,
    SQLModelCRUDError,
    TransactionError,
    ValidationError,
)
from sqlmodel_crud_utils.ext.fastapi.details import Detail, Sent, details_of, sent_with

__all__ = ["error_responses", "install_error_handlers"]


class ErrorText(BaseModel):
    """The body of an error that concerns the request as a whole."""

    detail: str


class ErrorDetails(BaseModel):
    """The body of an error in what the client sent, in FastAPI's own format."""

    detail: list[Detail]


_ANSWERS: dict[int, tuple[type[BaseModel], str]] = {
    404: (ErrorText, "There is no such row."),
    409: (ErrorDetails, "It conflicts with existing data."),
    412: (ErrorText, "It has changed since it was read."),
    422: (ErrorDetails, "The request contains invalid data."),
    429: (ErrorText, "There were too many requests."),
    503: (ErrorText, "The database cannot be reached, or is busy."),
}
_TO_BE_REPEATED = (429, 503)
_SECONDS = {"description": "When to try again, in seconds.", "schema": {"type": "integer"}}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the errors as OpenAPI responses, for `responses=` of a route, router or application.

    Args:
        statuses: Which of 404, 409, 412, 422, 429 and 503 may occur; all of them by default.

    Raises:
        ValidationError: Another status.

    Example:
        >>> from fastapi import FastAPI
        >>> app = FastAPI(responses=error_responses(404, 503))
        >>> sorted(error_responses(404, 409))
        [404, 409]
    """
    if unknown := [status for status in statuses if status not in _ANSWERS]:
        known = ", ".join(map(str, _ANSWERS))
        raise ValidationError(f"{unknown[0]} is not one of {known}", field="statuses")
    described: dict[int | str, dict[str, Any]] = {}
    for status in statuses or _ANSWERS:
        model, description = _ANSWERS[status]
        described[status] = {"model": model, "description": description}
        if status in _TO_BE_REPEATED:
            described[status]["headers"] = {"Retry-After": _SECONDS}
    return described


def install_error_handlers(app: FastAPI) -> None:
    """Make an application answer the library's errors with the appropriate status.

    | error | status |
    |---|---|
    | `RecordNotFoundError` | 404 |
    | `ConflictError` | 409; 412 if the request has the header `If-Match` |
    | `ConstraintViolationError`, kind unique, foreign_key or exclusion | 409 |
    | `ConstraintViolationError`, kind not_null or check | 422 |
    | `ValidationError`, `UnknownFieldError` | 422 |
    | `BulkOperationError` | the status of its first error |
    | `RateLimitExceededError` | 429 |
    | `RateLimitUnavailableError` | 503 |
    | `DatabaseConnectionError`, `QueryExecutionError` after which `is_transient` is True | 503 |
    | any other error of the library | 500 |

    A `TransactionError` is answered like the error that it wraps. If that error is not the
    library's, the application's own handler for it answers. If the outcome is unknown, the status
    is 500. Refusals by the database outside the library's functions, in your own `session.flush()`
    or the commit at the end, are answered in the same way.

    An error that occurs after the response has begun, in a background task or a stream, reaches the
    server unchanged. Responses with 429 and 503 have the header `Retry-After`, in seconds.

    The body is `{"detail": ...}`, as in FastAPI: for 409 and 422 a list of
    `{"type", "loc", "msg"}`, for others a string. `type` is the kind of the constraint (`unique`,
    `foreign_key`, ...), `version` for a `ConflictError`, or `value_error`; `loc` begins with
    `body`, `query`, `path` or `header`. No body contains the values of rows, keys or statements,
    any addresses, or the names of classes, tables, constraints, or columns that the client did not
    send. An error answered with 500 or 503 is logged, in one line.

    A handler that you add for one of the errors takes precedence.

    Args:
        app: The application, before its first request.

    Raises:
        ValidationError: The application has already answered a request, so it would ignore the
            handlers.

    Example:
        >>> from fastapi import FastAPI
        >>> from fastapi.testclient import TestClient
        >>> from sqlmodel_crud_utils.exceptions import RecordNotFoundError
        >>> app = FastAPI()
        >>> install_error_handlers(app)
        >>> @app.get("/heroes/{name}")
        ... def read_hero(name: str) -> None:
        ...     raise RecordNotFoundError("Hero", name, pk_field="name")
        >>> response = TestClient(app).get("/heroes/Rusty")
        >>> response.status_code, response.json()
        (404, {'detail': 'Not Found'})
    """
    if app.middleware_stack is not None:
        raise ValidationError("call install_error_handlers before the first request", "app")
    for kind in _HANDLED:
        app.add_exception_handler(kind, _answer)
    app.add_middleware(_LateErrors)


_HANDLED = (SQLModelCRUDError, DBAPIError, PoolTimeoutError, StaleDataError)


class _LateErrors:
    """Re-raises errors that occur after the response has begun, in background tasks and streams.

    It is too late for a response. Starlette, which finds a handler for them, would raise a
    `RuntimeError` instead.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        late = None
        try:
            await self._app(scope, receive, send)
        except RuntimeError as error:
            if not isinstance(error.__cause__, _HANDLED):
                raise
            late = error.__cause__
        if late is not None:
            raise late


async def _answer(request: Request, error: Exception) -> Response:
    while isinstance(error, TransactionError) and isinstance(error.original_error, Exception):
        if error.outcome_unknown:
            break  # a client that retries could write twice
        error = error.original_error
    handler = _handler(request.app.exception_handlers, error)
    if handler not in {None, _answer}:
        return await _call(handler, request, error)
    if not isinstance(error, SQLModelCRUDError):
        error = _translated(error)
    sent = sent_with(request)
    status = _status_of(error, sent)
    detail = _detail_of(error, status, sent)
    if status >= 500:
        endpoint = getattr(request.scope.get("endpoint"), "__name__", "the application")
        log_failure("request", str(endpoint), error, "error")
    return JSONResponse({"detail": detail}, status, _headers_of(error, status))


def _headers_of(error: Exception, status: int) -> dict[str, str] | None:
    seconds = 1.0 if status == 503 else getattr(error, "retry_after", None)
    return None if seconds is None else {"Retry-After": str(math.ceil(seconds))}


def _translated(error: Exception) -> SQLModelCRUDError:
    """Return a database error as the library's error; raise any other for the server."""
    if not is_database_error(error):
        raise error
    failure = translate(error)
    failure.__cause__ = error
    return failure


def _status_of(error: Exception | str, sent: Sent) -> int:
    status = 500
    match error:
        case RecordNotFoundError():
            status = 404
        case ConflictError():
            status = 412 if "if-match" in sent.header else 409
        case ConstraintViolationError() if error.kind not in {"not_null", "check"}:
            status = 409
        case ValidationError():
            status = 422
        case BulkOperationError(errors=[first, *_]):
            status = _status_of(first[1] if isinstance(first, tuple) else first, sent)
        case RateLimitExceededError():
            status = 429
        case DatabaseConnectionError() | RateLimitUnavailableError():
            status = 503
        case QueryExecutionError() if is_transient(error):
            status = 503
    return status


def _detail_of(error: Exception, status: int, sent: Sent) -> Any:
    if status in {409, 422}:
        return details_of(error, sent)
    if isinstance(error, RateLimitUnavailableError):
        return "The request limit cannot be checked at the moment; try again"
    if isinstance(error, DatabaseConnectionError):
        is_busy = isinstance(error.original_error, PoolTimeoutError)
        state = "is busy" if is_busy else "cannot be reached at the moment"
        return f"The database {state}; try again"
    return _TEXTS[status]


_TEXTS = {
    404: "Not Found",
    412: "It has changed since it was read",
    500: "Internal Server Error",
    429: "Too many requests; try again later",
    503: "Another request interfered; try again",
}


def _handler(handlers: Mapping[Any, Callable[..., Any]], error: Exception) -> Any:
    """Return the application's handler for an error, by its status or else by its class."""
    if found := handlers.get(getattr(error, "status_code", None)):
        return found
    # A handler for Exception sends a response, but Starlette still raises the error.
    classes = [cls for cls in type(error).__mro__ if cls is not Exception]
    return next((handlers[cls] for cls in classes if cls in handlers), None)


async def _call(handler: Callable[..., Any], request: Request, error: Exception) -> Response:
    answer = handler if iscoroutinefunction(handler) else partial(run_in_threadpool, handler)
    response: Response = await answer(request, error)
    return response
