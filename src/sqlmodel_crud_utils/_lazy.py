"""Modules whose names are imported from other modules on first use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any


def attach(
    face: dict[str, Any], exported: Sequence[str], package: str, homes: Sequence[str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for a module that re-exports names of others.

    Args:
        face: The namespace of the module.
        exported: The names that it exports.
        package: The package of the other modules.
        homes: The other modules, the most used first.
    """

    def load(name: str) -> Any:
        if name not in exported:
            raise AttributeError(f"module {face['__name__']!r} has no attribute {name!r}")
        modules = (import_module(f"{package}.{home}") for home in homes)
        # In `aio` a class has a second name, without `Async`.
        found = next(
            getattr(module, each)
            for module in modules
            for each in (name, f"Async{name}")
            if each in module.__all__
        )
        # From now on, the name is found without this function.
        face[name] = found
        return found

    def names() -> list[str]:
        return sorted({*face, *exported})

    return load, names
