"""The one line that a failed operation logs."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
from loguru import logger as loguru_logger

from sqlmodel_crud_utils._core import logs
from sqlmodel_crud_utils.exceptions import ConstraintViolationError, RecordNotFoundError
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
    """The module as it is where loguru is not installed."""
    logs.get_logger()  # the real module has found loguru
    monkeypatch.setitem(sys.modules, "loguru", None)
    spec = importlib.util.find_spec("sqlmodel_crud_utils._core.logs")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_loguru_gets_one_line(loguru_lines: list[str]) -> None:
    """One line at error level with the operation, the model and the classes of the errors."""
    error = ConstraintViolationError(SECRET)
    error.__cause__ = ValueError(SECRET)
    logs.log_failure("write_row", Hero, error)
    assert loguru_lines == [
        "ERROR|write_row failed for Hero: ConstraintViolationError, caused by ValueError\n"
    ]


def test_logging_gets_the_same_line(
    without_loguru: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    """Without loguru the standard library's logger of the package's name is used."""
    without_loguru.log_failure("get_row", Hero, RecordNotFoundError(Hero, SECRET))
    (record,) = caplog.records
    assert record.name == "sqlmodel_crud_utils"
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "get_row failed for Hero: RecordNotFoundError"
    assert record.exc_info is None


@pytest.mark.parametrize("name", ["100%s", "{model}", "<red>"])
def test_the_line_is_no_template(
    loguru_lines: list[str],
    without_loguru: ModuleType,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    """Percent signs, braces and tags in a name are printed as they are."""
    for module in (logs, without_loguru):
        module.log_failure("write_row", name, ValueError())
    line = f"write_row failed for {name}: ValueError"
    assert loguru_lines == [f"ERROR|{line}\n"]
    assert caplog.messages == [line]


def test_a_circle_of_causes_ends(loguru_lines: list[str]) -> None:
    """Errors that name each other as cause are told once each."""
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    logs.log_failure("write_row", Hero, first)
    assert loguru_lines == ["ERROR|write_row failed for Hero: ValueError, caused by KeyError\n"]
