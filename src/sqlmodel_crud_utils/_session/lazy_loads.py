"""Strict loading: a lazy load raises an error that says how to load the rows beforehand."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Literal, NamedTuple

from sqlalchemy.orm import InstanceState, ORMExecuteState, RelationshipProperty
from sqlalchemy.orm.base import PassiveFlag

from sqlmodel_crud_utils._session.sqlalchemy_internals import missing_columns
from sqlmodel_crud_utils.exceptions import RelationshipNotLoadedError, ValidationError

Mode = bool | Literal["n_plus_one"]
"""True refuses all lazy loads, "n_plus_one" those for a second row of a query, False none."""

KEY = "sqlmodel_crud_utils.strict_loading"
_LOADED = "sqlmodel_crud_utils.loaded_lazily"
_REMEMBERED = 100  # queries; otherwise a long-lived session would grow


class Strictness(NamedTuple):
    """How strict a session currently is.

    Attributes:
        mode: Which lazy loads it refuses.
        can_load: Returns whether the calling code can query the database; None if it always can.
    """

    mode: Mode
    can_load: Callable[[], bool] | None


def checked(mode: Any) -> Mode:
    """Return the caller's mode, or raise a `ValidationError` if it is not one."""
    if mode is True or mode is False or mode == "n_plus_one":
        found: Mode = mode
        return found
    raise ValidationError(
        f'takes True, False or "n_plus_one", not {type(mode).__name__}', field="strict_loading"
    )


def check_load(execution: ORMExecuteState) -> None:
    """Refuse a lazy load in a strict session.

    Raises:
        RelationshipNotLoadedError: The load is refused; nothing was sent.
    """
    strictness = execution.session.info.get(KEY)
    state = execution.lazy_loaded_from
    if strictness is None or not strictness.mode:
        return
    if state is not None:
        _check_relationship(execution, state, strictness)
    elif execution.is_column_load and strictness.can_load and not strictness.can_load():
        raise RelationshipNotLoadedError(_of_columns(execution))


def _check_relationship(
    execution: ORMExecuteState, state: InstanceState[Any], strictness: Strictness
) -> None:
    path: Any = execution.loader_strategy_path
    relationship = next(each for each in reversed(path) if isinstance(each, RelationshipProperty))
    if strictness.can_load is not None and not strictness.can_load():
        raise RelationshipNotLoadedError(_of_relationship(relationship))
    if _is_needed_by_sqlalchemy(sys._getframe()):
        return
    if strictness.mode == "n_plus_one":
        _count(relationship, state, execution.session.info.setdefault(_LOADED, {}))
    elif strictness.can_load is None:
        raise RelationshipNotLoadedError(_of_relationship(relationship))


def _is_needed_by_sqlalchemy(frame: FrameType | None) -> bool:
    """Return whether SQLAlchemy itself needs the load: for a flush, a refresh, or an explicit load.

    It passes this on only to loader strategies, for `lazy="raise"`; hence the look at its frame.
    """
    while frame is not None:
        if frame.f_code.co_name == "_load_for_state" and "passive" in frame.f_locals:
            return bool(frame.f_locals["passive"] & PassiveFlag.NO_RAISE)
        frame = frame.f_back
    return False


def _count(
    relationship: RelationshipProperty[Any], state: InstanceState[Any], loaded: dict[Any, Any]
) -> None:
    if state.runid is None:  # not from a query: the session wrote the row
        return
    # For each relationship: its queries, and the first row of each query that loaded it.
    queries = loaded.setdefault(relationship, {})
    if queries.setdefault(state.runid, state.key) != state.key:
        raise RelationshipNotLoadedError(
            f"{_of_relationship(relationship)}. It is the second row of the same query "
            "that loads it, which can mean one query for each row"
        )
    if len(queries) > _REMEMBERED:
        del queries[next(iter(queries))]


def _of_relationship(relationship: RelationshipProperty[Any]) -> str:
    name = relationship.key
    return (
        f'{relationship} is not loaded; read the row with selectin("{name}") or joined("{name}"), '
        f'or with select_in_keys=["{name}"]'
    )


def _of_columns(execution: ORMExecuteState) -> str:
    mapper = execution.bind_mapper
    model = "the row" if mapper is None else mapper.class_.__name__
    names = ", ".join(missing_columns(execution))
    return (
        f"columns of {model} are not loaded ({names}): a commit or a rollback has expired the row, "
        "or they are deferred, as those of subclasses are without polymorphic_load in their "
        "mapping; refresh the row, read it again, or make sessions with expire_on_commit=False"
    )
