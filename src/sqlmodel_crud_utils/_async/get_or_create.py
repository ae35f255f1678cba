"""One row: found, or else created, also when another caller creates it at the same time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Select
from sqlalchemy.exc import IntegrityError

from sqlmodel_crud_utils._async.hook_calls import hooks_of
from sqlmodel_crud_utils._async.operations import Write, insist, searching
from sqlmodel_crud_utils._async.queries import fetch
from sqlmodel_crud_utils._async.writes import insert
from sqlmodel_crud_utils._core.blocks import begin_immediate
from sqlmodel_crud_utils._core.errors import translate
from sqlmodel_crud_utils._core.loaders import read_options
from sqlmodel_crud_utils._core.models import mapper_of
from sqlmodel_crud_utils._core.payload import values_for
from sqlmodel_crud_utils._core.soft_delete import hide_deleted, is_soft_delete
from sqlmodel_crud_utils._core.statements import equal_to
from sqlmodel_crud_utils._runtime_async import (
    AnySession,
    AsyncSession,
    dialect_of,
    require_session,
    run_on_connection,
)
from sqlmodel_crud_utils.exceptions import ConstraintViolationError

__all__ = ["get_one_or_create"]

T = TypeVar("T")

_NAME = "get_one_or_create"


async def get_one_or_create(
    session_inst: AnySession,
    model: type[T],
    create_method_kwargs: Mapping[str, Any] | None = None,
    selectin: bool = False,
    select_in_key: str | None = None,
    *,
    raise_on_error: bool | None = None,  # noqa: ARG001 - taken for symmetry
    include_deleted: bool = False,
    **kwargs: Any,
) -> tuple[T, bool]:
    """Return the row with these values, and create it if there is none.

    Two callers that create the same unique row at the same time both get that one row, and the
    transaction of the one that came second stays usable.

    Outside a `transaction()` block a creation commits the session, and a failure rolls it back,
    with everything else that was pending in it. Inside a block nothing is committed.

    Args:
        session_inst: The session to work with.
        model: The table model.
        create_method_kwargs: Further values of a new row; they win over those searched for.
        selectin: Whether the relationship `select_in_key` is loaded with the row.
        select_in_key: The name of a relationship, a nested one as "team.city".
        raise_on_error: Taken for symmetry: a failure always raises here.
        include_deleted: Whether a soft-deleted row counts as found.
        kwargs: The values to search for, by field or to-one relationship.

    Returns:
        The row, and whether it was already there. Of several such rows it is the first.

    Raises:
        ConstraintViolationError: The new row breaks a constraint; if a soft-deleted row holds its
            unique value, the text says so.
        UnknownFieldError: A name that is no field of the model.
        ValidationError: A value that its field does not take.
        DatabaseConnectionError: The database cannot be reached.

    Example:
        >>> hero, existed = await get_one_or_create(
        ...     session, Hero, {"secret_name": "Tommy"}, name="Rusty"
        ... )
        >>> existed
        False
        >>> hero, existed = await get_one_or_create(session, Hero, name="Rusty")
        >>> hero.secret_name, existed
        ('Tommy', True)
    """
    session = require_session(session_inst)
    mapper_of(model)
    wanted = values_for(model, kwargs)
    values = {**wanted, **values_for(model, create_method_kwargs or {})}
    everyone = equal_to(model, wanted)
    statement = (everyone if include_deleted else hide_deleted(everyone, model)).options(
        *read_options(model, selectin, select_in_key, False, None)
    )
    search = _Search(session, model, statement, bool(selectin), include_deleted)
    write = Write(session, model, _NAME, raise_on_error=True, hooks=hooks_of(model, "create"))
    async with searching(write):
        row = await search.first()
    if row is not None:
        return row, True
    return await _create_or_find(write, search, values, everyone)


@dataclass(frozen=True, slots=True)
class _Search:
    """What is looked for, and how."""

    session: AsyncSession
    model: type[Any]
    statement: Select[Any]
    eagerly: bool
    include_deleted: bool

    async def first(self, *, as_of_now: bool = False) -> Any:
        """Return the first such row or None, on request past the transaction's snapshot."""
        statement = self.statement.limit(1)
        if as_of_now and dialect_of(self.session, self.model).name in {"mysql", "mariadb"}:
            # A transaction sees there what was committed before its first query, and the row that
            # got in first was committed since; only locking reads see it.
            statement = statement.with_for_update(read=True)
        rows = await fetch(
            self.session,
            self.model,
            statement,
            eagerly=self.eagerly,
            include_deleted=self.include_deleted,
        )
        return rows[0] if rows else None


async def _create_or_find(
    write: Write, search: _Search, values: Mapping[str, Any], everyone: Select[Any]
) -> tuple[Any, bool]:
    """Create the row; where another caller was faster, return theirs."""
    existed = False

    async def work() -> Sequence[Any]:
        nonlocal existed
        try:
            row = await _insert_alone(write, values)
        except IntegrityError as refusal:
            row = await search.first(as_of_now=True)
            if row is None:
                await _explain_if_deleted(search, everyone, refusal)
                raise
            existed = True
        return [row]

    rows = await insist(write, work)
    return rows[0], existed


async def _insert_alone(write: Write, values: Mapping[str, Any]) -> Any:
    """Insert a row in a savepoint, so that a refusal costs nothing but this row."""
    await run_on_connection(write.session, begin_immediate)
    async with write.session.begin_nested():
        return await insert(write.session, write.model(**values), write.hooks)


async def _explain_if_deleted(
    search: _Search, everyone: Select[Any], refusal: IntegrityError
) -> None:
    if not is_soft_delete(search.model) or search.include_deleted:
        return
    rows = await fetch(search.session, search.model, everyone.limit(1), include_deleted=True)
    if not rows:
        return
    found = translate(refusal, search.model)
    raise ConstraintViolationError(
        f"a soft-deleted {search.model.__name__} row holds the values; restore it, "
        "pass include_deleted=True to get it, or declare the key with unique_when_visible",
        kind="unique",
        constraint=getattr(found, "constraint", None),
        columns=getattr(found, "columns", ()),
    ) from refusal
