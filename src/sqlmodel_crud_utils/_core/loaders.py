"""How related rows are loaded: relationship names to SQLAlchemy's loader options."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy.orm import InstrumentedAttribute, lazyload, selectinload
from sqlalchemy.orm.strategy_options import _AbstractLoad

from sqlmodel_crud_utils._core.models import relationship_attribute, relationship_names
from sqlmodel_crud_utils.exceptions import ValidationError

_SEPARATOR = re.compile(r"\.|__")

Names = str | Iterable[str] | None
Path = list[InstrumentedAttribute[Any]]


def read_options(
    model: type[Any], selectin: bool, select_in_keys: Names, lazy: bool, lazy_load_keys: Names
) -> list[_AbstractLoad]:
    """Return the loader options of a read; as in v0.1.0, names count only with their flag."""
    options: list[_AbstractLoad] = []
    if selectin:
        options += loader_options(selectinload, relationship_paths(model, select_in_keys))
    if lazy:
        options += loader_options(lazyload, relationship_paths(model, lazy_load_keys))
    return options


def loader_options(
    loader: Callable[..., _AbstractLoad], paths: Iterable[Path]
) -> list[_AbstractLoad]:
    """Return the options that load each of these relationships in the loader's way."""
    return [_load(loader, path) for path in paths]


def _load(loader: Callable[..., _AbstractLoad], path: Path) -> _AbstractLoad:
    option = loader(path[0])
    for attribute in path[1:]:
        option = getattr(option, loader.__name__)(attribute)
    return option


def relationship_paths(model: type[Any], names: Names) -> list[Path]:
    """Return the relationships that each name leads through; "team.city" and "team__city" do.

    Raises:
        UnknownFieldError: A name that is no relationship.
        ValidationError: Something that is no name.
    """
    if names is None:
        return []
    if isinstance(names, bool) or not isinstance(names, Iterable):
        raise ValidationError(
            f"relationships are given by name, not as {type(names).__name__}; "
            "pass a name or a list of names",
            field="select_in_keys",
        )
    listed = [names] if isinstance(names, str) else names
    return [_path(model, name) for name in listed]


def _path(model: type[Any], name: Any) -> Path:
    if not isinstance(name, str):
        raise ValidationError(
            f"relationships are given by name, not as {type(name).__name__}",
            field="select_in_keys",
        )
    parts = [name] if name in relationship_names(model) else _SEPARATOR.split(name)
    path: Path = []
    for part in parts:
        attribute = relationship_attribute(model, part)
        path.append(attribute)
        model = attribute.property.mapper.class_
    return path
