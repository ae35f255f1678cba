"""The error for a function that was called with something else than a session."""

from __future__ import annotations

import inspect
import sys
from types import FrameType
from typing import Any, Literal

from sqlmodel_crud_utils.exceptions import ValidationError

_EXPECTED = {"sync": "a Session", "async": "an AsyncSession"}
_OF_THE_OTHER = {
    "sync": ("aio", {"AsyncSession", "async_scoped_session"}),
    "async": ("sync", {"Session", "scoped_session"}),
}


def wrong_session(api: Literal["sync", "async"], given: Any) -> ValidationError:
    """Return the error for the argument that a public function got as its session.

    It is made by a helper that the function calls directly: the text shows how to call that one.
    """
    expected = _EXPECTED[api]
    module, sessions = _OF_THE_OTHER[api]
    if sessions.intersection(each.__name__ for each in type(given).__mro__):
        message = (
            f"the {api} API takes {expected}, not {type(given).__name__}; "
            f"use sqlmodel_crud_utils.{module} for that"
        )
    else:
        kind = f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__
        name, call = _call_of(sys._getframe(2), given)
        message = f"{name} must be {expected}, not {kind}; call {call}"
    return ValidationError(message, field="session")


def _call_of(frame: FrameType, given: Any) -> tuple[str, str]:
    """Return the name of the argument's parameter, and the signature to show."""
    name = frame.f_code.co_qualname.partition(".")[0]
    parameters = inspect.signature(frame.f_globals[name]).parameters
    required = [
        each.name
        for each in parameters.values()
        if each.default is each.empty and each.kind is not each.VAR_KEYWORD
    ]
    held = frame.f_locals
    passed_as = next((each for each in parameters if held.get(each) is given), "session")
    return passed_as, f"{name}({', '.join(required)})"
