"""Upserts as an import uses them: how far they are, what they did, which row was wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from sqlmodel_crud_utils.aio import UpsertCounts, bulk_upsert_mappings, transaction
from sqlmodel_crud_utils.exceptions import (
    ConstraintViolationError,
    TransactionError,
    UnknownFieldError,
    ValidationError,
)
from tests._async.hooking import block, inside_and_outside
from tests._async.rows import count_of, given, stored_rows
from tests._runtime_async import AsyncEngine, AsyncSession, sync_session
from tests.upsert_models import Article, Item, Leaflet


def items(*numbers: int, **values: Any) -> list[dict[str, Any]]:
    """Return items with these keys."""
    return [{"id": number, "must": number, **values} for number in numbers]


class TestCounts:
    """With `return_rows=False` rows are counted, each once."""

    @inside_and_outside
    @pytest.mark.parametrize("chunk_size", [None, 1, 2])
    async def test_new_rows_and_old_ones(
        self, session: AsyncSession, inside: bool, chunk_size: int | None
    ) -> None:
        """A duplicate key is one row, in a chunk and across chunks."""
        await given(session, Item(id=2, must=0), Item(id=-1, must=0), Item(id=-2, must=0))
        payload = items(1, 2, 3, 1, -1, -2, 2, 4)
        async with block(session, inside):
            result = await bulk_upsert_mappings(
                payload, session, Item, chunk_size=chunk_size, return_rows=False
            )
        assert result == (True, UpsertCounts(created=3, updated=3))
        rows = {row.id: row.must for row in await stored_rows(session, Item)}
        assert rows == {-2: -2, -1: -1, 1: 1, 2: 2, 3: 3, 4: 4}

    @pytest.mark.parametrize("count", [99, 250])
    async def test_many_rows(self, session: AsyncSession, count: int) -> None:
        """In the quick ways too."""
        payload = items(*range(1, count + 1))
        _, counts = await bulk_upsert_mappings(payload, session, Item, return_rows=False)
        assert counts == (count, 0)
        payload += items(*range(count + 1, count + 11))
        _, counts = await bulk_upsert_mappings(payload, session, Item, return_rows=False)
        assert counts == (10, count)
        assert await count_of(session, Item) == count + 10

    async def test_rows_that_only_update(self, session: AsyncSession) -> None:
        """They have too few fields for a new row."""
        await given(session, Item(id=1, must=0), Item(id=2, must=0))
        payload = [{"id": 1, "plain": 5}, {"id": 2, "plain": 6}, {"id": 1, "plain": 7}]
        _, counts = await bulk_upsert_mappings(payload, session, Item, return_rows=False)
        assert counts == (0, 2)

    async def test_rows_whose_key_the_database_makes(self, session: AsyncSession) -> None:
        """Each is a new one."""
        payload = [{"must": 1}, {"must": 1, "plain": 2}]
        _, counts = await bulk_upsert_mappings(payload, session, Item, return_rows=False)
        assert counts == (2, 0)

    async def test_rows_that_are_left_alone(self, session: AsyncSession) -> None:
        """They are not updated."""
        await given(session, Item(id=1, must=0))
        result = await bulk_upsert_mappings(
            items(1, 2), session, Item, update_columns=[], return_rows=False
        )
        assert result == (True, (1, 0))

    async def test_another_unique_key(self, session: AsyncSession) -> None:
        """And columns that are stamped."""
        await given(session, Article(slug="a"))
        payload = [{"slug": slug, "title": "x"} for slug in "aba"]
        _, counts = await bulk_upsert_mappings(payload, session, Article, "slug", return_rows=False)
        assert counts == (1, 1)
        [first, second] = await stored_rows(session, Article)
        assert (first.title, first.version, second.title) == ("x", 2, "x")

    async def test_nothing(self, session: AsyncSession) -> None:
        """Nothing was done."""
        assert await bulk_upsert_mappings([], session, Item, return_rows=False) == (True, (0, 0))

    async def test_a_generator_is_read_in_chunks(self, session: AsyncSession) -> None:
        """No row is read before those ahead of it are written."""
        seen: list[int] = []
        told: list[int] = []

        def rows() -> Iterator[dict[str, Any]]:
            for number in range(1, 7):
                seen.append(number)
                yield {"id": number, "must": 1}

        def tell(done: int, total: int | None) -> None:
            assert total is None
            told.append(done)
            assert len(seen) <= done + 2

        _, counts = await bulk_upsert_mappings(
            rows(), session, Item, chunk_size=2, return_rows=False, progress=tell
        )
        assert (counts, told) == ((6, 0), [2, 4, 6])

    @inside_and_outside
    async def test_objects_of_the_session_get_the_values(
        self, engine: AsyncEngine, inside: bool
    ) -> None:
        """Though no rows are returned; and no others stay in it."""
        async with AsyncSession(engine, expire_on_commit=False) as session:
            item = Item(id=1, must=0)
            session.add(item)
            await session.commit()
            async with block(session, inside):
                payload = items(1, 2, plain=5)
                await bulk_upsert_mappings(payload, session, Item, return_rows=False)
                assert (item.must, item.plain) == (1, 5)
            assert list(sync_session(session).identity_map.values()) == [item]


class TestProgress:
    """Somebody may want to know how far it is."""

    async def test_rows_of_the_payload_are_counted(self, session: AsyncSession) -> None:
        """In the end, all of them count, even duplicate keys."""
        told: list[tuple[int, int | None]] = []

        def tell(done: int, total: int | None) -> None:
            told.append((done, total))

        payload = items(1, 2, 1, 3)
        _, rows = await bulk_upsert_mappings(payload, session, Item, chunk_size=1, progress=tell)
        assert [row.id for row in rows] == [1, 2, 1, 3]
        assert told == [(2, 4), (3, 4), (4, 4)]

    async def test_a_bar_is_shown(
        self, session: AsyncSession, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """With the name of the model."""
        await bulk_upsert_mappings(items(1), session, Item, progress=True)
        assert "Item" in capsys.readouterr().err

    async def test_other_wishes_are_refused(self, session: AsyncSession) -> None:
        """Before anything is written."""
        wrong: Any = "yes"
        with pytest.raises(ValidationError, match="progress"):
            await bulk_upsert_mappings(items(1), session, Item, progress=wrong)

    @inside_and_outside
    async def test_a_report_that_fails_undoes_everything(
        self, session: AsyncSession, inside: bool
    ) -> None:
        """A block is doomed."""

        def fail(_done: int, _total: int | None) -> None:
            raise KeyError

        async def write() -> None:
            with pytest.raises(KeyError):
                await bulk_upsert_mappings(items(1, 2), session, Item, chunk_size=1, progress=fail)

        if inside:
            with pytest.raises(TransactionError):
                async with transaction(session):
                    await write()
        else:
            await write()
        assert await count_of(session, Item) == 0


MODES = pytest.mark.parametrize(
    "options",
    [{}, {"chunk_size": 1}, {"chunk_size": 2}, {"return_rows": False, "chunk_size": 2}],
    ids=["at-once", "ones", "twos", "counted"],
)


class TestTheRowIsNamed:
    """By its place in the whole input, from 0."""

    @inside_and_outside
    @MODES
    @pytest.mark.parametrize("bad", [{"must": None}, {"code": "taken"}])
    async def test_the_database_refuses_it(
        self, session: AsyncSession, inside: bool, options: Any, bad: dict[str, Any]
    ) -> None:
        """NULL, or a value that another row has."""
        await given(session, Item(id=9, must=0, code="taken"))
        payload = items(1, 2, 3, 4, 5)
        payload[3] |= bad
        if "code" in bad and (await self._updates_by_any_key(session)):
            pytest.skip("MySQL updates the other row")
        with pytest.raises(ConstraintViolationError, match="row 3 of the payload: ") as raised:
            async with block(session, inside):
                await bulk_upsert_mappings(payload, session, Item, raise_on_error=True, **options)
        assert str(raised.value).startswith("Validation failed")
        assert raised.value.kind == ("unique" if "code" in bad else "not_null")
        assert await count_of(session, Item) == 1

    async def _updates_by_any_key(self, session: AsyncSession) -> bool:
        return sync_session(session).get_bind().dialect.name == "mysql"

    async def test_many_rows(self, session: AsyncSession) -> None:
        """Among those that are written in the quick ways too."""
        payload = items(*range(1, 251))
        payload[187]["must"] = None
        with pytest.raises(ConstraintViolationError, match="row 187 of the payload"):
            await bulk_upsert_mappings(payload, session, Item, raise_on_error=True)
        assert await count_of(session, Item) == 0

    async def test_rows_without_a_key(self, session: AsyncSession) -> None:
        """The next call has none of the keys that were made for the rows before it."""
        payload: list[dict[str, Any]] = [{"must": 1}, {"must": 2}, {"must": None}]
        with pytest.raises(ConstraintViolationError, match="row 2 of the payload"):
            await bulk_upsert_mappings(payload, session, Item, raise_on_error=True)
        payload[2]["must"] = 3
        _, rows = await bulk_upsert_mappings(payload, session, Item)
        assert [row.must for row in rows] == [1, 2, 3]

    async def test_the_errors_of_sqlalchemy_have_a_note(self, session: AsyncSession) -> None:
        """Outside a block they propagate unchanged, as in v0.1.0."""
        payload = items(1, 2)
        payload[1]["must"] = None
        with pytest.raises(IntegrityError) as raised:
            await bulk_upsert_mappings(payload, session, Item)
        assert raised.value.__notes__ == ["row 1 of the payload"]

    @MODES
    async def test_the_check_refuses_it(self, session: AsyncSession, options: Any) -> None:
        """A bad value, name or row; nothing is kept."""
        for bad, error in (
            ({"id": 3, "must": "many"}, ValidationError),
            ({"id": 3, "much": 1}, UnknownFieldError),
            (5, ValidationError),
        ):
            payload: list[Any] = [*items(1, 2), bad, *items(4)]
            with pytest.raises(error, match="row 2 of the payload"):
                await bulk_upsert_mappings(payload, session, Item, **options)
        assert await count_of(session, Item) == 0

    async def test_what_is_no_rows_fault_has_no_row(self, session: AsyncSession) -> None:
        """Also, a block continues after a refusal with `raise_on_error=False`."""
        async with transaction(session):
            await bulk_upsert_mappings(items(1), session, Item)
            with pytest.raises(IntegrityError):
                await bulk_upsert_mappings(
                    [{"id": 2, "must": None}], session, Item, raise_on_error=False
                )
        assert await count_of(session, Item) == 1


@pytest.mark.databases("mysql")
class TestPackets:
    """MySQL limits the size of a statement, by default to 16 MB on MariaDB."""

    @pytest.mark.parametrize("keyed", [True, False])
    async def test_long_rows_are_written_in_several_statements(
        self, session: AsyncSession, keyed: bool
    ) -> None:
        """Also where an `onupdate` lets SQLAlchemy put all of them into one."""
        body = {"body": "x" * 30_000}
        payload = [{"id": n, **body} if keyed else body for n in range(1, 601)]
        _, counts = await bulk_upsert_mappings(payload, session, Leaflet, return_rows=False)
        assert counts == (600, 0)
        if keyed:
            _, rows = await bulk_upsert_mappings(payload, session, Leaflet)
            assert all(row.updated_at for row in rows)
