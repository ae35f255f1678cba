"""Upserts: insert rows, or update existing ones, on every database."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import inspect, select, text, update
from sqlalchemy.exc import IntegrityError

from sqlmodel_crud_utils.aio import bulk_upsert_mappings
from sqlmodel_crud_utils.exceptions import (
    ConstraintViolationError,
)
from sqlmodel_crud_utils.mixins import acting_as
from tests._async.rows import given, stored_rows
from tests._async.upserting import NOVA, RUSTY, statements
from tests._runtime_async import AsyncEngine, AsyncSession, execute, make_engine, sync_session
from tests.databases import Database
from tests.models import (
    AllTypes,
    Colour,
    Currency,
    Document,
    Hero,
    HeroTag,
    Invoice,
    Seat,
    Setting,
    Tag,
    Team,
)
from tests.upsert_models import STAMPED, Animal, Article, Cat, Nickname, Node, Person

SessionFactory = Callable[[], AsyncSession]


class TestWhatIsWritten:
    """New rows are inserted, known ones updated."""

    async def test_new_rows_are_inserted(self, session: AsyncSession) -> None:
        """New rows are inserted, and returned in the order of the payload."""
        ok, rows = await bulk_upsert_mappings([NOVA, RUSTY], session, Hero)
        assert ok is True
        assert [row.name for row in rows] == ["Nova", "Rusty"]
        assert [row.age for row in await stored_rows(session, Hero)] == [48, 31]

    async def test_known_rows_are_updated(self, session: AsyncSession) -> None:
        """Beside new ones, in one call."""
        await given(session, Hero(**RUSTY))
        _, rows = await bulk_upsert_mappings([NOVA, RUSTY | {"age": 49}], session, Hero)
        assert [row.age for row in rows] == [31, 49]
        assert [row.age for row in await stored_rows(session, Hero)] == [49, 31]

    async def test_a_second_time_changes_nothing(self, session: AsyncSession) -> None:
        """An upsert can be repeated."""
        await bulk_upsert_mappings([RUSTY, NOVA], session, Hero)
        before = await stored_rows(session, Hero)
        await bulk_upsert_mappings([RUSTY, NOVA], session, Hero)
        assert await stored_rows(session, Hero) == before

    async def test_an_empty_payload_writes_nothing(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """An empty payload writes nothing and says True, as in v0.1.0."""
        with statements(engine) as seen:
            assert await bulk_upsert_mappings([], session, Hero) == (True, [])
        assert seen == []

    async def test_any_iterable_is_a_payload(self, session: AsyncSession) -> None:
        """A payload may be any iterable, a generator too."""
        rows = ({"name": f"Hero {n}", "secret_name": "?"} for n in range(5))
        _, heroes = await bulk_upsert_mappings(rows, session, Hero, ["name"])
        assert [hero.name for hero in heroes] == [f"Hero {n}" for n in range(5)]

    async def test_a_field_that_is_not_given_is_left_alone(self, session: AsyncSession) -> None:
        """Rows may have different fields."""
        await given(session, Hero(**RUSTY), Hero(**NOVA))
        rusty = {"id": 1, "name": "Rusty", "secret_name": "T."}
        _, rows = await bulk_upsert_mappings([rusty, NOVA | {"age": None}], session, Hero)
        assert [(row.secret_name, row.age) for row in rows] == [("T.", 48), ("Ann", None)]

    async def test_a_row_too_incomplete_to_insert_updates(self, session: AsyncSession) -> None:
        """A database refuses it before it looks for the row."""
        await given(session, Hero(**RUSTY), Hero(**NOVA))
        _, rows = await bulk_upsert_mappings([{"id": 2, "age": 32}, {"id": 1}], session, Hero)
        assert [(row.name, row.age) for row in rows] == [("Nova", 32), ("Rusty", 48)]

    async def test_a_row_too_incomplete_to_insert_fails_where_it_is_not_there(
        self, session: AsyncSession
    ) -> None:
        """With the database's own refusal, and nothing is written."""
        await given(session, Hero(**RUSTY))
        with pytest.raises(ConstraintViolationError) as caught:
            await bulk_upsert_mappings(
                [{"id": 1, "age": 1}, {"id": 9, "age": 2}], session, Hero, raise_on_error=True
            )
        assert caught.value.kind == "not_null"
        assert [row.age for row in await stored_rows(session, Hero)] == [48]

    async def test_defaults_of_every_kind_fill_new_rows(self, session: AsyncSession) -> None:
        """By Python, by Pydantic, by the server; each row gets its own."""
        _, articles = await bulk_upsert_mappings(
            [{"slug": "a"}, {"slug": "b", "views": "9"}], session, Article, ["slug"]
        )
        assert [(a.views, a.mood, a.state, a.author) for a in articles] == [
            (7, "calm", "new", "unknown"),
            (9, "calm", "new", "unknown"),
        ]
        _, documents = await bulk_upsert_mappings(
            [{"title": "a"}, {"title": "b"}], session, Document
        )
        assert len({document.id for document in documents}) == 2
        _, settings = await bulk_upsert_mappings(
            [{"key": "k", "priority": None, "state": None}], session, Setting, ["scope", "key"]
        )
        assert [(s.scope, s.priority, s.state, s.source) for s in settings] == [
            ("global", 5, "new", "python")
        ]

    async def test_defaults_do_not_touch_known_rows(self, session: AsyncSession) -> None:
        """Defaults are for new rows only."""
        await given(session, Article(slug="a", views=1, mood="wild", state="old"))
        _, (article,) = await bulk_upsert_mappings(
            [{"slug": "a", "title": "A"}], session, Article, ["slug"]
        )
        assert (article.views, article.mood, article.state) == (1, "wild", "old")
        assert article.title == "A"

    async def test_updates_are_stamped_and_inserts_are_not(self, session: AsyncSession) -> None:
        """`onupdate` of every kind: a function, a value, an expression."""
        rows: list[dict[str, Any]] = [{"slug": "a", "title": "A"}, {"slug": "b", "title": "B"}]
        await bulk_upsert_mappings(rows[:1], session, Article, ["slug"])
        _, (known, new) = await bulk_upsert_mappings(rows, session, Article, ["slug"])
        assert (known.updated_at, known.editor, known.seven) == (STAMPED, "somebody", 7)
        assert (new.updated_at, new.editor, new.seven) == (None, None, None)

    async def test_incomplete_rows_are_stamped_too(self, session: AsyncSession) -> None:
        """They are written with another statement."""
        await given(session, Article(id=1, slug="a"))
        _, (article,) = await bulk_upsert_mappings([{"id": 1, "views": 8}], session, Article)
        assert (article.updated_at, article.editor, article.seven) == (STAMPED, "somebody", 7)
        assert (article.slug, article.views, article.version) == ("a", 8, 2)

    async def test_an_explicit_stamp_wins(self, session: AsyncSession) -> None:
        """A stamp that is given wins; None counts as not given."""
        await given(session, Article(slug="a"), Article(slug="b"))
        rows = [
            {"slug": "a", "editor": "me", "updated_at": "2020-01-01T00:00:00"},
            {"slug": "b", "editor": None, "title": "B"},
        ]
        _, (first, second) = await bulk_upsert_mappings(rows, session, Article, ["slug"])
        assert (first.editor, first.updated_at) == ("me", dt.datetime(2020, 1, 1))  # noqa: DTZ001
        assert (second.editor, second.updated_at) == ("somebody", STAMPED)

    async def test_the_version_is_counted(self, session: AsyncSession) -> None:
        """So that a session that holds an older one notices; a given one counts for new rows."""
        rows: list[dict[str, Any]] = [{"slug": "a"}, {"slug": "b", "version": 5}]
        _, articles = await bulk_upsert_mappings(rows, session, Article, ["slug"])
        assert [article.version for article in articles] == [1, 5]
        rows = [{"slug": "a", "title": "A"}, {"slug": "b", "version": 9, "title": "B"}]
        _, articles = await bulk_upsert_mappings(rows, session, Article, ["slug"])
        assert [article.version for article in articles] == [2, 6]

    async def test_versioned_rows_can_be_changed_afterwards(self, session: AsyncSession) -> None:
        """The session knows the version that the upsert has made."""
        await given(session, Article(slug="a"))
        _, (article,) = await bulk_upsert_mappings(
            [{"slug": "a", "title": "A"}], session, Article, ["slug"]
        )
        article.title = "B"
        await session.commit()
        assert [(a.title, a.version) for a in await stored_rows(session, Article)] == [("B", 3)]

    async def test_values_are_coerced(self, session: AsyncSession) -> None:
        """Every column type, as in filters."""
        token = uuid.uuid4()
        row = {
            "id": "1",
            "integer": "5",
            "big": str(2**40),
            "text": "tab\t'quote' \\ % _ ü 💡",
            "real": "0.5",
            "amount": "12.5",
            "flag": "true",
            "day": "2024-03-01",
            "moment": "2024-03-01T10:30:00+02:00",
            "clock": "10:30",
            "duration": dt.timedelta(hours=1),
            "token": str(token),
            "colour": "red",
            "blob": b"\x00\xff",
            "payload": {"a": [1, None]},
        }
        for _ in range(2):
            _, (made,) = await bulk_upsert_mappings([row], session, AllTypes)
            assert (made.id, made.integer, made.big, made.text) == (1, 5, 2**40, row["text"])
            assert (made.real, made.amount, made.flag) == (0.5, Decimal("12.5"), True)
            assert (made.day, made.clock) == (dt.date(2024, 3, 1), dt.time(10, 30))
            assert made.moment == dt.datetime(2024, 3, 1, 8, 30, tzinfo=dt.UTC)
            assert (made.duration, made.token) == (dt.timedelta(hours=1), token)
            assert (made.colour, made.blob) == (Colour.RED, b"\x00\xff")
            assert made.payload == {"a": [1, None]}

    async def test_pydantic_objects_write_what_was_set(self, session: AsyncSession) -> None:
        """The defaults of the other fields do not reset a known row."""
        key = 900_001  # the database does not make it for the new row
        await given(session, Hero(**RUSTY | {"id": key}))
        rows = [Hero(id=key, name="Rusty", secret_name="T."), Hero(name="Nova", secret_name="Ann")]
        _, heroes = await bulk_upsert_mappings(rows, session, Hero)
        assert [(hero.secret_name, hero.age) for hero in heroes] == [("T.", 48), ("Ann", None)]
        assert heroes[0] is not rows[0]
        assert rows[0] not in session


