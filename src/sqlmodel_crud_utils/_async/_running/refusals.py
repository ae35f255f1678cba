"""Run work in a savepoint, so that a refusal by the database does not end the transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from sqlmodel_crud_utils._core.errors.translation import is_database_error, translate
from sqlmodel_crud_utils._runtime_async import AsyncSession, Work, sync_session
from sqlmodel_crud_utils._session.blocks import may_try_again
from sqlmodel_crud_utils._session.pending_rows import taking_back_keys
from sqlmodel_crud_utils.exceptions import SQLModelCRUDError, ValidationError

_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Work that the database has refused; the transaction is as it was before.

    Attributes:
        error: The error that was raised.
        failure: The same as the library's error.
    """

    error: Exception
    failure: SQLModelCRUDError

    def __post_init__(self) -> None:
        if self.failure is not self.error:
            # Also set if the failure is returned instead of raised.
            self.failure.__cause__ = self.error

    @property
    def is_of_rows(self) -> bool:
        """Whether a written row is to blame."""
        return isinstance(self.failure, ValidationError)

    def throw(self) -> NoReturn:
        """Raise it as the library's error."""
        if self.failure is self.error:
            raise self.failure
        raise self.failure from self.error


async def in_savepoint(
    session: AsyncSession, model: type[Any], work: Work[_R], *, adding: Sequence[Any] = ()
) -> _R | Refusal:
    """Run work in a savepoint, and return its result or the database's refusal.

    Errors that end the transaction propagate unchanged, because nothing else can be tried in it.

    Args:
        session: The session.
        model: The model that the work is about.
        work: The work.
        adding: New rows; keys that the work gives them are removed if it is undone.
    """
    try:
        with taking_back_keys(adding):
            async with session.begin_nested():
                return await work()
    except Exception as error:
        if not is_database_error(error):
            raise
        if not may_try_again(sync_session(session), error):
            raise
        return Refusal(error, translate(error, model))
