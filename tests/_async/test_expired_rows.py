"""Rows that a commit has expired, in every function that writes: read again where needed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from sqlmodel_crud_utils.aio import (
    QueryBuilder,
    Repository,
    delete_row,
    get_one_or_create,
    insert_data_rows,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.hooks import registered_hook
from sqlmodel_crud_utils.mixins import tenant_scope
from tests._runtime_async import AsyncSession
from tests.models import Hero, Team
from tests.tenant_models import Fleet, Ship


class Looking:
    """A hook that looks at all columns."""

    def after_create(self, instance: Any) -> None:
        """Look at the row."""
        repr(instance)

    def after_update(self, instance: Any) -> None:
        """Look at the row."""
        repr(instance)

    def before_delete(self, instance: Any) -> None:
        """Look at the row."""
        repr(instance)


@dataclass(frozen=True)
class Pair:
    """Two models: rows of the second refer to one of the first."""

    parent: type[Any]
    child: type[Any]
    to_one: str
    to_many: str

    def new(self, name: str, **values: Any) -> Any:
        """Return a row that refers to others."""
        more = {"secret_name": "?"} if self.child is Hero else {}
        return self.child(name=name, **more, **values)


PAIRS = {
    "plain": Pair(Team, Hero, "team", "heroes"),
    "of tenants": Pair(Fleet, Ship, "fleet", "ships"),
}


@dataclass
class Expired:
    """Two rows that are expired, and what they are."""

    session: AsyncSession
    pair: Pair
    parent: Any
    child: Any
    parent_key: int
    child_key: int

    def new(self, name: str = "new") -> Any:
        """Return a row that refers to the expired one."""
        return self.pair.new(name, **{self.pair.to_one: self.parent})

    async def write(self) -> None:
        """A new row whose parent is the expired one."""
        await write_row(self.new(), self.session, raise_on_error=True)

    async def write_parent(self) -> None:
        """A new row with the expired one as a child."""
        row = self.pair.parent(name="new", **{self.pair.to_many: [self.child]})
        await write_row(row, self.session, raise_on_error=True)

    async def write_again(self) -> None:
        """The expired row itself."""
        await write_row(self.child, self.session, raise_on_error=True)

    async def write_changed(self) -> None:
        """The expired row with another value."""
        self.child.name = "changed"
        await write_row(self.child, self.session, raise_on_error=True)

    async def insert_some(self) -> None:
        """A few rows."""
        rows = [self.new("new 1"), self.new("new 2")]
        await insert_data_rows(rows, self.session, raise_on_error=True)

    async def insert_many(self) -> None:
        """So many rows that the flush may be skipped."""
        rows = [self.new(f"new {number}") for number in range(150)]
        await insert_data_rows(rows, self.session, raise_on_error=True)

    async def create(self) -> None:
        """With a repository."""
        rows = Repository(self.session, self.pair.child)
        await rows.create(self.new())

    async def get_or_create(self) -> None:
        """A row that does not exist."""
        values = {self.pair.to_one: self.parent} | (
            {"secret_name": "?"} if self.pair.child is Hero else {}
        )
        await get_one_or_create(self.session, self.pair.child, values, name="new")

    async def update_to_one(self) -> None:
        """Another parent."""
        changes = {self.pair.to_one: self.parent}
        await update_row(
            self.child_key, changes, self.session, self.pair.child, raise_on_error=True
        )

    async def update_to_many(self) -> None:
        """Other children."""
        changes = {self.pair.to_many: [self.child]}
        await update_row(
            self.parent_key, changes, self.session, self.pair.parent, raise_on_error=True
        )

    async def update(self) -> None:
        """A column."""
        changes = {"name": "changed"}
        await update_row(
            self.child_key, changes, self.session, self.pair.child, raise_on_error=True
        )

    async def update_where(self) -> None:
        """The rows that a filter along the relationship finds."""
        rows = QueryBuilder(self.session, self.pair.child).where(name="first")
        await rows.update(name="changed")

    async def delete(self) -> None:
        """The expired row."""
        await delete_row(self.child_key, self.session, self.pair.child, raise_on_error=True)


WAYS: list[Callable[[Expired], Any]] = [
    Expired.write,
    Expired.write_parent,
    Expired.write_again,
    Expired.write_changed,
    Expired.insert_some,
    Expired.insert_many,
    Expired.create,
    Expired.get_or_create,
    Expired.update_to_one,
    Expired.update_to_many,
    Expired.update,
    Expired.update_where,
    Expired.delete,
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("in_block", [False, True], ids=["alone", "in a block"])
@pytest.mark.parametrize("is_hooked", [False, True], ids=["plain", "hooked"])
@pytest.mark.parametrize("pair", PAIRS.values(), ids=list(PAIRS))
async def test_expired_rows_can_be_written(
    session: AsyncSession,
    pair: Pair,
    is_hooked: bool,
    in_block: bool,
    way: Callable[[Expired], Any],
) -> None:
    """Nothing is read where no query can be sent, and no flush meets a row too early."""
    with ExitStack() as scopes:
        scopes.enter_context(tenant_scope("a"))
        _, parent = await write_row(pair.parent(name="first"), session, raise_on_error=True)
        _, child = await write_row(pair.new("first"), session, raise_on_error=True)
        await session.refresh(parent)
        for model in (pair.parent, pair.child) if is_hooked else ():
            scopes.enter_context(registered_hook(model, Looking()))
        rows = Expired(session, pair, parent, child, parent.id, child.id)
        session.expire_all()
        if in_block:
            async with transaction(session):
                await way(rows)
        else:
            await way(rows)