class TestKeys:
    """A key says which row is meant."""

    async def test_any_unique_key_finds_rows(self, session: AsyncSession) -> None:
        """The primary key of an existing row stays."""
        await given(session, Hero(**RUSTY))
        rows = [RUSTY | {"id": 77, "age": 49}, {"id": None, "name": "Nova", "secret_name": "?"}]
        _, heroes = await bulk_upsert_mappings(rows, session, Hero, ["name"])
        assert [(hero.name, hero.age) for hero in heroes] == [("Rusty", 49), ("Nova", None)]
        assert heroes[0].id == 1
        assert len(await stored_rows(session, Hero)) == 2

    async def test_composite_and_string_keys(self, session: AsyncSession) -> None:
        """The model's own primary key is the default."""
        await given(session, Seat(row="A", number=1, guest="Ann"), Currency(code="EUR", name="E"))
        seats = [{"row": "A", "number": "1", "guest": "Bob"}, {"row": "A", "number": 2}]
        _, made = await bulk_upsert_mappings(seats, session, Seat)
        assert [(seat.row, seat.number, seat.guest) for seat in made] == [
            ("A", 1, "Bob"),
            ("A", 2, None),
        ]
        _, (euro,) = await bulk_upsert_mappings(
            [{"code": "EUR", "name": "Euro"}], session, Currency
        )
        assert euro.name == "Euro"

    async def test_a_table_that_is_only_its_key(self, session: AsyncSession) -> None:
        """There is nothing to update, and the rows come back all the same."""
        await given(session, Hero(**RUSTY), Hero(**NOVA), Tag(id=1, label="a tag"))
        rows = [{"hero_id": 1, "tag_id": 1}, {"hero_id": 2, "tag_id": 1}]
        await bulk_upsert_mappings(rows[:1], session, HeroTag)
        _, links = await bulk_upsert_mappings(rows, session, HeroTag)
        assert [(link.hero_id, link.tag_id) for link in links] == [(1, 1), (2, 1)]

    async def test_rows_without_an_autoincrement_key_are_inserted(
        self, session: AsyncSession
    ) -> None:
        """Their keys come back, in the order of the payload."""
        await given(session, Invoice(number=7_000, customer="Ann"))
        rows = [
            {"customer": "a"},
            {"number": 7_000, "customer": "Bob"},
            {"number": None, "customer": "b", "total": "2.5"},
            {"customer": "c"},
        ]
        _, invoices = await bulk_upsert_mappings(rows, session, Invoice)
        assert [invoice.customer for invoice in invoices] == ["a", "Bob", "b", "c"]
        assert [invoice.total for invoice in invoices] == [0, 0, Decimal("2.5"), 0]
        assert invoices[1].number == 7_000
        assert len({invoice.number for invoice in invoices}) == 4

    async def test_new_rows_get_ascending_keys(self, session: AsyncSession) -> None:
        """Whichever fields each of them has, even none."""
        rows: list[dict[str, Any]] = [{}, {"label": "x"}, {}, {"note": "y"}]
        _, nodes = await bulk_upsert_mappings(rows, session, Node)
        assert [node.id for node in nodes] == sorted(node.id for node in nodes)
        assert [(node.label, node.note) for node in nodes] == [
            (None, None),
            ("x", None),
            (None, None),
            (None, "y"),
        ]

    async def test_new_rows_where_the_database_gives_no_keys_back(
        self, database: Database, session: AsyncSession
    ) -> None:
        """MySQL has no RETURNING; MariaDB and the others can be used without it."""
        if database.name == "postgresql":
            pytest.skip("PostgreSQL has no other way to tell a key")
        engine = make_engine(database.async_url)
        async with AsyncSession(engine) as other:
            await execute(other, text("SELECT 1"))
            engine.dialect.insert_returning = False
            engine.dialect.insert_executemany_returning = False
            rows = [{"customer": "a"}, {"customer": "b"}]
            _, invoices = await bulk_upsert_mappings(rows, other, Invoice)
            assert [invoice.customer for invoice in invoices] == ["a", "b"]
            assert invoices[0].number is not None
            assert invoices[1].number == invoices[0].number + 1
        await engine.dispose()
        assert len(await stored_rows(session, Invoice)) == 2

    async def test_the_same_key_twice_is_one_row(self, session: AsyncSession) -> None:
        """The last one wins, field by field; both places of the result hold it."""
        rows = [RUSTY, NOVA, {"id": "1", "age": 50, "name": "Rusty"}]
        _, heroes = await bulk_upsert_mappings(rows, session, Hero)
        assert heroes[0] is heroes[2]
        assert (heroes[0].age, heroes[0].secret_name) == (50, "Tommy")
        assert len(await stored_rows(session, Hero)) == 2

    async def test_rows_are_written_one_after_the_other(self, session: AsyncSession) -> None:
        """One may take the unique value that an earlier one has given up."""
        await given(session, Hero(**RUSTY), Hero(**NOVA))
        rows = [
            {"id": 1, "name": "nobody"},
            {"id": 2, "name": "Rusty", "age": 5},
            {"id": 1, "name": "Nova"},
        ]
        _, heroes = await bulk_upsert_mappings(rows, session, Hero)
        assert [hero.name for hero in heroes] == ["Nova", "Rusty", "Nova"]
        assert [row.name for row in await stored_rows(session, Hero)] == ["Nova", "Rusty"]

    async def test_rows_may_refer_to_earlier_ones(self, session: AsyncSession) -> None:
        """Rows may refer to earlier ones, whichever fields they have."""
        rows: list[dict[str, Any]] = [
            {"id": 1, "label": "root"},
            {"id": 2, "parent_id": 1, "note": "x"},
            {"id": 3, "parent_id": 1},
            {"id": 4, "parent_id": 3, "note": "y"},
        ]
        _, nodes = await bulk_upsert_mappings(rows, session, Node)
        assert [node.parent_id for node in nodes] == [None, 1, 1, 3]

    async def test_keys_that_only_the_database_finds_equal(
        self, session: AsyncSession, database: Database
    ) -> None:
        """A collation may ignore case; the row is found all the same."""
        if database.name == "postgresql":
            pytest.skip("its collations tell upper from lower case")
        await given(session, Nickname(name="Bob", owner="x"))
        rows = [{"name": "BOB", "owner": "y"}, {"name": "bob", "note": "z"}]
        _, names = await bulk_upsert_mappings(rows, session, Nickname)
        assert names[0] is names[1]
        assert (names[0].name, names[0].owner, names[0].note) == ("Bob", "y", "z")

    async def test_some_keys_that_only_the_database_finds_equal(
        self, session: AsyncSession, database: Database
    ) -> None:
        """Among keys that are equal for both, and those of new rows."""
        if database.name == "postgresql":
            pytest.skip("its collations tell upper from lower case")
        await given(session, *[Nickname(name=f"Bob {n}", owner="x") for n in range(9)])
        cases = [str.upper if n in {2, 5, 8} else str for n in range(12)]
        rows = [{"name": case(f"Bob {n}"), "owner": "y"} for n, case in enumerate(cases)]
        _, found = await bulk_upsert_mappings(rows, session, Nickname)
        assert [row.name for row in found] == [f"Bob {n}" for n in range(12)]
        assert {row.owner for row in found} == {"y"}

    async def test_another_unique_key(self, session: AsyncSession, database: Database) -> None:
        """MySQL updates the row that has it; the others refuse."""
        await given(session, Hero(**RUSTY))
        row = {"id": 5, "name": "Rusty", "secret_name": "taken"}
        if database.name == "mysql":
            _, (hero,) = await bulk_upsert_mappings([row], session, Hero)
            assert (hero.id, hero.secret_name) == (1, "taken")
        else:
            with pytest.raises(IntegrityError):
                await bulk_upsert_mappings([row], session, Hero)
            assert [hero.secret_name for hero in await stored_rows(session, Hero)] == ["Tommy"]

    async def test_another_unique_key_of_several_fields(
        self, session: AsyncSession, database: Database
    ) -> None:
        """The row that MySQL has updated is found by the payload's keys."""
        await given(session, Article(slug="a", author="x", number=1))
        row = {"slug": "b", "author": "x", "number": 1, "title": "B"}
        if database.name == "mysql":
            _, (article,) = await bulk_upsert_mappings([row], session, Article, ["slug"])
            assert (article.slug, article.title) == ("a", "B")
        else:
            with pytest.raises(IntegrityError):
                await bulk_upsert_mappings([row], session, Article, ["slug"])

    async def test_models_of_one_table(self, session: AsyncSession) -> None:
        """New rows get the discriminator of their model."""
        rows = [{"id": 1, "name": "Felix"}, {"id": 2, "name": "Tom"}]
        _, cats = await bulk_upsert_mappings(rows, session, Cat)
        assert {type(cat) for cat in cats} == {Cat}
        assert [animal.kind for animal in await stored_rows(session, Animal)] == ["cat", "cat"]


