"""Sessions in which a lazy load raises an error that says how to load the rows beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from sqlmodel_crud_utils._runtime_async import (
    CAN_LOAD,
    AnySession,
    require_session,
    sync_session,
)
from sqlmodel_crud_utils._session.events import listen_to_loads
from sqlmodel_crud_utils._session.lazy_loads import KEY, Strictness, checked

__all__ = ["strict_loading"]


@contextmanager
def strict_loading(
    session: AnySession, mode: bool | Literal["n_plus_one"] = True
) -> Iterator[None]:
    """Inside the block, make a session's lazy loads raise an error that says how to load the rows.

    Sessions that `aio.session_factory` makes are strict from the start: there a lazy load fails
    anyway, and this error says more. It does not affect explicit loading (`selectin`, `joined`,
    `refresh`, `run_sync`), flushes and cascades, or rows that are already in the session.

    Args:
        session: The session.
        mode: True refuses lazy loads; in `aio`, those outside `run_sync` and the like. "n_plus_one"
            lets the first row of a query load a relationship lazily, and refuses it to the second.
            False allows all lazy loads.

    Returns:
        The block, for `with`.

    Raises:
        ValidationError: Another mode, or a session of the other API.

    Example:
        >>> from sqlmodel_crud_utils.exceptions import RelationshipNotLoadedError
        >>> _ = await write_row(
        ...     Hero(name="Rusty", secret_name="T", team=Team(name="Owls")), session
        ... )
        >>> session.expunge_all()
        >>> with strict_loading(session):
        ...     _, heroes = await get_rows(session, Hero)
        ...     try:
        ...         heroes[0].team
        ...     except RelationshipNotLoadedError as error:
        ...         print(error)
        Hero.team is not loaded; read the row with selectin("team") or joined("team"), or with select_in_keys=["team"]
    """  # noqa: E501 - the text of the error is one line
    info = sync_session(require_session(session)).info
    found = Strictness(checked(mode), CAN_LOAD)
    listen_to_loads()
    before = info.get(KEY)
    info[KEY] = found
    try:
        yield
    finally:
        info[KEY] = before
