"""Upserts without a database: the target, its defaults, and the rows."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel
from sqlalchemy import (
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Sequence,
    String,
    Table,
    func,
    join,
    select,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    make_transient_to_detached,
    mapped_column,
    registry,
)
from sqlmodel import Field, SQLModel

from sqlmodel_crud_utils._core.writes.targets import target_of, unique_keys
from sqlmodel_crud_utils._core.writes.upsert_rows import (
    Batch,
    Entry,
    payload_of,
)
from sqlmodel_crud_utils.exceptions import UnknownFieldError, ValidationError
from tests.models import (
    AllTypes,
    Colour,
    Currency,
    Document,
    Hero,
    HeroTag,
    Seat,
    Setting,
    Team,
)
from tests.upsert_models import Article, Cat


class Local(SQLModel, registry=registry()):
    """Models that no database of the tests needs."""

    metadata = MetaData()


class PlainBase(DeclarativeBase):
    """Plain SQLAlchemy models that no database of the tests needs."""


class TestTarget:
    """The target of an upsert."""

    def test_the_key_is_id_where_the_model_has_it(self) -> None:
        """As in v0.1.0."""
        assert target_of(Hero).key == ("id",)

    def test_the_key_is_the_primary_key_elsewhere(self) -> None:
        """A composite key and one of another name need no `pk_fields`."""
        assert target_of(Seat).key == ("row", "number")
        assert target_of(Currency).key == ("code",)

    def test_an_id_that_is_no_key_is_not_taken_for_one(self) -> None:
        """Only a unique key identifies an existing row."""

        class Partitioned(PlainBase):
            __tablename__ = "partitioned"
            tenant: Mapped[int] = mapped_column(primary_key=True)
            id: Mapped[int] = mapped_column(primary_key=True)

        assert target_of(Partitioned).key == ("tenant", "id")

    @pytest.mark.parametrize(
        ("model", "fields", "key"),
        [
            (Hero, "name", ("name",)),
            (Hero, ["name"], ("name",)),
            (Hero, ("id",), ("id",)),
            (Setting, ["key", "scope"], ("key", "scope")),
            (Seat, ["number", "row", "row"], ("number", "row")),
        ],
    )
    def test_any_unique_key_may_be_named(self, model: Any, fields: Any, key: Any) -> None:
        """A name, or several in any order."""
        assert target_of(model, fields).key == key

    @pytest.mark.parametrize("fields", [["age"], ["id", "name"], []])
    def test_fields_that_are_no_unique_key_are_refused(self, fields: list[str]) -> None:
        """The error names the unique keys."""
        with pytest.raises(
            ValidationError, match=r"not a unique key of Hero; the unique keys are \(id\), \(name"
        ):
            target_of(Hero, fields)

    def test_the_only_key_is_named_too(self) -> None:
        """In the singular."""
        with pytest.raises(ValidationError, match=r"the unique key is \(number, row\)"):
            target_of(Seat, ["guest"])

    @pytest.mark.parametrize("parameter", ["pk_fields", "update_columns"])
    def test_unknown_names_are_refused(self, parameter: str) -> None:
        """The error names the fields, and no relationship."""
        for name in ("nmae", "team"):
            with pytest.raises(UnknownFieldError, match=f"Hero has no field '{name}'"):
                target_of(Hero, **{parameter: [name]})

    @pytest.mark.parametrize("parameter", ["pk_fields", "update_columns"])
    def test_names_are_not_numbers(self, parameter: str) -> None:
        """A name or a list of names is needed."""
        with pytest.raises(ValidationError, match=f"{parameter} takes names of columns, not int"):
            target_of(Hero, **{parameter: 5})

    def test_a_partial_or_functional_index_is_no_key(self) -> None:
        """It does not hold for all rows, or not for the value itself."""
        table = Table(
            "partial",
            MetaData(),
            Column("id", Integer, primary_key=True),
            Column("code", String(10)),
            Column("other", String(10), unique=True),
            Index("uq_full", "code", "other", unique=True),
            Index("uq_partial", "code", unique=True, postgresql_where=func.length("code") > 2),
            Index("ix_plain", "code"),
        )
        Index("uq_lower", func.lower(table.c.code), unique=True)
        keys = [sorted(column.name for column in key) for key in unique_keys(table)]
        assert keys == [["id"], ["other"], ["code", "other"]]

    def test_a_table_without_primary_key_has_its_other_keys(self) -> None:
        """An empty primary key is not a key."""
        table = Table("keyless", MetaData(), Column("code", Integer, unique=True))
        assert unique_keys(table) == [frozenset([table.c.code])]

    def test_a_conflict_may_change_all_but_the_key_and_the_identity(self) -> None:
        """A row that is found by its name keeps its id."""
        assert target_of(Hero).overwritten == {"name", "secret_name", "age", "team_id"}
        assert target_of(Hero, "name").overwritten == {"secret_name", "age", "team_id"}
        assert "version" not in target_of(Article).overwritten

    def test_update_columns_limit_what_a_conflict_changes(self) -> None:
        """The key may be among them, it stays the same anyway."""
        assert target_of(Hero, update_columns=["id", "age"]).overwritten == {"age"}
        assert target_of(Hero, update_columns="age").overwritten == {"age"}
        assert target_of(Hero, update_columns=[]).overwritten == frozenset()

    @pytest.mark.parametrize(("key", "name"), [("slug", "id"), ("id", "version")])
    def test_update_columns_cannot_change_identity_or_version(self, key: str, name: str) -> None:
        """The session knows a row by its primary key, and the library counts the version."""
        with pytest.raises(
            ValidationError, match=f"an upsert cannot change {name} of an existing Article"
        ):
            target_of(Article, key, [name, "title"])

    def test_a_model_of_several_tables_is_refused(self) -> None:
        """Joined inheritance would need an upsert per table."""

        class Vehicle(PlainBase):
            __tablename__ = "vehicle"
            id: Mapped[int] = mapped_column(primary_key=True)

        class Car(Vehicle):
            __tablename__ = "car"
            id: Mapped[int] = mapped_column(ForeignKey("vehicle.id"), primary_key=True)

        assert target_of(Vehicle).key == ("id",)
        with pytest.raises(ValidationError, match="Car is not stored in one table"):
            target_of(Car)

    def test_a_model_of_a_query_is_refused(self) -> None:
        """It has no table to write to."""
        hero, team = Hero.__table__, Team.__table__  # type: ignore[attr-defined]
        joined = join(hero, team, hero.c.team_id == team.c.id)

        class Member(PlainBase):
            __table__ = select(hero.c.id, team.c.city).select_from(joined).subquery()
            __mapper_args__: ClassVar[Any] = {"primary_key": [__table__.c.id]}

        with pytest.raises(ValidationError, match="Member is not stored in one table"):
            target_of(Member)

    def test_no_model_is_refused(self) -> None:
        """A class that is not a table model, and what is not a class."""
        for wrong in (dict, BaseModel, "Hero"):
            with pytest.raises(ValidationError, match="not a table model"):
                target_of(wrong)  # type: ignore[arg-type]


class TestDefaults:
    """Defaults of fields that rows omit."""

    def test_required_is_what_nothing_fills_in(self) -> None:
        """Neither the caller's model, nor the table, nor the database."""
        assert target_of(Hero).required == {"name", "secret_name"}
        assert target_of(Setting).required == {"key"}
        assert target_of(Article).required == {"slug"}
        assert target_of(Seat).required == {"row", "number"}
        assert target_of(Cat).required == frozenset()

    def test_keys_that_the_database_makes(self) -> None:
        """Autoincrement, server defaults, SQL expressions and sequences make one."""

        class Made(PlainBase):
            __tablename__ = "made"
            auto: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
            serve: Mapped[int] = mapped_column(primary_key=True, server_default="1")
            sql: Mapped[int] = mapped_column(primary_key=True, default=func.abs(-1))
            seq: Mapped[int] = mapped_column(Sequence("made_seq"), primary_key=True)
            given: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)

        assert target_of(Made).generated == {"auto", "serve", "sql", "seq"}
        assert target_of(Hero).generated == {"id"}
        assert target_of(Hero, "name").generated == frozenset()
        assert target_of(HeroTag).generated == frozenset()

    def test_defaults_that_only_pydantic_knows_are_filled(self) -> None:
        """SQLModel does not hand them on to a `sa_column`."""

        class Sheet(Local, table=True):
            id: int = Field(primary_key=True)
            fixed: str = Field(default="calm", sa_column=Column(String(20), nullable=False))
            made: str = Field(default_factory=lambda: "made", sa_column=Column("made_", String(20)))
            from_others: str = Field(
                default_factory=lambda values: f"no {values['id']}", sa_column=Column(String(20))
            )
            nothing: str | None = Field(default=None, sa_column=Column(String(20)))

        target = target_of(Sheet)
        entries = payload_of(target, [{"id": 5}, {"id": 6}]).entries
        assert Batch(target, ("id",), entries).insert_parameters() == [
            {"id": 5, "fixed": "calm", "made_": "made", "from_others": "no 5"},
            {"id": 6, "fixed": "calm", "made_": "made", "from_others": "no 6"},
        ]
        given = payload_of(target, [{"id": 5, "fixed": "x", "made": "y", "from_others": "z"}])
        names = ("id", "fixed", "made", "from_others")
        assert Batch(target, names, given.entries).insert_parameters() == [
            {"id": 5, "fixed": "x", "made_": "y", "from_others": "z"}
        ]

    def test_version_and_discriminator_are_filled(self) -> None:
        """As the ORM does on insert."""
        entry = Entry(0, {"id": 5}, (5,))
        assert Batch(target_of(Cat), ("id",), [entry]).insert_parameters() == [
            {"id": 5, "kind": "cat"}
        ]
        (row,) = Batch(target_of(Article), ("id",), [entry]).insert_parameters()
        assert row["version"] == 1


