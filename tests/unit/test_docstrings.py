"""The docstrings of what is public: each parameter is explained, and an example shows the use."""

from __future__ import annotations

import inspect
import re
from typing import Any, is_typeddict

import pytest

from sqlmodel_crud_utils import aio, exceptions, hooks, mixins, pagination, sync, utils
from sqlmodel_crud_utils.ext import fastapi, opentelemetry, rate_limits

MODULES = (
    aio,
    sync,
    exceptions,
    fastapi,
    hooks,
    mixins,
    opentelemetry,
    pagination,
    rate_limits,
    utils,
)
PUBLIC = {
    f"{module.__name__.rpartition('.')[2]}.{name}": getattr(module, name)
    for module in MODULES
    for name in module.__all__
}
FUNCTIONS = {name: thing for name, thing in PUBLIC.items() if inspect.isfunction(thing)}
CLASSES = {name: thing for name, thing in PUBLIC.items() if inspect.isclass(thing)}
METHODS = {
    f"{name}.{each}": method
    for name, thing in CLASSES.items()
    if name.endswith(("QueryBuilder", "Repository"))
    for each, method in inspect.getmembers(thing, inspect.isfunction)
    if not each.startswith("_")
}


@pytest.mark.parametrize("name", [*FUNCTIONS, *METHODS])
def test_every_parameter_is_explained(name: str) -> None:
    """A reader need not guess what a name, a unit or a default means."""
    function = (FUNCTIONS | METHODS)[name]
    text = _text(function)
    parameters = [each for each in inspect.signature(function).parameters if each != "self"]
    assert [
        each for each in parameters if not re.search(rf"^ +\**{each}:", text, re.MULTILINE)
    ] == []


@pytest.mark.parametrize("name", [*FUNCTIONS, *METHODS])
def test_every_result_is_explained(name: str) -> None:
    """In a section of its own, unless the first line says it all."""
    function = (FUNCTIONS | METHODS)[name]
    text = _text(function)
    # What a method that returns a changed builder does is its first line.
    returns = inspect.signature(function).return_annotation not in {"None", None, "Self"}
    told = re.match(r"Return |.*(; | and )return ", text) or re.search(
        r"^(Returns|Yields):$", text, re.MULTILINE
    )
    assert told or not returns


@pytest.mark.parametrize("name", [*FUNCTIONS, *METHODS, *CLASSES])
def test_everything_has_an_example(name: str) -> None:
    """One that runs; what only describes types for checkers needs none."""
    thing = (FUNCTIONS | METHODS | CLASSES)[name]
    if not is_typeddict(thing) and not getattr(thing, "_is_protocol", False):
        assert "\nExample:\n" in _text(thing)
        assert ">>> " in _text(thing)


@pytest.mark.parametrize("name", [*FUNCTIONS, *METHODS, *CLASSES])
def test_the_first_line_is_a_sentence(name: str) -> None:
    """It is shown alone in lists of names."""
    assert re.fullmatch(
        r"[A-Z].{10,}\.", _text((FUNCTIONS | METHODS | CLASSES)[name]).split("\n")[0]
    )


def _text(thing: Any) -> str:
    return inspect.getdoc(thing) or ""
