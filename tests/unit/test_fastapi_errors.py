"""Which response an error of the library gives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pymysql.err
import pytest
from fastapi import BackgroundTasks, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.testclient import TestClient
from loguru import logger
from sqlalchemy.exc import IntegrityError, OperationalError, TimeoutError as PoolTimeoutError
from sqlalchemy.orm.exc import StaleDataError

from sqlmodel_crud_utils.exceptions import (
    BulkOperationError,
    ConflictError,
    ConstraintViolationError,
    DatabaseConnectionError,
    MultipleRecordsError,
    QueryExecutionError,
    RecordNotFoundError,
    SQLModelCRUDError,
    TransactionError,
    UnknownFieldError,
    ValidationError,
)
from sqlmodel_crud_utils.ext.fastapi import install_error_handlers
from tests.models import Hero

SECRET = "hunter2"
URL = f"postgresql://ann:{SECRET}@db.internal/heroes"


class OutOfStockError(Exception):
    """An error of the application."""


def answer(error: Exception, app: FastAPI | None = None) -> tuple[int, Any]:
    """The status and the detail that an error gives."""
    app = app or FastAPI()
    install_error_handlers(app)

    @app.get("/")
    async def fail() -> None:
        raise error

    response = TestClient(app, raise_server_exceptions=False).get("/")
    assert SECRET not in response.text
    if response.headers["content-type"] != "application/json":
        return response.status_code, response.text
    body = response.json()
    assert list(body) == ["detail"]
    return response.status_code, body["detail"]


def wrapped(error: BaseException) -> TransactionError:
    """An error as a `transaction()` block raises it."""
    return TransactionError(operation="transaction", original_error=error)


def violation(kind: Any) -> ConstraintViolationError:
    """A broken constraint."""
    return ConstraintViolationError("the row is refused", field="name", kind=kind)


def _deadlock() -> Exception:
    return pymysql.err.OperationalError(1213, SECRET)


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (RecordNotFoundError(Hero, SECRET), 404, "Hero not found"),
        (RecordNotFoundError("Hero", {"name": SECRET}), 404, "Hero not found"),
        (
            ConflictError(Hero, SECRET, expected=1, found=2),
            409,
            "Hero was changed or removed since it was read; read it again and retry",
        ),
        (violation("unique"), 409, "Validation failed for 'name': the row is refused"),
        (violation("foreign_key"), 409, "Validation failed for 'name': the row is refused"),
        (violation("exclusion"), 409, "Validation failed for 'name': the row is refused"),
        (violation(None), 409, "Validation failed for 'name': the row is refused"),
        (
            DatabaseConnectionError(database_url=URL),
            503,
            "The database cannot be reached at the moment; try again",
        ),
        (
            QueryExecutionError(original_error=_deadlock()),
            503,
            "Another request was in the way; try again",
        ),
        (
            TransactionError(original_error=ConflictError(Hero), outcome_unknown=True),
            500,
            "Internal Server Error",
        ),
        (QueryExecutionError(query=f"SELECT '{SECRET}'"), 500, "Internal Server Error"),
        (MultipleRecordsError(Hero, 2), 500, "Internal Server Error"),
        (SQLModelCRUDError(SECRET), 500, "Internal Server Error"),
        (TransactionError(SECRET), 500, "Internal Server Error"),
        (BulkOperationError(3, 1, []), 500, "Internal Server Error"),
        (
            BulkOperationError(3, 1, [(1, QueryExecutionError(SECRET))]),
            500,
            "Internal Server Error",
        ),
        (BulkOperationError(3, 1, [SECRET]), 500, "Internal Server Error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_each_error_has_its_status(error: Exception, status: int, detail: str) -> None:
    """The text says what happened, without the values of rows, keys or addresses."""
    assert answer(error) == (status, detail)
    assert answer(wrapped(error)) == (status, detail)
    assert answer(wrapped(wrapped(error))) == (status, detail)


@pytest.mark.parametrize(
    "error", [violation("not_null"), violation("check"), ValidationError("no", "name", SECRET)]
)
def test_values_that_do_not_fit_are_answered_as_fastapi_does(error: ValidationError) -> None:
    """422 has a list, as the OpenAPI schema of every route says."""
    expected = [{"type": "value_error", "loc": ["name"], "msg": str(error)}]
    assert answer(error) == (422, expected)


def test_a_mistake_without_a_field_has_no_location() -> None:
    """What is about no field says so."""
    assert answer(ValidationError("no"))[1][0]["loc"] == []
    assert answer(UnknownFieldError(Hero, "agee", ("age",)))[0] == 422


def test_rows_are_answered_as_their_first_error() -> None:
    """The failure of many rows has the status of one, and names them all."""
    many = BulkOperationError(3, 2, [(0, violation("unique")), (2, violation("check"))])
    assert answer(many) == (409, many.get_error_summary())
    many = BulkOperationError(3, 1, [violation("check")])
    assert answer(many)[1] == [{"type": "value_error", "loc": [], "msg": many.get_error_summary()}]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (IntegrityError("INSERT", {"name": SECRET}, Exception(SECRET)), 500),
        (OperationalError("SELECT", {}, ConnectionRefusedError(SECRET), None, True), 503),
        (PoolTimeoutError("QueuePool limit of size 5 overflow 10 reached, timeout 30.00"), 503),
        (StaleDataError("UPDATE statement on table 'hero' expected to update 1 row(s)"), 409),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_errors_of_sqlalchemy_are_answered_too(error: Exception, status: int) -> None:
    """What the database refuses without the library has a status as well."""
    assert answer(error)[0] == status
    assert answer(wrapped(error))[0] == status


def test_what_the_server_is_to_blame_for_is_logged() -> None:
    """One line names the route and the classes, and no values; the client's mistakes have none."""
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]))
    try:
        answer(QueryExecutionError(SECRET))
        answer(wrapped(DatabaseConnectionError(database_url=URL)))
        answer(RecordNotFoundError(Hero, 5))
    finally:
        logger.remove(sink)
    assert lines == [
        "request failed for fail: QueryExecutionError",
        "request failed for fail: DatabaseConnectionError",
    ]