class TestUpdateColumns:
    """The columns that a conflict may update."""

    async def test_they_limit_what_is_overwritten(self, session: AsyncSession) -> None:
        """`update_columns` limits what a known row gets; new rows get everything."""
        await given(session, Hero(**RUSTY))
        rows = [RUSTY | {"age": 50, "secret_name": "x"}, NOVA]
        _, heroes = await bulk_upsert_mappings(rows, session, Hero, update_columns=["age"])
        assert [(hero.age, hero.secret_name) for hero in heroes] == [(50, "Tommy"), (31, "Ann")]

    async def test_none_of_them_leaves_known_rows_alone(self, session: AsyncSession) -> None:
        """They are returned unchanged, without a stamp or a new version."""
        await given(session, Article(slug="a", title="A"))
        rows = [{"slug": "a", "title": "x"}, {"slug": "b", "title": "B"}]
        _, (known, new) = await bulk_upsert_mappings(
            rows, session, Article, ["slug"], update_columns=[]
        )
        assert (known.title, known.version, known.updated_at) == ("A", 1, None)
        assert (new.title, new.version) == ("B", 1)

    async def test_later_rows_of_the_same_key_heed_them(self, session: AsyncSession) -> None:
        """They meet the row that the first one has written."""
        rows = [RUSTY, RUSTY | {"age": 50, "secret_name": "x"}]
        _, heroes = await bulk_upsert_mappings(rows, session, Hero, update_columns=["age"])
        assert [(hero.age, hero.secret_name) for hero in heroes] == [(50, "Tommy")] * 2

    async def test_incomplete_rows_heed_them(self, session: AsyncSession) -> None:
        """They are written with another statement."""
        await given(session, Hero(**RUSTY))
        row = {"id": 1, "age": 50, "team_id": None, "secret_name": "x"}
        _, (hero,) = await bulk_upsert_mappings([row], session, Hero, update_columns="age")
        assert (hero.age, hero.secret_name) == (50, "Tommy")


