"""Policies: which rows of a table are there for a statement, and what a call lifts of them.

A policy says it once, for a model, an alias or a table. Below the public functions only a
`Visibility` travels: it names the policies that do not hold for the call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, inspect
from sqlalchemy.orm import Mapper

from sqlmodel_crud_utils._core.caching import cached, forget_all


@dataclass(frozen=True, eq=False)
class Policy:
    """Which rows of some models a statement may see or touch.

    Attributes:
        name: What a `Visibility` calls it.
        base: The class whose heirs it is about: a mixin, or a model.
        fields: The fields of these models that the criterion looks at.
        criterion: Returns the criterion for the visible rows. It is called with a model, an
            alias of one, or an object that has the fields as columns of a table. It is called
            once for many statements: what changes meanwhile is a `bindparam(callable_=...)`.
        everywhere: Whether it holds for every statement of a session, the caller's own and those
            that write included; else for those of the library that look for rows.
        key_columns: Columns that a unique key has because of the policy: the caller leaves them
            out when naming the key.
        is_lifted: Returns whether it does not hold for now, whatever a call lifts.
        stamps: Fields that a new row is given by their columns' defaults, and that stay as they
            are when an upsert finds a row.
    """

    name: str
    base: type[Any]
    fields: tuple[str, ...]
    criterion: Callable[[Any], ColumnElement[bool]]
    everywhere: bool = False
    is_lifted: Callable[[], bool] | None = None
    key_columns: frozenset[str] = frozenset()
    stamps: frozenset[str] = frozenset()


class Visibility(NamedTuple):
    """Which policies hold for a call.

    Attributes:
        lifted: The names of those that do not.
    """

    lifted: frozenset[str] = frozenset()


USUAL = Visibility()
"""All policies hold."""

_policies: dict[str, Policy] = {}


def registered(policy: Policy) -> Policy:
    """Let a policy hold from now on, and return it."""
    _policies[policy.name] = policy
    forget_all()
    return policy


@cached
def holding(visibility: Visibility) -> tuple[Policy, ...]:
    """Return the policies that hold for a call."""
    return tuple(each for each in _policies.values() if each.name not in visibility.lifted)


def here(visibility: Visibility = USUAL) -> Visibility:
    """Return which policies hold for what runs now.

    Whoever runs a statement asks this first, as statements are kept by what holds for them.
    """
    lifted = [name for name, is_lifted in _liftable() if is_lifted()]
    return Visibility(visibility.lifted.union(lifted)) if lifted else visibility


@cached
def _liftable() -> tuple[tuple[str, Callable[[], bool]], ...]:
    return tuple((each.name, each.is_lifted) for each in _policies.values() if each.is_lifted)


def elsewhere() -> Visibility:
    """Return what holds for statements that are not the library's, and run now."""
    return here(everywhere())


@cached
def everywhere() -> Visibility:
    """Return what holds for every statement, if nothing lifts it."""
    return Visibility(frozenset(each.name for each in _policies.values() if not each.everywhere))


@cached
def mappers_of(policy: Policy) -> tuple[Mapper[Any], ...]:
    """Return the mappers of all models that a policy is about, remembered for statements."""
    return find_mappers(policy)


def find_mappers(policy: Policy) -> tuple[Mapper[Any], ...]:
    """Return the mappers of all models that a policy is about, those declared last among them."""
    found = (inspect(model, raiseerr=False) for model in _heirs(policy.base))
    return tuple(dict.fromkeys(mapper for mapper in found if isinstance(mapper, Mapper)))


def _heirs(base: type[Any]) -> Iterator[type[Any]]:
    yield base
    for heir in base.__subclasses__():
        yield from _heirs(heir)
