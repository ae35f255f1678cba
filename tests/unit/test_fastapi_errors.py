"""The responses to the library's errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pymysql.err
import pytest
from fastapi import BackgroundTasks, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.testclient import TestClient
from loguru import logger
from pydantic import BaseModel
from pydantic.alias_generators import to_camel
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
from sqlmodel_crud_utils.ext.fastapi import error_responses, install_error_handlers
from tests.models import Hero

SECRET = "hunter2"
URL = f"postgresql://ann:{SECRET}@db.internal/heroes"


class OutOfStockError(Exception):
    """An error of the application."""


def answer(error: Exception, app: FastAPI | None = None) -> tuple[int, Any]:
    """Return the status and the detail of the response to an error."""
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


WHOLE = ["body"]


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (RecordNotFoundError(Hero, SECRET), 404, "Not Found"),
        (RecordNotFoundError("Hero", {"name": SECRET}), 404, "Not Found"),
        (
            ConflictError(Hero, SECRET, expected=1, found=2),
            409,
            [{"type": "version", "loc": WHOLE, "msg": "it has changed since it was read"}],
        ),
        (
            violation("unique"),
            409,
            [{"type": "unique", "loc": WHOLE, "msg": "it already exists"}],
        ),
        (
            violation("exclusion"),
            409,
            [{"type": "exclusion", "loc": WHOLE, "msg": "it overlaps another one"}],
        ),
        (
            violation(None),
            409,
            [{"type": "conflict", "loc": WHOLE, "msg": "it conflicts with existing data"}],
        ),
        (
            violation("not_null"),
            422,
            [{"type": "not_null", "loc": WHOLE, "msg": "a required value is missing"}],
        ),
        (violation("check"), 422, [{"type": "check", "loc": WHOLE, "msg": "it violates a rule"}]),
        (
            ValidationError(SECRET, "name", SECRET),
            422,
            [{"type": "value_error", "loc": WHOLE, "msg": "the request contains invalid data"}],
        ),
        (
            UnknownFieldError(Hero, "nmae", ("name",)),
            422,
            [
                {
                    "type": "extra_forbidden",
                    "loc": WHOLE,
                    "msg": "Extra inputs are not permitted",
                }
            ],
        ),
        (
            DatabaseConnectionError(database_url=URL),
            503,
            "The database cannot be reached at the moment; try again",
        ),
        (
            QueryExecutionError(original_error=_deadlock()),
            503,
            "Another request interfered; try again",
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
        (
            BulkOperationError(3, 1, [violation("check"), SECRET]),
            422,
            [{"type": "check", "loc": WHOLE, "msg": "it violates a rule"}],
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_each_error_has_its_status(error: Exception, status: int, detail: Any) -> None:
    """The body says what happened, without names or values that the client did not send."""
    assert answer(error) == (status, detail)
    assert answer(wrapped(error)) == (status, detail)
    assert answer(wrapped(wrapped(error))) == (status, detail)


# --- what was sent -------------------------------------------------------------------------------


class Body(BaseModel):
    """A client's body."""

    name: str = ""
    team_id: int = 0
    version: int = 0


def details(error: Exception, sent: Any, query: str = "", **headers: str) -> Any:
    """The answer to an error in a route with a body, a path and a query."""
    app = FastAPI()
    install_error_handlers(app)

    @app.post("/{key}")
    async def fail(key: int, body: Body | list[Body], after: str = "") -> None:  # noqa: ARG001
        raise error

    answered = TestClient(app).post(f"/5{query}", json=sent, headers=headers)
    assert SECRET not in answered.text
    assert "Hero" not in answered.text
    if answered.status_code == 412:
        return answered.json()["detail"]
    [detail] = answered.json()["detail"]
    return tuple(detail.values())


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("unique", "another one has this name"),
        ("foreign_key", "nothing exists with this name"),
        ("not_null", "name is required"),
        ("check", "name violates a rule"),
        ("exclusion", "this name overlaps another one"),
    ],
)
def test_a_constraint_names_what_was_sent(kind: Any, reason: str) -> None:
    """And no column that the client does not know."""
    error = ConstraintViolationError(SECRET, kind=kind, columns=("tenant", "name"))
    assert details(error, {"name": SECRET}) == (kind, ["body", "name"], reason)


def test_a_constraint_of_several_columns_is_about_the_body() -> None:
    """All those that were sent are named."""
    error = ConstraintViolationError(SECRET, kind="unique", columns=("name", "team_id"))
    assert details(error, {"name": "a", "team_id": 1}) == (
        "unique",
        ["body"],
        "another one has this name and team_id",
    )


