"""Unique values that soft-deleted rows hold: used again, or explained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from sqlmodel_crud_utils.aio import (
    get_one_or_create,
    get_rows,
    insert_data_rows,
    restore_row,
    soft_delete_row,
    transaction,
    write_row,
)
from sqlmodel_crud_utils.exceptions import (
    ConstraintViolationError,
    TransactionError,
)
from sqlmodel_crud_utils.hooks import registered_hook
from tests._runtime_async import AsyncSession
from tests.models_mixins import Membership, Voucher

Sessions = Callable[[], AsyncSession]


async def test_a_unique_value_that_only_a_deleted_row_holds(session: AsyncSession):
    """`unique_when_not_deleted` lets it be used again."""
    rows = [Membership(email="a@b", nick="al", is_deleted=True)]
    await insert_data_rows(rows, session, raise_on_error=True)
    key = rows[0].id
    member, existed = await get_one_or_create(session, Membership, {"nick": "al"}, email="a@b")
    assert (member.id == key, existed) == (False, False)
    with pytest.raises(ConstraintViolationError):
        await write_row(Membership(email="a@b", nick="b"), session, raise_on_error=True)


async def deleted_ticket(session: AsyncSession) -> None:
    """Write a row with two unique values, and delete it."""
    rows = [Voucher(code="X1", email="a@b"), Voucher(code="X2", email="c@d")]
    await insert_data_rows(rows, session, raise_on_error=True)
    await soft_delete_row("X1", session, Voucher, "code")


CLASHES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "the value that is looked for": ({"code": "X1"}, {"email": "e@f"}, "code"),
    "a value of the new row": ({"code": "X3"}, {"email": "a@b"}, "email"),
}


@pytest.mark.parametrize("what", CLASHES)
async def test_the_error_explains_a_value_that_only_a_deleted_row_holds(
    session: AsyncSession, what: str
):
    """It says what to do, which works; the session stays usable."""
    await deleted_ticket(session)
    wanted, others, column = CLASHES[what]
    with pytest.raises(ConstraintViolationError, match="soft-deleted Voucher row holds") as caught:
        await get_one_or_create(session, Voucher, others, **wanted)
    assert (caught.value.kind, caught.value.columns) == ("unique", (column,))
    assert isinstance(caught.value.__cause__, IntegrityError)
    voucher, existed = await get_one_or_create(session, Voucher, include_deleted=True, code="X1")
    assert (existed, voucher.is_deleted) == (True, True)
    await restore_row("X1", session, Voucher, "code")
    voucher, existed = await get_one_or_create(session, Voucher, code="X1")
    assert (existed, voucher.is_deleted) == (True, False)


async def test_other_violations_are_not_explained_so(session: AsyncSession):
    """A visible row that is in the way, and constraints of another kind."""
    await deleted_ticket(session)
    with pytest.raises(ConstraintViolationError) as caught:
        await get_one_or_create(session, Voucher, {"email": "c@d"}, code="X3")
    assert "soft-deleted" not in str(caught.value)
    with pytest.raises(ConstraintViolationError) as caught:
        await get_one_or_create(session, Voucher, {"email": "e@f", "owner_id": 99}, code="X3")
    assert (caught.value.kind, "soft-deleted" in str(caught.value)) == ("foreign_key", False)


async def test_the_explanation_inside_a_block(session: AsyncSession):
    """The same error; the block ends as after every refusal."""
    await deleted_ticket(session)
    with pytest.raises(TransactionError):
        async with transaction(session):
            with pytest.raises(ConstraintViolationError, match="soft-deleted Voucher"):
                await get_one_or_create(session, Voucher, {"email": "e@f"}, code="X1")
    assert (await get_rows(session, Voucher))[1][0].code == "X2"


@pytest.mark.databases("postgresql", "mysql")
async def test_a_row_that_is_created_and_deleted_meanwhile(
    session: AsyncSession, session_factory: Sessions
):
    """Between the search and the insertion; a transaction on MySQL sees it only by locking."""
    other = session_factory()
    async with transaction(session, wrap_errors=False):
        assert (await get_rows(session, Voucher))[0] is False
        await deleted_ticket(other)
        with pytest.raises(ConstraintViolationError, match="soft-deleted Voucher"):
            await get_one_or_create(session, Voucher, {"email": "e@f"}, code="X1")
        await session.rollback()


@pytest.mark.databases("postgresql", "mysql")
async def test_a_row_that_is_restored_meanwhile(session: AsyncSession, session_factory: Sessions):
    """It is visible by now, so it is returned."""
    other = session_factory()
    await deleted_ticket(other)
    async with transaction(session, wrap_errors=False):
        assert (await get_rows(session, Voucher, code="X1"))[0] is False
        created = WhileCreating(lambda: restore_row("X1", other, Voucher, "code"))
        with registered_hook(Voucher, created):
            voucher, existed = await get_one_or_create(session, Voucher, email="a@b", code="X1")
    assert (voucher.code, existed) == ("X1", True)


class WhileCreating:
    """Does something between the search and the insertion."""

    def __init__(self, action: Callable[[], Any]) -> None:
        self._action = action

    async def before_create(self, _instance: Any) -> None:
        """Let another session act."""
        await self._action()
