"""Listeners to all mappers and sessions, registered once."""

from __future__ import annotations

from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Mapper, ORMExecuteState, Session

from sqlmodel_crud_utils._core.caching import forget_all
from sqlmodel_crud_utils._core.listeners import own
from sqlmodel_crud_utils._core.visibility.hiding import (
    has_soft_delete_links,
    without_deleted_links,
)


@own
def _on_execute(execution: ORMExecuteState) -> None:
    if execution.is_relationship_load:
        options = execution.user_defined_options
        execution.statement = without_deleted_links(execution.statement, options)


def is_own_listener(function: Any) -> bool:
    """Return whether a listener to statements is the library's, not the caller's."""
    return function is _on_execute


@event.listens_for(Mapper, "after_configured")
def _on_configured() -> None:
    forget_all()
    # Only programs that have such a link table pay for the listener.
    if has_soft_delete_links() and not event.contains(Session, "do_orm_execute", _on_execute):
        event.listen(Session, "do_orm_execute", _on_execute)