class Renamed(BaseModel):
    """A client's body with aliases."""

    model_config = {"alias_generator": to_camel}

    full_name: str
    age: int = 0


@pytest.mark.parametrize("sent", [{"fullName": "a"}, [{"fullName": "a"}]])
def test_a_field_is_called_what_the_client_calls_it(sent: Any) -> None:
    """By its alias, alone and in a list."""
    app = FastAPI()
    install_error_handlers(app)
    refused = ConstraintViolationError("no", kind="unique", columns=("full_name",))
    error = BulkOperationError(1, 0, [(0, refused)]) if isinstance(sent, list) else refused

    @app.post("/")
    async def fail(body: Renamed | list[Renamed]) -> None:  # noqa: ARG001
        raise error

    [detail] = TestClient(app).post("/", json=sent).json()["detail"]
    assert (detail["loc"][0], detail["loc"][-1]) == ("body", "fullName")
    assert detail["msg"] == "another one has this fullName"


def test_rows_have_their_place() -> None:
    """As FastAPI counts the elements of a list, from 0."""
    refused = ConstraintViolationError(SECRET, kind="unique", columns=("name",))
    error = BulkOperationError(2, 1, [(1, refused)])
    sent = [{"name": "a"}, {"name": "b"}]
    expected = ("unique", ["body", 1, "name"], "another one has this name")
    assert details(error, sent) == expected
    wrong = ValidationError("row 1: Hero.name must be a string", "name", SECRET)
    assert details(wrong, sent) == ("value_error", ["body", 1, "name"], "must be a string")
    assert details(ValidationError("row 1: no", "team"), sent)[1] == ["body", 1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Hero.name must be shorter", "must be shorter"),
        (
            "Hero.at must be aware; got a naive one; use datetime.now()",
            "must be aware; got a naive one",
        ),
        ("Input should be a valid string", "Input should be a valid string"),
        ("String should have at least 1 character", "String should have at least 1 character"),
        ("Decimal input should be finite", "Decimal input should be finite"),
        ("Value error, Hero should be older", "this value is invalid"),
        ("the key of Hero is special", "this value is invalid"),
    ],
)
def test_a_value_has_its_place(text: str, reason: str) -> None:
    """In the body, the path or the query, with a reason that names no class."""
    assert details(ValidationError(text, "name"), {"name": "a"}) == (
        "value_error",
        ["body", "name"],
        reason,
    )
    assert details(ValidationError(text, "key"), {})[1] == ["path", "key"]
    assert details(ValidationError(text, "after"), {}, "?after=x")[1] == ["query", "after"]
    unknown = UnknownFieldError(Hero, "name", ("id", "secret"))
    assert details(unknown, {"name": "a"})[:2] == ("extra_forbidden", ["body", "name"])


def test_a_version_that_was_asked_for_is_a_precondition() -> None:
    """With the header it is 412; a version in the body is named."""
    error = ConflictError(Hero, 5, expected=1)
    assert details(error, {}, **{"if-match": '"1"'}) == "It has changed since it was read"
    assert details(error, {"version": 1})[:2] == ("version", ["body", "version"])


def test_what_a_path_names_is_the_place_where_there_is_no_body() -> None:
    """A deletion sends nothing else."""
    app = FastAPI()
    install_error_handlers(app)

    @app.delete("/{key}")
    async def fail(key: int) -> None:  # noqa: ARG001
        raise violation("foreign_key")

    [detail] = TestClient(app).delete("/5").json()["detail"]
    assert detail["loc"] == ["path"]
    assert detail["msg"] == "it refers to something that does not exist, or others refer to it"


def test_openapi_knows_the_answers() -> None:
    """With their bodies, for a route or a whole application."""
    app = FastAPI(responses=error_responses(503))

    @app.get("/", responses=error_responses(404, 409))
    async def read() -> None: ...

    described = app.openapi()
    responses = described["paths"]["/"]["get"]["responses"]
    assert sorted(responses) == ["200", "404", "409", "503"]
    schemas = described["components"]["schemas"]
    assert schemas["ErrorDetails"]["properties"]["detail"]["items"] == {
        "$ref": "#/components/schemas/Detail"
    }
    assert sorted(error_responses()) == [404, 409, 412, 422, 429, 503]
    with pytest.raises(ValidationError, match="418 is not one of"):
        error_responses(418)


# --- errors of others ----------------------------------------------------------------------------


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
    """Refusals by the database outside the library have a status as well."""
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
    """A route that uses `transaction()` itself may raise one inside it."""
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
    """It reaches the server unchanged, to be logged with its traceback."""
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
    """An application can register its own handler for an error."""
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
    """In a background task or a stream, it is too late for a response."""
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
