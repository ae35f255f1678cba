"""What a flush must not meet before it is its turn: new rows, and changes of others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from sqlalchemy.orm import InstanceState, PassiveFlag
from sqlalchemy.orm.attributes import instance_state, set_committed_value

from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.rows import states_of, with_related

_WITHOUT_QUERY = PassiveFlag.PASSIVE_NO_INITIALIZE | PassiveFlag.INCLUDE_PENDING_MUTATIONS


class SetApart:
    """Keeps new rows out of their session, and off the rows they are linked with.

    The flush before a savepoint would insert those that were added already, and warn of those
    that hang on a row of the session, as in `Hero(team=team)`.
    """

    def __init__(self, rows: Iterable[Any]) -> None:
        self._links: list[tuple[Any, str, Any]] = []
        self._shown = False
        for state in map(instance_state, rows):
            if state.key is None:
                self._take(state)

    def __enter__(self) -> Self:
        """Return itself; at the exit all links are there again, whatever happened."""
        return self

    def __exit__(self, *_: object) -> None:
        """Put all links back."""
        self.put_back()

    def put_back(self, only: Any = None) -> None:
        """Link all rows, or only one, as they were; to add them is left to the caller."""
        waiting, self._links = self._links, []
        for row, name, value in waiting:
            if only is None or row is only:
                setattr(row, name, self._taken_back(row, name) if self._shown else value)
            else:
                self._links.append((row, name, value))

    def show(self) -> None:
        """Let the rows show what they are linked with; the others do not hear of it."""
        for row, name, value in self._links:
            set_committed_value(row, name, value)
        self._shown = True

    def _taken_back(self, row: Any, name: str) -> Any:
        """Return what a row shows, or a hook has put in its place, and take it away again."""
        state = instance_state(row)
        value = _plain(state.dict[name])
        setattr(row, name, _nothing_like(value))
        del state.dict[name]
        state.committed_state.pop(name, None)
        return value

    def _take(self, state: InstanceState[Any]) -> None:
        row = state.obj()
        if state.session is not None:
            state.session.expunge(row)
        for name, relationship in state.mapper.relationships.items():
            value: Any = state.dict.get(name)
            if _is_known_to(row, value, relationship.back_populates):
                self._links.append((row, name, _plain(value)))
                setattr(row, name, _nothing_like(value))


class seen_by_hooks:  # noqa: N801 - reads as a function
    """Let a new row show its links inside, while the rows it is linked with know nothing of it.

    A hook may look at them, and query: the flush before its query would warn of the row.
    """

    __slots__ = ("_apart",)

    def __init__(self, row: Any) -> None:
        self._apart = SetApart([row])

    def __enter__(self) -> None:
        """Show the links."""
        self._apart.show()

    def __exit__(self, *_: object) -> None:
        """Put the links back, as the row or a hook has them."""
        self._apart.put_back()


def _plain(value: Any) -> Any:
    """Return a related row, or related rows in a collection that no event is fired for."""
    if isinstance(value, list):
        return list(value)
    return set(value) if isinstance(value, set) else value


def _nothing_like(value: Any) -> Any:
    if isinstance(value, list):
        return []
    return set() if isinstance(value, set) else None


def _is_known_to(row: Any, value: Any, name: str | None) -> bool:
    """Return whether one of the linked rows has this one among what it was given."""
    others = value if isinstance(value, list | set) else [value]
    return name is not None and any(
        each is row
        for state in states_of(others)
        for each in state.get_history(name, _WITHOUT_QUERY).added or ()
    )


Places = list[tuple[Any, str]]


def missing_keys(rows: Iterable[Any]) -> Places:
    """Return the new instances that have no key yet, each with the name of what is missing.

    Those that come along through relationships are among them.
    """
    return [
        (state.obj(), name)
        for state in with_related(states_of(rows))
        if state.key is None
        for name in facts_of(state.mapper.class_).key
        if state.dict.get(name) is None
    ]


def forget_keys(places: Places) -> None:
    """Take the keys away again from those that are not in the database."""
    for row, name in places:
        if instance_state(row).key is None:
            setattr(row, name, None)
