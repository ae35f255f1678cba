"""SQL as text in a statement, which may name any table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnClause, TextClause

_HARMLESS = re.compile(r"\*|[\w.]+|'[^']*'")


def texts_in(element: Any) -> Iterator[str]:
    """Yield the SQL of `text()` and `literal_column()`, except names of columns and literals."""
    if isinstance(element, TextClause):
        yield element.text
    elif isinstance(element, ColumnClause) and element.is_literal:
        yield from () if _HARMLESS.fullmatch(element.name) else (element.name,)
