"""The targets for the async API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.results import Result

# The largest ratio to handwritten SQLAlchemy, on SQLite and on PostgreSQL.
RATIOS = {
    "get by key": (0.65, 0.75),
    "filtered list of 100": (0.75, 0.88),
    "list of 100 as dicts": (0.60, 0.60),
    "100 values of a field": (0.60, 0.60),
    "count": (1.00, 1.00),
    "20 rows with related ones (selectin)": (1.00, 1.00),
    "page with total": (0.95, 1.00),
    "write": (0.90, 0.95),
    "update by key": (0.60, 0.62),
    "update by key, audited": (0.60, 0.62),
    "delete by key": (0.90, 0.90),
    "get-or-create, exists": (1.00, 1.00),
    "get-or-create, new": (0.50, 0.60),
    "10 writes in a transaction": (0.85, 0.85),
    "soft delete: get by key": (0.95, 0.95),
    "soft delete: filtered list of 100": (0.98, 0.98),
    "soft delete: write": (1.10, 1.10),
    "soft delete: update by key": (0.80, 0.80),
    "soft delete: delete by key": (0.80, 0.80),
    "insert 10k mappings": (0.90, 0.70),
    "insert 100k mappings": (0.90, 0.70),
    "insert 10k, rows back": (0.30, 0.70),
    "upsert 10k, half existing, rows back": (0.85, 0.90),
    "update 10k ids": (0.70, 0.85),
    "delete 10k ids": (0.85, 0.35),
    "keyset page at depth 10": (1.00, 1.00),
    "keyset page at depth 300,000": (1.00, 1.00),
    "stream 200k rows": (0.70, 0.70),
    "stream 200k dicts": (0.22, 0.22),
    "write, no hook registered": (1.00, 1.00),
    "write, 1 hook": (1.10, 1.10),
    "update, 1 hook": (1.05, 1.05),
}
# The largest figure of the library, in the unit of the result.
LIMITS = {
    "stream 200k rows: growth": 5.0,
    "import sqlmodel_crud_utils": 1.0,
    "import sqlmodel_crud_utils.sync": 25.0,
    "import sqlmodel_crud_utils.aio": 25.0,
    "from sqlmodel_crud_utils.sync import *": 25.0,
    "from sqlmodel_crud_utils.aio import *": 25.0,
}
_COLUMNS = {"sqlite": 0, "postgresql": 1}


@dataclass(frozen=True)
class Verdict:
    """Whether a result meets its target.

    Attributes:
        target: The target.
        kind: Whether it applies to the ratio or to the library's own figure.
        met: Whether the result, rounded as shown, is no larger.
    """

    target: float
    kind: Literal["ratio", "figure"]
    met: bool


def verdict(result: Result) -> Verdict | None:
    """Return the verdict on a result, or None if it has no target."""
    if result.operation in LIMITS:
        limit = LIMITS[result.operation]
        return Verdict(limit, "figure", round(result.library, 1) <= limit)
    if result.api == "async" and result.operation in RATIOS and result.ratio is not None:
        target = RATIOS[result.operation][_COLUMNS[result.database]]
        return Verdict(target, "ratio", round(result.ratio, 2) <= target)
    return None