class TestPayload:
    """Rows made plain, and merged by key."""

    def test_values_are_coerced(self) -> None:
        """As filters do it."""
        token = uuid.uuid4()
        payload = payload_of(
            target_of(AllTypes),
            [
                {
                    "id": "1",
                    "integer": "5",
                    "day": "2024-03-01",
                    "token": str(token),
                    "colour": "red",
                    "flag": "true",
                    "real": None,
                }
            ],
        )
        assert payload.entries[0].values == {
            "id": 1,
            "integer": 5,
            "day": dt.date(2024, 3, 1),
            "token": token,
            "colour": Colour.RED,
            "flag": True,
            "real": None,
        }

    def test_a_value_that_cannot_be_coerced_is_refused_with_its_row(self) -> None:
        """The error names the row and the field, but not the value."""
        rows = [{"id": 1}, {"id": 2, "age": "secret"}]
        with pytest.raises(ValidationError, match=r"row 1 of the payload: Hero\.age") as caught:
            payload_of(target_of(Hero), rows)
        assert caught.value.field == "age"
        assert caught.value.value == "secret"
        assert "secret" not in str(caught.value)

    def test_unknown_fields_are_refused_with_their_row(self) -> None:
        """Relationships are unknown here, too."""
        for name in ("nmae", "team", 5):
            with pytest.raises(UnknownFieldError, match="row 1 of the payload: Hero has no field"):
                payload_of(target_of(Hero), [{"id": 1}, {"id": 2, name: 1}])

    @pytest.mark.parametrize("wrong", [{"id": 1}, "rows", b"rows", 5, None, Currency(code="a")])
    def test_what_is_no_list_of_rows_is_refused(self, wrong: Any) -> None:
        """A single row included."""
        with pytest.raises(ValidationError, match="payload must be a list of mappings, not"):
            payload_of(target_of(Hero), wrong)

    @pytest.mark.parametrize("wrong", [5, None, "row", ("id", 1)])
    def test_what_is_no_row_is_refused(self, wrong: Any) -> None:
        """The error says which one it is."""
        with pytest.raises(ValidationError, match="row 1 of the payload must be a mapping"):
            payload_of(target_of(Hero), [{"id": 1}, wrong])

    def test_rows_may_come_from_a_generator_and_be_any_mapping(self) -> None:
        """They are not changed."""

        class Frozen(Mapping[str, Any]):
            def __getitem__(self, key: str) -> Any:
                return {"id": "7"}[key]

            def __iter__(self) -> Any:
                return iter(["id"])

            def __len__(self) -> int:
                return 1

        row = {"id": "5"}
        payload = payload_of(target_of(Hero), (each for each in (row, Frozen())))
        assert [entry.values for entry in payload.entries] == [{"id": 5}, {"id": 7}]
        assert row == {"id": "5"}

    def test_of_pydantic_objects_the_set_fields_count(self) -> None:
        """Defaults of the others would overwrite existing values."""

        class HeroIn(BaseModel):
            name: str
            secret_name: str = "?"
            age: int | None = None

        target = target_of(Hero, "name")
        rows = [HeroIn(name="a", age=None), Hero(name="b", secret_name="x")]
        assert [entry.values for entry in payload_of(target, rows).entries] == [
            {"name": "a", "age": None},
            {"name": "b", "secret_name": "x"},
        ]

    def test_rows_of_a_session_are_refused(self) -> None:
        """It is unclear which of their fields should be written."""
        hero = Hero(id=5, name="a", secret_name="b")
        make_transient_to_detached(hero)
        with pytest.raises(ValidationError, match="row 0 of the payload was read from"):
            payload_of(target_of(Hero), [hero])

    @pytest.mark.parametrize(
        ("model", "fields", "row", "missing"),
        [
            (Hero, ["name"], {"age": 5}, "name"),
            (Hero, ["name"], {"name": None}, "name"),
            (Seat, None, {"row": "A"}, "number"),
            (HeroTag, None, {"hero_id": 1}, "tag_id"),
            (Setting, ["scope", "key"], {"scope": "x"}, "key"),
        ],
    )
    def test_rows_without_their_key_are_refused(
        self, model: Any, fields: Any, row: dict[str, Any], missing: str
    ) -> None:
        """Without it, an existing row cannot be identified."""
        with pytest.raises(ValidationError, match=f"row 0 of the payload has no {missing}"):
            payload_of(target_of(model, fields), [row])

    def test_a_key_that_the_database_makes_may_be_missing(self) -> None:
        """Such a row is new."""
        entries = payload_of(target_of(Hero), [{"name": "a"}, {"id": None, "name": "a"}]).entries
        assert [(entry.key, entry.values) for entry in entries] == [(None, {"name": "a"})] * 2

    def test_a_key_with_a_python_default_may_be_missing(self) -> None:
        """A fixed one meets the rows that have it, a made one is new."""
        entries = payload_of(target_of(Setting, ["scope", "key"]), [{"key": "k"}]).entries
        assert entries[0].key == ("global", "k")
        assert entries[0].values == {"scope": "global", "key": "k"}
        made = payload_of(target_of(Document), [{"title": "a"}, {"title": "b"}]).entries
        assert all(isinstance(entry.values["id"], uuid.UUID) for entry in made)
        assert made[0].key != made[1].key

    def test_a_key_with_a_pydantic_default_may_be_missing(self) -> None:
        """The default of a `sa_column` counts as well."""

        class Shelf(Local, table=True):
            code: str = Field(default="main", sa_column=Column(String(20), primary_key=True))

        assert payload_of(target_of(Shelf), [{}]).entries[0].key == ("main",)

    def test_none_means_not_given_where_a_default_replaces_it(self) -> None:
        """The ORM does the same for columns that cannot be NULL."""
        row = {"key": "k", "state": None, "priority": None, "source": None, "id": None}
        entries = payload_of(target_of(Setting, ["scope", "key"]), [row]).entries
        assert entries[0].values == {"key": "k", "scope": "global"}

    def test_none_does_not_wipe_out_the_stamp_of_an_update(self) -> None:
        """Rows that were dumped before their first update have None there."""
        row = {"id": 1, "updated_at": None, "title": None}
        assert payload_of(target_of(Article), [row]).entries[0].values == {"id": 1, "title": None}

    def test_the_same_key_twice_is_one_entry(self) -> None:
        """The later row wins, field by field, where the first one is."""
        rows = [{"id": 1, "age": 5, "name": "a"}, {"id": 2}, {"id": "1", "age": 6}]
        payload = payload_of(target_of(Hero), rows)
        assert [entry.values for entry in payload.entries] == [
            {"id": 1, "age": 6, "name": "a"},
            {"id": 2},
        ]
        assert [payload.entries.index(entry) for entry in payload.places] == [0, 1, 0]

    def test_a_later_row_changes_only_what_a_conflict_may_change(self) -> None:
        """It would meet the row that the first one has written."""
        target = target_of(Hero, update_columns=["age"])
        rows = [{"id": 1, "name": "a"}, {"id": 1, "name": "b", "secret_name": "c", "age": 6}]
        assert payload_of(target, rows).entries[0].values == {"id": 1, "name": "a", "age": 6}

    def test_rows_that_differ_in_another_unique_key_are_not_merged(self) -> None:
        """Another row may take the value in between."""
        rows = [{"id": 1, "name": "b"}, {"id": 2, "name": "a"}, {"id": 1, "name": "c"}]
        payload = payload_of(target_of(Hero), [*rows, {"id": 1, "name": "c", "age": 5}])
        assert [payload.entries.index(entry) for entry in payload.places] == [0, 1, 2, 2]


class Kind(enum.Enum):
    A = "a"


def test_an_enum_key_is_coerced_before_it_is_compared() -> None:
    """The same key in two spellings is one row."""

    class Flagged(Local, table=True):
        kind: Kind = Field(primary_key=True)
        note: str | None = None

    rows = [{"kind": "a"}, {"kind": Kind.A, "note": "x"}]
    assert len(payload_of(target_of(Flagged), rows).entries) == 1


class Numbered(Local, table=True):
    """Has a key that its declaration lets be NULL, as some databases let it."""

    id: int | None = Field(default=None, sa_column=Column(Integer, primary_key=True, nullable=True))
    name: str


def test_none_for_a_generated_key_is_no_key() -> None:
    """The database generates it, whether or not it is declared nullable."""
    payload = payload_of(target_of(Numbered), [{"id": None, "name": "a"}, {"name": "b"}])
    assert [entry.values for entry in payload.entries] == [{"name": "a"}, {"name": "b"}]