def test_it_is_too_late_after_the_first_request() -> None:
    """Starlette would take the handlers and never call them."""
    app = FastAPI()
    TestClient(app).get("/")
    with pytest.raises(ValidationError, match="before the first request"):
        install_error_handlers(app)


# --- the application's own errors ----------------------------------------------------------------


def test_an_http_exception_is_taken_out_of_a_transaction_error() -> None:
    """A route that uses `transaction()` itself may raise one inside of it."""
    assert answer(wrapped(HTTPException(418, "I am a teapot"))) == (418, "I am a teapot")


@pytest.mark.parametrize("key", [OutOfStockError, Exception, 418])
def test_handlers_of_the_application_answer_what_is_wrapped(key: Any) -> None:
    """An error that the application has a handler for, by class or by status, is left to it."""
    app = FastAPI()
    app.add_exception_handler(key, lambda *_: JSONResponse({"detail": "its own"}, 460))
    error = HTTPException(418) if key == 418 else OutOfStockError()
    assert answer(wrapped(error), app) == (460, "its own")


def test_a_handler_may_be_async() -> None:
    """Both kinds of handler that Starlette has are called as it does."""
    app = FastAPI()

    async def handler(_request: Request, _error: Exception) -> JSONResponse:
        return JSONResponse({"detail": "its own"}, 460)

    app.add_exception_handler(OutOfStockError, handler)
    assert answer(wrapped(OutOfStockError()), app) == (460, "its own")


def test_an_error_that_nobody_handles_is_the_servers() -> None:
    """It reaches the server as it is, to be logged with its traceback."""
    assert answer(wrapped(OutOfStockError())) == (500, "Internal Server Error")
    with pytest.raises(OutOfStockError):
        _raise_in_app(wrapped(OutOfStockError()))


def _raise_in_app(error: Exception) -> None:
    app = FastAPI()
    install_error_handlers(app)

    @app.get("/")
    async def fail() -> None:
        raise error

    TestClient(app).get("/")


@pytest.mark.parametrize("wrap", [lambda error: error, wrapped], ids=["bare", "wrapped"])
def test_a_handler_for_one_error_wins(wrap: Any) -> None:
    """Who wants another answer for one of the errors says so in the usual way."""
    app = FastAPI()
    app.add_exception_handler(RecordNotFoundError, lambda *_: JSONResponse({"detail": "gone"}, 410))
    assert answer(wrap(RecordNotFoundError(Hero, 5)), app) == (410, "gone")


@pytest.mark.parametrize(
    ("original", "state"),
    [
        (PoolTimeoutError("no connection"), "is busy"),
        (OperationalError("x", None, Exception()), "cannot be reached at the moment"),
    ],
)
def test_an_answer_of_503_says_when_to_come_again(original: Exception, state: str) -> None:
    """With a header for clients that wait by themselves, and whether it is the load."""
    app = FastAPI()
    install_error_handlers(app)

    @app.get("/")
    async def fail() -> None:
        raise DatabaseConnectionError(original_error=original)

    response = TestClient(app).get("/")
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    assert response.json() == {"detail": f"The database {state}; try again"}
    assert "Retry-After" not in TestClient(app).get("/nowhere").headers


LATE = [
    ConflictError(Hero, 1),
    RecordNotFoundError(Hero, 1),
    IntegrityError("x", None, Exception()),
    wrapped(ValueError("x")),
    ValueError("x"),
    RuntimeError("x"),
]


@pytest.mark.parametrize("error", LATE, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("path", ["/task", "/stream"])
def test_an_error_after_the_answer_goes_on_as_it_is(path: str, error: Exception) -> None:
    """In a background task or a stream: nothing can be answered any more."""
    app = FastAPI()
    install_error_handlers(app)

    def fail() -> None:
        raise error

    @app.get("/task")
    async def with_task(tasks: BackgroundTasks) -> str:
        tasks.add_task(fail)
        return "done"

    @app.get("/stream")
    async def streamed() -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            yield "part"
            fail()

        return StreamingResponse(parts())

    with pytest.raises(type(error)) as raised:
        TestClient(app).get(path)
    assert raised.value is error
    if path == "/task":
        answered = TestClient(app, raise_server_exceptions=False).get(path)
        assert (answered.status_code, answered.json()) == (200, "done")
