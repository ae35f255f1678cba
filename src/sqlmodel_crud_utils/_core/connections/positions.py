"""How far a database has progressed: what `replication_token` returns and `read_after` accepts."""

from __future__ import annotations

import hashlib
import re
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from sqlmodel_crud_utils._core.scopes import Scope
from sqlmodel_crud_utils.exceptions import ValidationError

_TOKEN = r"(?P<body>[0-9a-f]{1,16}\.[0-9a-f]{1,16})\.(?P<check>[0-9a-f]{8})"  # noqa: S105 - a pattern


class Position(NamedTuple):
    """A place in the log of a PostgreSQL.

    Attributes:
        cluster: The number that a primary and its standbys share.
        offset: How many bytes the log had.
    """

    cluster: int
    offset: int

    def includes(self, other: Position) -> bool:
        """Return whether this position is in the same cluster as another, and not before it."""
        return self.cluster == other.cluster and self.offset >= other.offset

    def token(self) -> str:
        """Return the position as text, for a cookie or a header."""
        body = f"{self.cluster:x}.{self.offset:x}"
        return f"{body}.{_check(body)}"


def position_in(token: Any) -> Position:
    """Return the position in a token; refuse one that is damaged or not the library's."""
    found = re.fullmatch(_TOKEN, token) if isinstance(token, str) else None
    if found is None or _check(found["body"]) != found["check"]:
        raise ValidationError(
            "must be a token that replication_token() returned; this one is damaged", field="token"
        )
    cluster, offset = (int(part, 16) for part in found["body"].split("."))
    return Position(cluster, offset)


def _check(body: str) -> str:
    # The checksum detects damage, not forgery: a forged position only sends reads to the primary.
    return hashlib.blake2s(body.encode(), digest_size=4).hexdigest()


# --- what reads ask for --------------------------------------------------------------------------


class Freshness(NamedTuple):
    """How current a replica has to be for the reads in a block."""

    primary_only: bool = False
    after: Position | None = None


ANY = Freshness()

_freshness = Scope("freshness", default=ANY)


def wanted_freshness() -> Freshness:
    """Return how current the reads in this context have to be."""
    return _freshness.get()


def use_primary() -> AbstractContextManager[None]:
    """Send all reads inside the block to the primary.

    Use it for reads that must be fresh, and for a SELECT that calls a function with side effects.
    The block applies to this task or thread and the tasks started from it. It has no effect on
    sessions without replicas.

    Returns:
        A context manager for `with`, in async code too.

    Example:
        >>> from sqlmodel_crud_utils.sync import use_primary
        >>> with use_primary():
        ...     pass  # reads of sessions with replicas
    """
    return _freshness.holding(Freshness(primary_only=True))


def read_after(token: str | None) -> AbstractContextManager[None]:
    """Make reads inside the block see at least everything that was committed before a token.

    A replica serves the reads only if it has progressed that far; otherwise the primary does,
    without waiting. The block applies to this task or thread and the tasks started from it. Of
    nested blocks, the innermost counts; inside `use_primary()`, all reads go to the primary.

    Args:
        token: What `replication_token` returned, in this process or another. None and "" require
            nothing, for requests without a cookie yet.

    Returns:
        A context manager for `with`, in async code too.

    Raises:
        ValidationError: The token is damaged; or, raised by the first read, it is from another
            cluster.

    Example:
        >>> from sqlmodel_crud_utils.sync import read_after
        >>> with read_after(None):
        ...     pass  # reads of sessions with replicas
    """
    outer = _freshness.get()
    if token is None or token == "":
        return _freshness.holding(outer)
    return _freshness.holding(Freshness(outer.primary_only, position_in(token)))
