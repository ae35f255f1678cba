"""A column may have the name of any parameter: filters find it as plain SQLAlchemy does."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, strategies as st
from sqlalchemy import Connection, delete, insert, select
from sqlmodel import SQLModel

from sqlmodel_crud_utils.aio import AsyncQueryBuilder, get_one_or_create, get_row, get_rows
from sqlmodel_crud_utils.exceptions import UnknownFieldError, ValidationError
from tests._runtime_async import AsyncSession, execute, fetched, run_on_connection
from tests.properties import examples
from tests.query_models import Shelf

NAMES = [name for name in Shelf.model_fields if name != "id"]
EXAMPLES = examples(40)
ROWS = st.lists(
    st.fixed_dictionaries({name: st.none() | st.integers(0, 2) for name in NAMES}),
    min_size=1,
    max_size=5,
)


async def start(session: AsyncSession, rows: Sequence[dict[str, int | None]]) -> None:
    """Write rows in place of the existing ones."""

    def fill(connection: Connection) -> None:
        connection.execute(delete(Shelf))
        connection.execute(insert(Shelf), rows)

    await session.rollback()
    await run_on_connection(session, fill)
    await session.commit()


def ids(rows: Sequence[SQLModel]) -> list[int]:
    """Return the keys of rows."""
    return [row.id for row in rows]  # type: ignore[attr-defined]


@EXAMPLES
@given(rows=ROWS, names=st.lists(st.sampled_from(NAMES), unique=True, min_size=1, max_size=3))
async def test_any_columns_are_filtered_and_sorted_by(
    rows: list[dict[str, int | None]], names: list[str], session: AsyncSession
):
    """With a lookup in `get_rows`, and directly in the query builder."""
    await start(session, rows)
    wanted = {name: rows[0][name] for name in names}
    columns = {name: Shelf.__table__.c[name] for name in names}
    plain = select(Shelf.__table__.c.id).order_by(Shelf.__table__.c.id)
    for name, value in wanted.items():
        plain = plain.where(columns[name] == value)
    expected = list(fetched(await execute(session, plain)))
    by_lookup = {f"{name}__eq": value for name, value in wanted.items()}
    _, found = await get_rows(session, Shelf, **by_lookup)
    assert ids(found) == expected
    query = AsyncQueryBuilder(session, Shelf)
    assert ids(await query.where(**wanted).all()) == expected
    assert ids(await query.where(**by_lookup).all()) == expected
    assert ids(await query.any_of(wanted).all()) == expected
    others = [id_ for id_ in await query.scalars("id") if id_ not in expected]
    assert ids(await query.exclude(**wanted).all()) == others or None in wanted.values()
    page = await query.where(**wanted).order_by(*names).keyset(1)
    assert (page.items[0].id, page.next_cursor is None) == (expected[0], len(expected) == 1)
    pages = [await query.where(**wanted).order_by(*names).paginate(n, 1) for n in (1, 2)]
    assert [page.total for page in pages] == [len(expected)] * 2
    _, found = await get_rows(session, Shelf, sort_field=names[0], page_size=1, **by_lookup)
    assert ids(found) == expected[:1]
    _, one = await get_row(rows[0]["page"] or 0, session, Shelf, pk_field="id")
    assert one is None or one.id == rows[0]["page"]
    assert await query.where(**wanted).update(wanted) == len(expected)
    assert len(await query.where(**wanted).values(*names)) == len(expected)


@EXAMPLES
@given(names=st.lists(st.sampled_from(NAMES), unique=True, min_size=1, max_size=3))
async def test_any_columns_are_searched_for_and_created(names: list[str], session: AsyncSession):
    """`name__eq` means the same as `name`, for the new row too."""
    await start(session, [dict.fromkeys(NAMES, 1)])
    by_lookup = {f"{name}__eq": 1 for name in names}
    row, existed = await get_one_or_create(session, Shelf, **by_lookup)
    assert existed
    old = row.id
    new, existed = await get_one_or_create(
        session, Shelf, {"page": 9}, **{f"{name}__eq": 7 for name in names}
    )
    assert not existed
    assert new.id != old
    assert all(getattr(new, name) == 7 for name in names if name != "page")
    assert new.page == 9


async def test_every_column_can_be_written_by_a_set_based_update(session: AsyncSession):
    """One that is called as the flag of `update` is given in a mapping."""
    await start(session, [dict.fromkeys(NAMES, 1)])
    query = AsyncQueryBuilder(session, Shelf)
    assert await query.where(page=1).update({"everything": 5}, values=6, soft=7) == 1
    [row] = await query.values("everything", "values", "soft")
    assert row == {"everything": 5, "values": 6, "soft": 7}
    assert await query.update({"everything": 8}, everything=True) == 1
    with pytest.raises(ValidationError, match="by name or as a mapping, not int"):
        await query.where(page=1).update(5)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="needs values"):
        await query.where(page=1).update({})


async def test_a_field_is_searched_for_once_and_by_equality(session: AsyncSession):
    """Other lookups give no values for a new row."""
    with pytest.raises(ValidationError, match=r"Shelf\.soft is given twice"):
        await get_one_or_create(session, Shelf, soft=1, soft__eq=2)
    with pytest.raises(UnknownFieldError):
        await get_one_or_create(session, Shelf, soft__gt=1)
    row, existed = await get_one_or_create(session, Shelf, eq__eq=3)
    assert (row.eq, existed) == (3, False)
