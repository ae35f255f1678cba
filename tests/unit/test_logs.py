"""The one line that a failed operation logs."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from loguru import logger as loguru_logger

from sqlmodel_crud_utils._core import logs
from sqlmodel_crud_utils.exceptions import (
    BulkOperationError,
    ConflictError,
    ConstraintViolationError,
    DatabaseConnectionError,
    RecordNotFoundError,
)
from tests.models import Hero

SECRET = "s3cr3t {braces} %s"


@pytest.fixture
def loguru_lines() -> Iterator[list[str]]:
    """The lines that loguru was given."""
    lines: list[str] = []
    handler = loguru_logger.add(lines.append, format="{level}|{message}")
    yield lines
    loguru_logger.remove(handler)


@pytest.fixture
def without_loguru(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module without loguru installed."""
    logs.get_logger()  # the real module has found loguru
    monkeypatch.setitem(sys.modules, "loguru", None)
    spec = importlib.util.find_spec("sqlmodel_crud_utils._core.logs")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (ConflictError(Hero, SECRET), "ConflictError"),
        (
            DatabaseConnectionError(SECRET, original_error=OSError(SECRET)),
            "DatabaseConnectionError, caused by OSError",
        ),
        (
            ConstraintViolationError(
                SECRET, "name", SECRET, kind="unique", constraint="uq_name", columns=("name", "age")
            ),
            "ConstraintViolationError, unique constraint uq_name on name, age",
        ),
        (ConstraintViolationError(SECRET), "ConstraintViolationError, constraint"),
        (
            BulkOperationError(
                3, 2, [(0, ConstraintViolationError(SECRET, kind="check")), (2, "x")]
            ),
            "2 of 3 rows, the first: ConstraintViolationError, check constraint",
        ),
        (BulkOperationError(3, 1, [SECRET]), "1 of 3 rows"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_line_names_what_failed(loguru_lines: list[str], failure: Exception, text: str) -> None:
    """The operation, the model, the kind of failure and the constraint, and no text of an error."""
    logs.log_failure("write_row", Hero, failure)
    assert loguru_lines == [f"WARNING|write_row failed for Hero: {text}\n"]


@pytest.mark.parametrize("level", ["debug", "warning", "error"])
def test_logging_gets_the_same_line(
    without_loguru: ModuleType, caplog: pytest.LogCaptureFixture, level: Any
) -> None:
    """Without loguru the standard library's logger of the package's name is used."""
    caplog.set_level(logging.DEBUG)
    without_loguru.log_failure("get_row", Hero, RecordNotFoundError(Hero, SECRET), level)
    (record,) = caplog.records
    assert record.name == "sqlmodel_crud_utils"
    assert record.levelname == level.upper()
    assert record.getMessage() == "get_row failed for Hero: RecordNotFoundError"
    assert record.exc_info is None


def test_the_place_is_that_of_the_first_frame_outside(
    without_loguru: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    """Frames of the library, and of code between it and its caller, are skipped."""
    between: dict[str, Any] = {"__name__": "sqlmodel_crud_utils._async.writes"}
    exec("def call(function, *args): function(*args)", between)
    outer: dict[str, Any] = {"__name__": "contextlib"}
    exec("def call(function, *args): function(*args)", outer)
    outer["call"](between["call"], without_loguru.log_failure, "write_row", Hero, ValueError())
    (record,) = caplog.records
    assert (record.pathname, record.funcName) == (
        __file__,
        "test_the_place_is_that_of_the_first_frame_outside",
    )


@pytest.mark.parametrize("name", ["100%s", "{model}", "<red>"])
def test_the_line_is_no_template(
    loguru_lines: list[str],
    without_loguru: ModuleType,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    """Percent signs, braces and tags in a name are printed unchanged."""
    for module in (logs, without_loguru):
        module.log_failure("write_row", name, ValueError())
    line = f"write_row failed for {name}: ValueError"
    assert loguru_lines == [f"WARNING|{line}\n"]
    assert caplog.messages == [line]


def test_a_circle_of_causes_ends(loguru_lines: list[str]) -> None:
    """Errors that are each other's cause are logged once each."""
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    logs.log_failure("write_row", Hero, first)
    assert loguru_lines == ["WARNING|write_row failed for Hero: ValueError, caused by KeyError\n"]