class TestMixins:
    """Time stamps, names, soft delete and versions."""

    async def test_everything_is_filled(self, session: AsyncSession) -> None:
        """As by an ORM flush, for new rows and for known ones."""
        with acting_as("alice"):
            _, (made,) = await bulk_upsert_mappings([{"id": 1, "email": "a@x"}], session, Person)
        assert (made.created_by, made.updated_by, made.updated_at) == ("alice", None, None)
        assert made.created_at.tzinfo is not None
        created_at = made.created_at
        with acting_as("bob"):
            _, (known,) = await bulk_upsert_mappings([{"id": 1, "email": "b@x"}], session, Person)
        assert known is made
        assert (known.created_by, known.updated_by, known.version) == ("alice", "bob", 2)
        assert known.created_at == created_at
        assert known.updated_at is not None
        assert known.updated_at.tzinfo is not None
        assert known.updated_at >= created_at

    async def test_a_deleted_row_is_updated_as_it_is(self, session: AsyncSession) -> None:
        """It is not restored, unless the payload says so."""
        person = Person(id=1, email="a@x")
        person.soft_delete("alice")
        await given(session, person)
        _, (found,) = await bulk_upsert_mappings([{"id": 1, "note": "x"}], session, Person)
        assert (found.note, found.is_deleted, found.deleted_by) == ("x", True, "alice")
        row = {"id": 1, "email": "a@x", "is_deleted": False}
        _, (found,) = await bulk_upsert_mappings([row], session, Person)
        assert found.is_deleted is False

    async def test_a_key_of_visible_rows_does_not_find_deleted_ones(
        self, session: AsyncSession
    ) -> None:
        """Their key is free for a new row, complete or not."""
        deleted = Person(email="a@x", note="old")
        deleted.soft_delete()
        await given(session, deleted)
        rows = [{"email": "a@x", "note": "new"}]
        for _ in range(2):
            _, (found,) = await bulk_upsert_mappings(rows, session, Person, ["email"])
            assert (found.note, found.is_deleted) == ("new", False)
        assert sorted(row.note for row in await stored_rows(session, Person)) == ["new", "old"]

    async def test_the_visible_row_among_deleted_ones_comes_back(
        self, session: AsyncSession
    ) -> None:
        """Wherever the deleted rows with the same key are in the table."""
        deleted = [Person(id=1, email="a@x"), Person(id=3, email="a@x")]
        for row in deleted:
            row.soft_delete()
        await given(session, *deleted, Person(id=2, email="a@x"))
        rows = [{"email": "a@x", "note": "new"}]
        _, (found,) = await bulk_upsert_mappings(rows, session, Person, ["email"])
        assert (found.id, found.note) == (2, "new")


