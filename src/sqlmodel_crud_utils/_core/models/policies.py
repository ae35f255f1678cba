"""Policies: which rows of a table a statement can see, and which policies a call lifts.

A policy defines its rule once, for models, aliases and tables. The public functions pass on a
`Visibility`, which names the policies that a call lifts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, inspect
from sqlalchemy.orm import Mapper

from sqlmodel_crud_utils._core.memoizing import cached, forget_all


@dataclass(frozen=True, eq=False)
class Policy:
    """A rule about which rows of some models a statement may see or touch.

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
    """Which policies apply to a call.

    Attributes:
        lifted: The names of those that do not.
    """

    lifted: frozenset[str] = frozenset()


USUAL = Visibility()
"""All policies hold."""

_policies: dict[str, Policy] = {}


def registered(policy: Policy) -> Policy:
    """Register a policy, and return it."""
    _policies[policy.name] = policy
    forget_all()
    return policy


@cached
def holding(visibility: Visibility) -> tuple[Policy, ...]:
    """Return the policies that apply under this visibility."""
    return tuple(each for each in _policies.values() if each.name not in visibility.lifted)


def here(visibility: Visibility = USUAL) -> Visibility:
    """Return this visibility as it is in the current scope.

    Call this before each statement runs: statements are cached by the policies that apply to them.
    """
    lifted = [name for name, is_lifted in _liftable() if is_lifted()]
    return Visibility(visibility.lifted.union(lifted)) if lifted else visibility


@cached
def _liftable() -> tuple[tuple[str, Callable[[], bool]], ...]:
    return tuple((each.name, each.is_lifted) for each in _policies.values() if each.is_lifted)


def elsewhere() -> Visibility:
    """Return the visibility of statements that are not the library's, in the current scope."""
    return here(everywhere())


@cached
def everywhere() -> Visibility:
    """Return the visibility that every statement has unless something lifts a policy."""
    return Visibility(frozenset(each.name for each in _policies.values() if not each.everywhere))


@cached
def mappers_of(policy: Policy) -> tuple[Mapper[Any], ...]:
    """Return the mappers of all models that a policy covers, from a cache."""
    return find_mappers(policy)


def find_mappers(policy: Policy) -> tuple[Mapper[Any], ...]:
    """Return the mappers of all models that a policy covers, without the cache."""
    found = (inspect(model, raiseerr=False) for model in _heirs(policy.base))
    return tuple(dict.fromkeys(mapper for mapper in found if isinstance(mapper, Mapper)))


def _heirs(base: type[Any]) -> Iterator[type[Any]]:
    yield base
    for heir in base.__subclasses__():
        yield from _heirs(heir)
