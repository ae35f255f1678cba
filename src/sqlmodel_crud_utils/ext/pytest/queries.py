"""Count the statements that a piece of code sends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlmodel_crud_utils._session.events import listening_to_statements
from sqlmodel_crud_utils.exceptions import ValidationError

__all__ = ["assert_queries"]

_CONTROL = ("BEGIN", "START", "SAVEPOINT", "RELEASE", "ROLLBACK", "COMMIT")


@contextmanager
def assert_queries(count: int) -> Iterator[list[str]]:
    """Fail unless the block sends exactly this number of statements.

    Statements of all engines, threads and tasks count, including COPY. Statements that begin or end
    a transaction or a savepoint do not. An INSERT that SQLAlchemy sends in parts counts once for
    each part.

    Args:
        count: The expected number, 0 or more.

    Returns:
        A context manager that yields the list of the statements, in order, without their values.

    Raises:
        AssertionError: There were more or fewer; the message lists them.
        ValidationError: A count that is not a number, or below 0.

    Example:
        >>> with assert_queries(1) as queries:
        ...     _ = session.get(Hero, 1)
        >>> queries[0].split()[0]
        'SELECT'
    """
    if not isinstance(count, int) or count < 0:
        raise ValidationError(f"must be 0 or more, not {count!r}", field="count")
    queries: list[str] = []

    def note(statement: str) -> None:
        if not statement.lstrip().upper().startswith(_CONTROL):
            queries.append(statement)

    with listening_to_statements(note):
        yield queries
    if len(queries) != count:
        listed = "".join(f"\n{place}. {text}" for place, text in enumerate(queries, start=1))
        raise AssertionError(f"expected {_statements(count)}, but {len(queries)} sent:{listed}")


def _statements(count: int) -> str:
    return "1 statement" if count == 1 else f"{count} statements"
