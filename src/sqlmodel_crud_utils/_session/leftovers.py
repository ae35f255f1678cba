"""Relationships and loader options that objects keep from earlier reads, and how to override them.

SQLAlchemy does not reload a relationship that an object already holds, and an object keeps the
loader options of the query that loaded it. A read that leaves out deleted rows, or includes them,
must not return such leftovers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from sqlalchemy.orm import InstanceState, Session
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.orm.interfaces import ORMOption

from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.models.policies import USUAL, Visibility, here
from sqlmodel_crud_utils._core.visibility.hiding import Hiding, hiding_options
from sqlmodel_crud_utils._core.visibility.soft_delete import WITH_DELETED
from sqlmodel_crud_utils._session.sqlalchemy_internals import path_of

Held = tuple[InstanceState[Any], str, Any]
"""An object, the name of a relationship, and what it holds."""


def reloads_relationships(*models: type[Any], eagerly: bool) -> bool:
    """Return whether a read of models loads relationships that may hold deleted rows."""
    if not hiding_options(USUAL, *models):
        return False
    return eagerly or any(facts_of(each).loads_eagerly for each in models)


@contextmanager
def reloading_relationships(session: Session, *models: type[Any], eagerly: bool) -> Iterator[None]:
    """Make the read inside reload relationships that the session's objects already hold.

    Relationships that the read does not reload, such as those of other objects, are restored.
    Unflushed changes of a relationship stay, so flush first if the session would flush before the
    query.

    Args:
        session: The session that reads; nothing is queried here.
        models: The models that are read.
        eagerly: Whether the read asks for related rows, besides those that the models'
            relationships load eagerly.
    """
    held = set_aside(session) if reloads_relationships(*models, eagerly=eagerly) else []
    try:
        yield
    finally:
        put_back(held)


@contextmanager
def shown_to_deletion(row: Any) -> Iterator[Callable[[], None]]:
    """Let the flush inside see all that refers to a row that it deletes.

    Relationships that were read without soft-deleted rows would keep the unit of work from these:
    from their references, their links and what it deletes along.

    Args:
        row: The row that is deleted.

    Yields:
        What has to be called before; it may query the database.
    """
    shown: list[_Shown] = []

    def show() -> None:
        state = instance_state(row)
        if facts_of(state.class_).leaves_alone or not hiding_options(USUAL, state.class_):
            return
        shown.append(_Shown.of(state))
        # What is deleted along is found and loaded one by one, each after what it is found by.
        for _, _, related, _ in state.mapper.cascade_iterator("delete", state):
            shown.append(_Shown.of(related))

    try:
        yield show
    finally:
        for each in shown:
            each.end()


class _Shown(NamedTuple):
    """An object whose relationships are loaded with soft-deleted rows for a while."""

    state: InstanceState[Any]
    options: tuple[ORMOption, ...]
    path: Any
    held: dict[str, Any]

    @classmethod
    def of(cls, state: InstanceState[Any]) -> _Shown:
        """Forget what an object holds of the rows that refer to it, and let it load all of them."""
        names = facts_of(state.class_).referring
        loaded = [
            name for name in names if name in state.dict and name not in state.committed_state
        ]
        shown = cls(
            state,
            state.load_options,
            state.load_path,
            {name: state.dict.pop(name) for name in loaded},
        )
        remember_choice([state], state.class_, visibility=here(WITH_DELETED))
        return shown

    def end(self) -> None:
        """Let the object hold what it held, unless a rollback has made it forget everything."""
        self.state.load_options, self.state.load_path = self.options, self.path
        if not self.state.expired:
            self.state.dict.update(self.held)


def set_aside(session: Session) -> list[Held]:
    """Remove and return the relationships that the session's objects hold."""
    states = [instance_state(instance) for instance in session.identity_map.values()]
    return [
        (state, key, state.dict.pop(key))
        for state in states
        for key in state.mapper.relationships.keys()
        if key in state.dict and key not in state.committed_state
    ]


def put_back(held: Iterable[Held]) -> None:
    """Restore the relationships that were set aside and have not been reloaded."""
    for state, key, value in held:
        state.dict.setdefault(key, value)


def remember_choice(
    states: Iterable[InstanceState[Any]], *models: type[Any], visibility: Visibility
) -> None:
    """Make later lazy loads of these rows follow the visibility of the read that returned them.

    Otherwise rows that the session already held would keep the options of the query that loaded
    them, and objects that the program created would have no options.
    """
    ours: tuple[ORMOption, ...] = hiding_options(visibility, *models)
    held, chosen = None, ours
    for state in states if hiding_options(USUAL, *models) else ():
        # Rows of one query share their options, usually the right ones.
        if state.load_options is not held:
            held = state.load_options
            others = tuple(option for option in held if not isinstance(option, Hiding))
            chosen = (*ours, *others)
        state.load_options = chosen
        if state.load_path.is_root:
            # Options apply to the path of the query that loaded the row; no query loaded this one.
            state.load_path = path_of(state.mapper)
