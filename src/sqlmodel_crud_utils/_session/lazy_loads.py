"""Strict loading: a lazy load is an error that says what would have loaded the rows."""

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
"""True refuses lazy loads, "n_plus_one" those for a second row of the same query, False none."""

KEY = "sqlmodel_crud_utils.strict_loading"
_LOADED = "sqlmodel_crud_utils.loaded_lazily"
_REMEMBERED = 100  # queries, so that a session that lives long does not grow


class Strictness(NamedTuple):
    """How strict a session is, for a while.

    Attributes:
        mode: What it refuses.
        can_load: Returns whether the database can be queried where it happens; None where it
            always can.
    """

    mode: Mode
    can_load: Callable[[], bool] | None


def checked(mode: Any) -> Mode:
    """Return a caller's mode; anything else is a `ValidationError`."""
    if mode is True or mode is False or mode == "n_plus_one":
        found: Mode = mode
        return found
    raise ValidationError(
        f'takes True, False or "n_plus_one", not {type(mode).__name__}', field="strict_loading"
    )


def check_load(execution: ORMExecuteState) -> None:
    """Refuse a lazy load in a strict session.

    Raises:
        RelationshipNotLoadedError: It is refused; nothing was sent.
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
    if _is_meant(sys._getframe()):
        return
    if strictness.mode == "n_plus_one":
        _count(relationship, state, execution.session.info.setdefault(_LOADED, {}))
    elif strictness.can_load is None:
        raise RelationshipNotLoadedError(_of_relationship(relationship))


def _is_meant(frame: FrameType | None) -> bool:
    """Return whether SQLAlchemy loads by itself: for a flush, a refresh, or because it was told.

    It tells the strategies so, for `lazy="raise"`, and nobody else.
    """
    while frame is not None:
        if frame.f_code.co_name == "_load_for_state" and "passive" in frame.f_locals:
            return bool(frame.f_locals["passive"] & PassiveFlag.NO_RAISE)
        frame = frame.f_back
    return False


def _count(
    relationship: RelationshipProperty[Any], state: InstanceState[Any], loaded: dict[Any, Any]
) -> None:
    if state.runid is None:  # of no query: the session wrote it
        return
    # For each relationship the queries, and the first row of each that it was loaded for.
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
        "or they are deferred; refresh the row, read it again, or make sessions with "
        "expire_on_commit=False"
    )
