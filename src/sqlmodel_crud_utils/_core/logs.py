"""Logging: through loguru where it is installed, else through the standard library.

loguru is imported for the first line only: its import takes a fifth as long as the library's.
"""

from __future__ import annotations

import logging
import re
import sys
from functools import cache
from types import FrameType
from typing import Any, Literal

from sqlmodel_crud_utils.exceptions import BulkOperationError, ConstraintViolationError

__all__ = ["get_logger", "log_failure", "log_line", "log_retry"]

Level = Literal["debug", "warning", "error"]

# Frames of the library, and those between it and its caller.
_PASSED_OVER = r"(sqlmodel_crud_utils(\.|$)|contextlib$|asyncio\.tasks$)"


@cache
def get_logger() -> Any:
    """Return loguru's logger, or that of the standard library with the package's name."""
    try:
        from loguru import logger
    except ImportError:
        # We add no handler: without one, Python prints errors to stderr, so a failure that was not
        # raised is still visible.
        return logging.getLogger("sqlmodel_crud_utils")
    return logger


def log_failure(
    operation: str, model: type[Any] | str, failure: BaseException, level: Level = "warning"
) -> None:
    """Log one line for an operation that failed, at the place of the code that called the library.

    It names the operation, the model and the kind of failure; of a broken constraint also its name
    and columns. It has no text of an error, as a driver's text may hold the values of the row.

    Args:
        operation: The name of the function, "write_row" for instance.
        model: The model, or its name.
        failure: What went wrong.
        level: "warning" if the caller only gets a flag, "debug" if the caller gets an exception,
            "error" if nobody does.

    Example:
        >>> log_failure("write_row", "Hero", ValueError("secret"))
    """
    name = model if isinstance(model, str) else model.__name__
    log_line(f"{operation} failed for {name}: {_described(failure)}", level)


def log_retry(what_now: str, failure: BaseException | None = None) -> None:
    """Log what `run_transaction` does after a failed attempt."""
    told = "" if failure is None else f" after {_described(failure)}"
    log_line(f"run_transaction {what_now}{told}", "debug")


def log_line(line: str, level: Level) -> None:
    """Log a line at the place of the code that called the library."""
    # Without arguments neither library looks for placeholders in the line.
    logger, depth = get_logger(), _depth_of_caller()
    if isinstance(logger, logging.Logger):
        getattr(logger, level)(line, stacklevel=depth + 1)
    else:
        getattr(logger.opt(depth=depth), level)(line)


def _depth_of_caller() -> int:
    """Return how many frames above `log_line` the code stands that called the library."""
    frame: FrameType | None = sys._getframe(1)
    depth = 0
    while frame is not None and re.match(_PASSED_OVER, frame.f_globals.get("__name__", "")):
        frame, depth = frame.f_back, depth + 1
    return 0 if frame is None else depth


def _described(failure: BaseException) -> str:
    if isinstance(failure, BulkOperationError):
        first = _first_error(failure)
        told = "" if first is None else f", the first: {_described(first)}"
        return f"{failure.failed} of {failure.total} rows{told}"
    if isinstance(failure, ConstraintViolationError):
        return _constraint(failure)
    return _classes(failure)


def _first_error(failure: BulkOperationError) -> BaseException | None:
    errors = (each[1] if isinstance(each, tuple) else each for each in failure.errors)
    return next((error for error in errors if isinstance(error, BaseException)), None)


def _constraint(failure: ConstraintViolationError) -> str:
    kind = f"{failure.kind} " if failure.kind else ""
    name = f" {failure.constraint}" if failure.constraint else ""
    columns = f" on {', '.join(failure.columns)}" if failure.columns else ""
    return f"ConstraintViolationError, {kind}constraint{name}{columns}"


def _classes(error: BaseException) -> str:
    names = [type(error).__name__]
    seen = {id(error)}
    while (cause := _cause_of(error)) is not None and id(cause) not in seen:
        seen.add(id(cause))
        names.append(type(cause).__name__)
        error = cause
    return ", caused by ".join(names)


def _cause_of(error: BaseException) -> BaseException | None:
    cause: BaseException | None = error.__cause__ or getattr(error, "original_error", None)
    return cause
