"""From the errors of the library to the responses of a web service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from inspect import iscoroutinefunction
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
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
    RecordNotFoundError,
    SQLModelCRUDError,
    TransactionError,
    ValidationError,
)

__all__ = ["install_error_handlers"]


def install_error_handlers(app: FastAPI) -> None:
    """Let an application answer the errors of the library with the fitting status.

    | error | status |
    |---|---|
    | `RecordNotFoundError` | 404 |
    | `ConflictError` | 409 |
    | `ConstraintViolationError`, kind unique, foreign_key or exclusion | 409 |
    | `ConstraintViolationError`, kind not_null or check | 422 |
    | `ValidationError`, `UnknownFieldError` | 422 |
    | `BulkOperationError` | that of its first error |
    | `DatabaseConnectionError`, `QueryExecutionError` after which `is_transient` is True | 503 |
    | every other one | 500 |

    `TransactionError` is answered as the error that it wraps, by the application's own handler
    where that is the error of somebody else, and with 500 if its outcome is unknown. What a
    database refuses without the library, a `session.flush()` of your own or the commit at the
    end, is answered in the same way.

    An error that comes when the response has begun, in a background task or a stream, goes on to
    the server as it is. An answer of 503 has the header `Retry-After`.

    The body is `{"detail": ...}`, as FastAPI has it: a text; for 422 a list of
    `{"type", "loc", "msg"}`, with the field in `loc` if it is known. No body holds the values of
    rows, keys, statements or addresses. What is answered with 500 or 503 is logged, in one line.

    A handler that you add for one of the errors yourself wins over this one.

    Args:
        app: The application, before its first request.

    Raises:
        ValidationError: The application has answered a request; it would not see the handlers.

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
        (404, {'detail': 'Hero not found'})
    """
    if app.middleware_stack is not None:
        raise ValidationError("install_error_handlers comes before the first request", "app")
    for kind in _HANDLED:
        app.add_exception_handler(kind, _answer)
    app.add_middleware(_LateErrors)


_HANDLED = (SQLModelCRUDError, DBAPIError, PoolTimeoutError, StaleDataError)


class _LateErrors:
    """Lets errors pass that come when the response has begun: in background tasks and streams.

    Nothing can be answered any more. Starlette, which finds a handler for them, would raise a
    `RuntimeError` in their place.
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
            break  # a client that is told to try again may write twice
        error = error.original_error
    handler = _handler(request.app.exception_handlers, error)
    if handler not in {None, _answer}:
        return await _call(handler, request, error)
    if not isinstance(error, SQLModelCRUDError):
        error = _translated(error)
    status, detail = _status_and_detail(error)
    if status >= 500:
        endpoint = getattr(request.scope.get("endpoint"), "__name__", "the application")
        log_failure("request", str(endpoint), error, "error")
    headers = {"Retry-After": _RETRY_AFTER} if status == 503 else None
    return JSONResponse({"detail": detail}, status, headers)


_RETRY_AFTER = "1"  # second


def _translated(error: Exception) -> SQLModelCRUDError:
    """Return the library's error for one of a database; let any other go to the server."""
    if not is_database_error(error):
        raise error
    failure = translate(error)
    failure.__cause__ = error
    return failure


def _status_and_detail(error: Exception | str) -> tuple[int, Any]:
    status, detail = 500, "Internal Server Error"
    match error:
        case RecordNotFoundError():
            status, detail = 404, f"{_model(error)} not found"
        case ConflictError():
            reason = "was changed or removed since it was read; read it again and retry"
            status, detail = 409, f"{_model(error)} {reason}"
        case ConstraintViolationError() if error.kind not in {"not_null", "check"}:
            status, detail = 409, str(error)
        case ValidationError():
            return 422, _invalid(str(error), error.field)
        case BulkOperationError(errors=[first, *_]):
            return _of_rows(error, first[1] if isinstance(first, tuple) else first)
        case DatabaseConnectionError():
            is_busy = isinstance(error.original_error, PoolTimeoutError)
            state = "is busy" if is_busy else "cannot be reached at the moment"
            status, detail = 503, f"The database {state}; try again"
        case QueryExecutionError() if is_transient(error):
            status, detail = 503, "Another request was in the way; try again"
    return status, detail


def _of_rows(error: BulkOperationError, first: Exception | str) -> tuple[int, Any]:
    status, detail = _status_and_detail(first)
    text = error.get_error_summary()
    if status == 422:
        return status, _invalid(text)
    return status, detail if status >= 500 else text


def _invalid(text: str, field: str | None = None) -> list[dict[str, Any]]:
    """Return details as FastAPI's own and its OpenAPI schema have them."""
    return [{"type": "value_error", "loc": [field] if field else [], "msg": text}]


def _model(error: RecordNotFoundError | ConflictError) -> str:
    return error.model if isinstance(error.model, str) else error.model.__name__


def _handler(handlers: Mapping[Any, Callable[..., Any]], error: Exception) -> Any:
    """Return the application's handler for an error: by its status, else by its class."""
    if found := handlers.get(getattr(error, "status_code", None)):
        return found
    # A handler for every Exception answers, but the error goes on to the server's log.
    classes = [cls for cls in type(error).__mro__ if cls is not Exception]
    return next((handlers[cls] for cls in classes if cls in handlers), None)


async def _call(handler: Callable[..., Any], request: Request, error: Exception) -> Response:
    answer = handler if iscoroutinefunction(handler) else partial(run_in_threadpool, handler)
    response: Response = await answer(request, error)
    return response
