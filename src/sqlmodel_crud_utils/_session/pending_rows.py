"""New rows that are kept away from the session's flushes until it is their turn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from sqlalchemy.orm import InstanceState, PassiveFlag
from sqlalchemy.orm.attributes import instance_state, set_committed_value

from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.returned_rows import states_of, with_related

_WITHOUT_QUERY = PassiveFlag.PASSIVE_NO_INITIALIZE | PassiveFlag.INCLUDE_PENDING_MUTATIONS


class SetApart:
    """Keeps new rows out of their session, and unlinked from related rows.

    The flush before a savepoint would insert rows that are already added, and warn about rows
    that are linked with a row of the session, as in `Hero(team=team)`.
    """

    def __init__(self, rows: Iterable[Any]) -> None:
        self._links: list[tuple[Any, str, Any]] = []
        self._shown = False
        for state in map(instance_state, rows):
            if state.key is None:
                self._take(state)

    def __enter__(self) -> Self:
        """Return itself; the exit restores all links, also after an error."""
        return self

    def __exit__(self, *_: object) -> None:
        """Restore all links."""
        self.put_back()

    def put_back(self, only: Any = None) -> None:
        """Restore the links of all rows, or of one; the caller adds the rows to the session."""
        waiting, self._links = self._links, []
        for row, name, value in waiting:
            if only is None or row is only:
                setattr(row, name, self._taken_back(row, name) if self._shown else value)
            else:
                self._links.append((row, name, value))

    def show(self) -> None:
        """Set the links on the new rows, without events that would change the related rows."""
        for row, name, value in self._links:
            set_committed_value(row, name, value)
        self._shown = True

    def _taken_back(self, row: Any, name: str) -> Any:
        """Remove and return a row's link, which a hook may have replaced."""
        state = instance_state(row)
        value = _plain(state.dict[name])
        setattr(row, name, _empty_like(value))
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
                setattr(row, name, _empty_like(value))


class seen_by_hooks:  # noqa: N801 - reads as a function
    """Show a new row's links inside, while the related rows do not refer back to it.

    So a hook can look at the links, and query: otherwise the flush before its query would warn
    about the row.
    """

    __slots__ = ("_apart",)

    def __init__(self, row: Any) -> None:
        self._apart = SetApart([row])

    def __enter__(self) -> None:
        """Show the links."""
        self._apart.show()

    def __exit__(self, *_: object) -> None:
        """Restore the links, as the row has them or a hook has changed them."""
        self._apart.put_back()


def _plain(value: Any) -> Any:
    """Return a related row, or a copy of a collection as a plain list or set without events."""
    if isinstance(value, list):
        return list(value)
    return set(value) if isinstance(value, set) else value


def _empty_like(value: Any) -> Any:
    if isinstance(value, list):
        return []
    return set() if isinstance(value, set) else None


def _is_known_to(row: Any, value: Any, name: str | None) -> bool:
    """Return whether one of the linked rows has the row among its unflushed additions."""
    others = value if isinstance(value, list | set) else [value]
    return name is not None and any(
        each is row
        for state in states_of(others)
        for each in state.get_history(name, _WITHOUT_QUERY).added or ()
    )


class taking_back_keys:  # noqa: N801 - reads as a function; generators would cost more
    """Remove the keys again that new rows are given inside, if that fails.

    New rows that they are related to are included. Keys that the caller gave stay.
    """

    __slots__ = ("_places",)

    def __init__(self, rows: Iterable[Any]) -> None:
        self._places = _missing_keys(rows)

    def __enter__(self) -> None:
        """Do nothing: the missing keys are known already."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Remove the keys from objects that have no row, after an error."""
        if kind is not None:
            for row, name in self._places:
                if instance_state(row).key is None:
                    setattr(row, name, None)


def _missing_keys(rows: Iterable[Any]) -> list[tuple[Any, str]]:
    return [
        (state.obj(), name)
        for state in with_related(states_of(rows))
        if state.key is None
        for name in facts_of(state.mapper.class_).key
        if state.dict.get(name) is None
    ]
