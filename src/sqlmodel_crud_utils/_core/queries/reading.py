"""Finds statements that only read, and so need no primary database or no transaction."""

from __future__ import annotations

import re
import weakref
from typing import Any

from sqlalchemy import CompoundSelect, Select, TextualSelect, UpdateBase
from sqlalchemy.sql import visitors
from sqlalchemy.sql.compiler import SQLCompiler

from sqlmodel_crud_utils._core.sqlalchemy_internals import may_lock, source_of


def only_reads(statement: Any) -> bool:
    """Return whether a statement is a SELECT that neither writes nor locks, at any depth.

    `text()` may write, so it does not count; functions may write too, but count as reading.
    """
    source = source_of(statement)
    if not isinstance(source, Select | CompoundSelect):
        return False
    known = _known.get(source)
    if known is None:
        known = _known[source] = not any(_may_write(part) for part in visitors.iterate(source))
    return known


# Walking a statement takes a tenth of a read's time, and the library's statements repeat.
_known: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()


def _may_write(part: Any) -> bool:
    return isinstance(part, UpdateBase | TextualSelect) or (
        isinstance(part, Select | CompoundSelect) and may_lock(part)
    )


# --- the text that is sent -----------------------------------------------------------------------

_SELECT = re.compile(r"\s*SELECT\b")
_LOCKS_OR_HIDES = re.compile(r"\b(FOR|INTO)\b|;|--|/\*", re.IGNORECASE)
_BEFORE_PARENTHESIS = re.compile(r'([\w$".]+)\s*\(')

# Words that may precede a parenthesis and only read. Any other word may be a function that writes,
# such as `nextval`.
_HARMLESS = frozenset(
    (
        *("ALL", "AND", "ANY", "AS", "BETWEEN", "BY", "CAST", "DISTINCT", "ELSE", "EXCEPT"),
        *("EXISTS", "FROM", "ILIKE", "IN", "INTERSECT", "JOIN", "LATERAL", "LIKE", "NOT"),
        *("NUMERIC", "ON", "OR", "OVER", "SELECT", "THEN", "UNION", "VALUES", "VARCHAR"),
        *("WHEN", "WHERE", "avg", "coalesce", "count", "length", "lower", "max", "min", "sum"),
        "upper",
    )
)


def is_harmless(compiled: SQLCompiler) -> bool:
    """Return whether a statement is a SELECT that locks no rows and calls no unknown function.

    What counts is the text that is sent, whatever it was made of.
    """
    known = _harmless.get(compiled)
    if known is None:
        text = compiled.string
        known = _harmless[compiled] = (
            not compiled.isplaintext
            and _SELECT.match(text) is not None
            and _LOCKS_OR_HIDES.search(text) is None
            and _HARMLESS.issuperset(_BEFORE_PARENTHESIS.findall(text))
        )
    return known


# SQLAlchemy caches compiled statements, so the result is cached with them.
_harmless: weakref.WeakKeyDictionary[SQLCompiler, bool] = weakref.WeakKeyDictionary()
