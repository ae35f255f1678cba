"""What a session still holds of earlier reads, and how a new read gets past it.

SQLAlchemy never loads a relationship again that an object holds already, and an object keeps the
loader options of the query that brought it in. A read that leaves out deleted rows, or brings
them back, must not be answered from such memories.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.orm import InstanceState, Session
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.orm.interfaces import ORMOption

from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.models.policies import USUAL, Visibility
from sqlmodel_crud_utils._core.visibility.hiding import Hiding, hiding_options
from sqlmodel_crud_utils._session.sqlalchemy_internals import path_of

Held = tuple[InstanceState[Any], str, Any]
"""An object, the name of a relationship, and what it holds."""


def loads_anew(*models: type[Any], eagerly: bool) -> bool:
    """Return whether a read of models has relationships to load that may hold deleted rows."""
    if not hiding_options(USUAL, *models):
        return False
    return eagerly or any(facts_of(each).loads_eagerly for each in models)


@contextmanager
def loaded_anew(session: Session, *models: type[Any], eagerly: bool) -> Iterator[None]:
    """Let the read inside load relationships that the session's objects hold already.

    What the read doesn't load again is as it was afterwards, the relationships of other objects
    in particular. Changes of a relationship that are not flushed yet stay, so flush them first
    where the session would do so before the query.

    Args:
        session: The session that reads; nothing is queried here.
        models: The models that are read.
        eagerly: Whether the read asks for related rows (what the models' own relationships load
            eagerly is known).
    """
    held = set_aside(session) if loads_anew(*models, eagerly=eagerly) else []
    try:
        yield
    finally:
        put_back(held)


def set_aside(session: Session) -> list[Held]:
    """Take away the relationships that the session's objects hold, and return them."""
    states = [instance_state(instance) for instance in session.identity_map.values()]
    return [
        (state, key, state.dict.pop(key))
        for state in states
        for key in state.mapper.relationships.keys()
        if key in state.dict and key not in state.committed_state
    ]


def put_back(held: Iterable[Held]) -> None:
    """Give objects the relationships back that were set aside, and not loaded again."""
    for state, key, value in held:
        state.dict.setdefault(key, value)


def remember_choice(
    states: Iterable[InstanceState[Any]], *models: type[Any], visibility: Visibility
) -> None:
    """Let later lazy loading of these rows do as the read did that returned them.

    Rows that the session held before the read keep the options of the query that loaded them;
    objects that the program made itself have none.
    """
    ours: tuple[ORMOption, ...] = hiding_options(visibility, *models)
    held, chosen = None, ours
    for state in states if hiding_options(USUAL, *models) else ():
        # The rows of one query have the same options, and mostly the right ones.
        if state.load_options is not held:
            held = state.load_options
            others = tuple(option for option in held if not isinstance(option, Hiding))
            chosen = (*ours, *others)
        state.load_options = chosen
        if state.load_path.is_root:
            # Options stand on the path of the query that loaded the row; here there was none.
            state.load_path = path_of(state.mapper)
