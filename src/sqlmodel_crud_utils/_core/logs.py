"""Logging: through loguru where it is installed, else through the standard library.

loguru is loaded when the first line is written: it takes as long as a fifth of this library.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

__all__ = ["get_logger", "log_failure"]


@cache
def get_logger() -> Any:
    """Return loguru's logger, or that of the standard library with the package's name."""
    try:
        from loguru import logger
    except ImportError:
        # No handler of our own: without any, Python prints errors to stderr, and the line that
        # tells about a failure that was not raised is not lost.
        return logging.getLogger("sqlmodel_crud_utils")
    return logger


def log_failure(operation: str, model: type[Any] | str, error: BaseException) -> None:
    """Log one line at error level for an operation that failed.

    It tells the operation, the model and the classes of the error and of its causes, but no text
    of theirs: a driver's text may hold the values of the row.

    Args:
        operation: The name of the function, "write_row" for instance.
        model: The model, or its name.
        error: What went wrong.

    Example:
        >>> log_failure("write_row", "Hero", ValueError("secret"))
    """
    name = model if isinstance(model, str) else model.__name__
    line = f"{operation} failed for {name}: {_classes(error)}"
    # Without arguments neither library looks for placeholders in the line.
    get_logger().error(line)


def _classes(error: BaseException) -> str:
    names = [type(error).__name__]
    seen = {id(error)}
    while (cause := error.__cause__) is not None and id(cause) not in seen:
        seen.add(id(cause))
        names.append(type(cause).__name__)
        error = cause
    return ", caused by ".join(names)