class TestResult:
    """The rows that come back."""

    async def test_they_can_be_used_after_the_commit(self, session: AsyncSession) -> None:
        """The rows can be used after the commit without another query."""
        _, rows = await bulk_upsert_mappings([RUSTY, NOVA], session, Hero)
        assert not session.in_transaction()
        assert [(row.id, row.name, row.age, row.team_id) for row in rows] == [
            (1, "Rusty", 48, None),
            (2, "Nova", 31, None),
        ]
        assert not session.in_transaction()

    async def test_they_are_the_objects_of_the_session(
        self, session: AsyncSession, session_factory: SessionFactory
    ) -> None:
        """One that is loaded already shows the new values, and those that others wrote."""
        hero = Hero(**RUSTY)
        session.add(hero)
        await session.commit()
        await session.refresh(hero)
        await session.rollback()
        other = session_factory()
        await execute(other, update(Hero).values(secret_name="changed elsewhere"))
        await other.commit()
        _, (row,) = await bulk_upsert_mappings([{"id": 1, "age": 50}], session, Hero)
        assert row is hero
        assert (hero.age, hero.secret_name) == (50, "changed elsewhere")

    async def test_a_transaction_that_has_read_sees_what_is_there_now(
        self, session: AsyncSession, session_factory: SessionFactory, database: Database
    ) -> None:
        """On MySQL it would see old rows if an upsert changes nothing."""
        if database.name == "sqlite":
            pytest.skip("nobody else can write meanwhile")
        await given(session, Hero(**RUSTY))
        await execute(session, select(Team))
        other = session_factory()
        await execute(other, update(Hero).values(age=50))
        await other.commit()
        row = RUSTY | {"age": 50}
        _, (hero,) = await bulk_upsert_mappings([row], session, Hero, update_columns=["age"])
        assert hero.age == 50

    async def test_pending_changes_are_not_lost(self, session_factory: SessionFactory) -> None:
        """They are written first, also where autoflush is off."""
        session = session_factory()
        sync_session(session).autoflush = False
        hero, nova = Hero(**RUSTY), Hero(**NOVA)
        session.add(hero)
        await session.commit()
        await session.refresh(hero)
        hero.secret_name = "changed here"
        session.add(nova)
        _, rows = await bulk_upsert_mappings(
            [{"id": 1, "age": 50}, {"id": 2, "age": 32}], session, Hero
        )
        assert rows == [hero, nova]
        assert (hero.secret_name, hero.age, nova.age) == ("changed here", 50, 32)

    async def test_related_rows_are_looked_up_again(self, session: AsyncSession) -> None:
        """Rows loaded for the old foreign key are not shown for the new one."""
        await given(session, Team(id=1, name="a"), Team(id=2, name="b"))
        _, (hero,) = await bulk_upsert_mappings([RUSTY | {"team_id": 1}], session, Hero)
        await session.refresh(hero, ["team"])
        assert hero.team.name == "a"
        await bulk_upsert_mappings([{"id": 1, "team_id": 2}], session, Hero)
        assert "team" in inspect(hero).unloaded

    async def test_other_objects_expire_as_configured(self, session: AsyncSession) -> None:
        """Only what is returned stays loaded."""
        team = Team(id=1, name="a")
        session.add(team)
        await session.flush()
        await bulk_upsert_mappings([RUSTY], session, Hero)
        assert "name" in inspect(team).unloaded
