"""SQL as text in a statement, which may name any table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnClause, TextClause
from sqlalchemy.sql.operators import custom_op

_HARMLESS = re.compile(r"\*|[\w.]+|'[^']*'")


def texts_in(element: Any) -> Iterator[str]:
    """Yield SQL of the caller's in an element: of `text()`, `literal_column()` and `op()`.

    Names of columns, literals and operators without parentheses read no table.
    """
    operator = getattr(element, "operator", None)
    if isinstance(element, TextClause):
        yield element.text
    elif isinstance(element, ColumnClause) and element.is_literal:
        yield from () if _HARMLESS.fullmatch(element.name) else (element.name,)
    elif isinstance(operator, custom_op) and "(" in operator.opstring:
        yield operator.opstring
