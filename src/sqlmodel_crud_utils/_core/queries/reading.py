"""Which statements only read, so that a copy of the database can answer them."""

from __future__ import annotations

import weakref
from typing import Any

from sqlalchemy import CompoundSelect, Select, TextualSelect, UpdateBase
from sqlalchemy.sql import visitors

from sqlmodel_crud_utils._core.sqlalchemy_internals import may_lock


def only_reads(statement: Any) -> bool:
    """Return whether a statement is a SELECT that neither writes nor locks, at any depth.

    Nobody can tell of `text()`. What functions do, nobody can tell either; they count as reading.
    """
    if not isinstance(statement, Select | CompoundSelect):
        return False
    known = _known.get(statement)
    if known is None:
        known = not any(_may_write(part) for part in visitors.iterate(statement))
        _known[statement] = known
    return known


# To walk through a statement takes a tenth of a read; those of the library come again and again.
_known: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()


def _may_write(part: Any) -> bool:
    return isinstance(part, UpdateBase | TextualSelect) or (
        isinstance(part, Select | CompoundSelect) and may_lock(part)
    )
