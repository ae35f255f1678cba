"""Keys that the database gave to new rows, and that an undone insert takes back.

SQLAlchemy leaves them in the instances; a second attempt would then insert explicit keys past the
sequence.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy.orm.attributes import instance_state

from sqlmodel_crud_utils._core.models import primary_key_names
from sqlmodel_crud_utils._core.rows import states_of, with_related

Places = list[tuple[Any, str]]


def missing_keys(rows: Iterable[Any]) -> Places:
    """Return the new instances that have no key yet, each with the name of what is missing.

    Those that come along through relationships are among them.
    """
    return [
        (state.obj(), name)
        for state in with_related(states_of(rows))
        if state.key is None
        for name in primary_key_names(state.mapper.class_)
        if state.dict.get(name) is None
    ]


def forget(places: Places) -> None:
    """Take the keys away again from those that are not in the database."""
    for row, name in places:
        if instance_state(row).key is None:
            setattr(row, name, None)
