"""Upserts without a database: the target, the rows, the batches and the statements."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections.abc import Iterable, Mapping
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
    UniqueConstraint,
    func,
    join,
    select,
)
from sqlalchemy.dialects import mssql, mysql, postgresql, sqlite
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    make_transient_to_detached,
    mapped_column,
    registry,
)
from sqlmodel import Field, SQLModel

from sqlmodel_crud_utils._core.upsert import (
    Target,
    check_dialect,
    insert_statement,
    target_of,
    unique_keys,
    update_statement,
    upsert_statement,
)
from sqlmodel_crud_utils._core.upsert_rows import (
    Action,
    Batch,
    Entry,
    batches,
    equal_to,
    matched,
    not_read_back,
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
    OddName,
    Seat,
    Setting,
    Team,
)
from tests.upsert_models import STAMPED, Article, Cat, Node, Person, Reading

_DIALECTS = {
    "sqlite": sqlite.dialect(),
    "postgresql": postgresql.dialect(),
    "mysql": mysql.dialect(),
}


class Local(SQLModel, registry=registry()):
    """Models that no database of the tests needs."""

    metadata = MetaData()


class PlainBase(DeclarativeBase):
    """Plain SQLAlchemy models that no database of the tests needs."""


def sql(statement: Any, dialect: str) -> str:
    """Return the statement on one line."""
    return " ".join(str(statement.compile(dialect=_DIALECTS[dialect])).split())


def upsert_sql(target: Target, names: Iterable[str], dialect: str) -> str:
    """Return the upsert of rows that give these fields."""
    keys = [target.columns[name].key for name in names]
    parameters = [dict.fromkeys(keys)]
    statement, _ = upsert_statement(target, names, parameters, _DIALECTS[dialect])
    compiled = statement.compile(dialect=_DIALECTS[dialect], column_keys=keys)
    return " ".join(str(compiled).split())


def shapes(target: Target, payload: Iterable[Any], size: int = 100) -> list[list[int]]:
    """Return the batches of a payload, each as the indexes of its rows."""
    entries = payload_of(target, payload).entries
    return [[entry.index for entry in batch.entries] for batch in batches(target, entries, size)]


class TestTarget:
    """What an upsert writes to."""

    def test_the_key_is_id_where_the_model_has_it(self) -> None:
        """As in v0.1.0."""
        assert target_of(Hero).key == ("id",)

    def test_the_key_is_the_primary_key_elsewhere(self) -> None:
        """A composite key and one of another name need no `pk_fields`."""
        assert target_of(Seat).key == ("row", "number")
        assert target_of(Currency).key == ("code",)

    def test_an_id_that_is_no_key_is_not_taken_for_one(self) -> None:
        """Only a unique key can tell whether a row is there."""

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
        """The error names the keys that there are."""
        with pytest.raises(
            ValidationError, match=r"no unique key of Hero; there are \(id\), \(name"
        ):
            target_of(Hero, fields)

    def test_the_only_key_is_named_too(self) -> None:
        """In the singular."""
        with pytest.raises(ValidationError, match=r"there is \(number, row\)"):
            target_of(Seat, ["guest"])

    @pytest.mark.parametrize("parameter", ["pk_fields", "update_columns"])
    def test_unknown_names_are_refused(self, parameter: str) -> None:
        """The error names what there is, relationships are none of it."""
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
        """An empty primary key is no key."""
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
        with pytest.raises(ValidationError, match=f"an upsert does not change {name} of a Article"):
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
        """There is no table to write to."""
        hero, team = Hero.__table__, Team.__table__  # type: ignore[attr-defined]
        joined = join(hero, team, hero.c.team_id == team.c.id)

        class Member(PlainBase):
            __table__ = select(hero.c.id, team.c.city).select_from(joined).subquery()
            __mapper_args__: ClassVar[Any] = {"primary_key": [__table__.c.id]}

        with pytest.raises(ValidationError, match="Member is not stored in one table"):
            target_of(Member)

    def test_no_model_is_refused(self) -> None:
        """A class that is no table model, and what is no class."""
        for wrong in (dict, BaseModel, "Hero"):
            with pytest.raises(ValidationError, match="not a table model"):
                target_of(wrong)  # type: ignore[arg-type]


class TestDefaults:
    """What rows get that they do not give."""

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
        """The error tells the row and the field, and not the value."""
        rows = [{"id": 1}, {"id": 2, "age": "secret"}]
        with pytest.raises(ValidationError, match=r"row 1 of the payload: Hero\.age") as caught:
            payload_of(target_of(Hero), rows)
        assert caught.value.field == "age"
        assert caught.value.value == "secret"
        assert "secret" not in str(caught.value)

    def test_unknown_fields_are_refused_with_their_row(self) -> None:
        """Relationships are unknown here, too."""
        for name in ("nmae", "team", 5):
            with pytest.raises(UnknownFieldError) as caught:
                payload_of(target_of(Hero), [{"id": 1}, {"id": 2, name: 1}])
            assert caught.value.__notes__ == ["in row 1 of the payload"]

    @pytest.mark.parametrize("wrong", [{"id": 1}, "rows", b"rows", 5, None, Currency(code="a")])
    def test_what_is_no_list_of_rows_is_refused(self, wrong: Any) -> None:
        """A single row included."""
        with pytest.raises(ValidationError, match="payload must be a list of mappings, not"):
            payload_of(target_of(Hero), wrong)

    @pytest.mark.parametrize("wrong", [5, None, "row", ("id", 1)])
    def test_what_is_no_row_is_refused(self, wrong: Any) -> None:
        """The error tells which one it is."""
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
        """Defaults of the others would overwrite what is there."""

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
        """Nothing tells which of their fields are meant to be written."""
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
        """Without it nothing tells whether the row is there."""
        with pytest.raises(ValidationError, match=f"row 0 of the payload gives no {missing}"):
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
        """That of a `sa_column` counts as well."""

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


class TestBatches:
    """Rows sorted by what one statement can write."""

    def test_rows_of_the_same_fields_share_a_batch(self) -> None:
        """In any order of their fields, and wherever they are."""
        rows = [{"id": 1, "value": 1}, {"id": 2}, {"value": 3, "id": 3}, {"id": 4}]
        rows = [{"place": "x", "number": row.pop("id"), **row} for row in rows]
        assert shapes(target_of(Reading), rows) == [[0, 2], [1, 3]]

    def test_batches_are_cut_to_size(self) -> None:
        """So that a statement stays under the limit."""
        rows = [{"place": "x", "number": number} for number in range(5)]
        assert shapes(target_of(Reading), rows, 2) == [[0, 1], [2, 3], [4]]

    def test_the_order_is_kept_where_another_unique_key_is_given(self) -> None:
        """A row may free the value that a later one takes."""
        rows = [{"id": 1, "name": "a"}, {"id": 2, "age": 5}, {"id": 3, "name": "c"}]
        assert shapes(target_of(Hero), rows) == [[0], [1], [2]]

    def test_the_order_is_kept_where_rows_refer_to_each_other(self) -> None:
        """A parent comes before its children."""
        rows = [{"id": 1}, {"id": 2, "parent_id": 1}, {"id": 3}]
        assert shapes(target_of(Node), rows) == [[0], [1], [2]]
        assert shapes(target_of(Node), [{"id": 1}, {"id": 2, "label": "x"}, {"id": 3}]) == [
            [0, 2],
            [1],
        ]

    def test_unique_expressions_make_the_order_matter_too(self) -> None:
        """Whatever they are made of."""

        class Folder(PlainBase):
            __tablename__ = "folder"
            id: Mapped[int] = mapped_column(primary_key=True)
            title: Mapped[str] = mapped_column()
            note: Mapped[str]
            __table_args__ = (
                Index("uq_title", func.lower(title.column), unique=True),
                Index("ix_note", "note"),
                UniqueConstraint("id", name="uq_same_as_key"),
            )

        assert target_of(Folder).entangled == {"title"}
        assert target_of(Hero, "name").entangled == {"id"}
        assert target_of(Seat).entangled == frozenset()

    def test_a_table_without_primary_key_has_no_entangled_key(self) -> None:
        """The ORM can be told another key."""

        class Loose(PlainBase):
            __table__ = Table("loose", PlainBase.metadata, Column("code", Integer, unique=True))
            __mapper_args__: ClassVar[Any] = {"primary_key": [__table__.c.code]}

        assert target_of(Loose, "code").entangled == frozenset()

    def test_rows_without_key_come_last_and_in_order(self) -> None:
        """Their keys ascend, and none of them is taken by a row that names it."""
        rows: list[dict[str, Any]] = [{}, {"id": 9}, {"label": "a"}, {"note": "b"}, {"id": 8}]
        assert shapes(target_of(Node), rows) == [[1, 4], [0, 2, 3]]

    def test_rows_without_key_are_made_alike_where_that_changes_nothing(self) -> None:
        """A default is not replaced with None."""
        target = target_of(Hero)
        entries = payload_of(target, [{"name": "a"}, {"name": "b", "age": 5}]).entries
        (batch,) = batches(target, entries, 10)
        assert batch.insert_parameters() == [{"name": "a", "age": None}, {"name": "b", "age": 5}]
        target = target_of(Article)
        rows = [{"slug": "a"}, {"slug": "b", "views": 1}, {"slug": "c"}]
        assert shapes(target, rows) == [[0], [1], [2]]

    def test_nothing_makes_no_batch(self) -> None:
        """Not even an empty one."""
        assert shapes(target_of(Hero), []) == []

    @pytest.mark.parametrize(
        ("names", "action"),
        [
            (("name", "secret_name"), Action.INSERT),
            (("id", "name", "secret_name"), Action.UPSERT),
            (("id", "name"), Action.UPDATE),
        ],
    )
    def test_what_rows_give_decides_how_they_are_written(
        self, names: tuple[str, ...], action: Action
    ) -> None:
        """Without a key they are new; with too little else they can only be there already."""
        assert Batch(target_of(Hero), names, []).action is action

    def test_update_parameters_keep_key_and_new_values_apart(self) -> None:
        """The key is in the criteria, the rest is set."""
        target = target_of(Hero, update_columns=["age"])
        entries = [Entry(0, {"id": 5, "name": "a", "age": 7}, (5,))]
        assert Batch(target, ("id", "name", "age"), entries).update_parameters() == [
            {"key_id": 5, "new_age": 7}
        ]


class TestStatements:
    """What each database is told."""

    @pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
    def test_on_conflict_updates_what_the_rows_give(self, dialect: str) -> None:
        """Other columns are left alone."""
        text = upsert_sql(target_of(Hero, "name"), ["id", "name", "secret_name"], dialect)
        assert text.endswith("ON CONFLICT (name) DO UPDATE SET secret_name = excluded.secret_name")

    @pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
    def test_on_conflict_does_nothing_where_nothing_may_change(self, dialect: str) -> None:
        """The row stays as it is, its version and stamps too."""
        target = target_of(Article, update_columns=[])
        text = upsert_sql(target, ["id", "slug", "title"], dialect)
        assert text.endswith("ON CONFLICT (id) DO NOTHING")

    def test_on_duplicate_key_updates_what_the_rows_give(self) -> None:
        """`VALUES(column)` is understood by MariaDB and MySQL."""
        text = upsert_sql(target_of(Hero), ["id", "name", "secret_name"], "mysql")
        assert text.endswith(
            "ON DUPLICATE KEY UPDATE name = VALUES(name), secret_name = VALUES(secret_name)"
        )

    def test_on_duplicate_key_changes_nothing_where_nothing_may_change(self) -> None:
        """INSERT IGNORE would hide other errors."""
        text = upsert_sql(
            target_of(Hero, update_columns=[]), ["id", "name", "secret_name"], "mysql"
        )
        assert text.endswith("ON DUPLICATE KEY UPDATE id = hero.id")

    def test_newer_mysql_names_the_new_row(self) -> None:
        """MySQL 8.0.20 and later warn about `VALUES(column)`; SQLAlchemy knows."""
        dialect = mysql.dialect()
        dialect._requires_alias_for_on_duplicate_key = True
        keys = ["id", "title"]
        statement, _ = upsert_statement(target_of(Article), keys, [dict.fromkeys(keys)], dialect)
        text = " ".join(str(statement.compile(dialect=dialect)).split())
        assert "AS new ON DUPLICATE KEY UPDATE title = new.title" in text
        assert text.endswith("version = (article.version + 1)")

    @pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
    def test_a_conflict_stamps_the_update_and_counts_the_version(self, dialect: str) -> None:
        """`onupdate` of every kind, which an INSERT ignores by itself."""
        statement, parameters = upsert_statement(
            target_of(Article), ["id", "title"], [{"id": 1, "title": "a"}], _DIALECTS[dialect]
        )
        compiled = statement.compile(dialect=_DIALECTS[dialect], column_keys=["id", "title"])
        text = " ".join(str(compiled).split())
        assert "SET title = excluded.title" in text
        assert "seven = abs(" in text
        assert "version = (article.version + 1)" in text
        assert parameters == [{"id": 1, "title": "a"}]
        bound = compiled.construct_params({"id": 1, "title": "a", "version": 1}, _check=False)
        assert {STAMPED, "somebody"} <= set(bound.values())

    def test_a_stamp_that_the_rows_give_wins(self) -> None:
        """An explicit value is not replaced."""
        text = upsert_sql(target_of(Article), ["id", "updated_at"], "sqlite")
        assert "updated_at = excluded.updated_at" in text
        assert "editor = ?" in text

    def test_mysql_rows_go_into_the_statement_where_parameters_follow_them(self) -> None:
        """The drivers could not make one statement of many otherwise."""
        rows = [{"id": 1, "state_of_mind": "a"}, {"id": 2, "state_of_mind": "b"}]
        statement, parameters = upsert_statement(
            target_of(Article), ["id", "mood"], rows, _DIALECTS["mysql"]
        )
        assert parameters is None
        text = sql(statement, "mysql")
        assert text.count("(%s, %s, %s, %s)") == 2
        assert "state_of_mind = VALUES(state_of_mind)" in text
        statement, parameters = upsert_statement(
            target_of(Hero), ["id", "age"], [{"id": 1, "age": 5}], _DIALECTS["mysql"]
        )
        assert parameters == [{"id": 1, "age": 5}]

    def test_versions_that_are_no_numbers_are_made_anew(self) -> None:
        """There is nothing to count; the generator tells the next one."""

        class Lettered(PlainBase):
            __tablename__ = "lettered"
            id: Mapped[int] = mapped_column(primary_key=True)
            text: Mapped[str]
            mark: Mapped[str] = mapped_column()
            __mapper_args__: ClassVar[Any] = {
                "version_id_col": mark.column,
                "version_id_generator": lambda _: "fresh",
            }

        statement, _ = upsert_statement(
            target_of(Lettered), ["id", "text"], [{}], _DIALECTS["sqlite"]
        )
        compiled = statement.compile(dialect=_DIALECTS["sqlite"], column_keys=["id", "text"])
        assert "fresh" in compiled.construct_params(_check=False).values()

    def test_versions_that_the_database_counts_are_left_to_it(self) -> None:
        """PostgreSQL's xmin, or a trigger's."""

        class Counted(PlainBase):
            __tablename__ = "counted"
            id: Mapped[int] = mapped_column(primary_key=True)
            text: Mapped[str]
            mark: Mapped[int] = mapped_column(server_default="1")
            __mapper_args__: ClassVar[Any] = {
                "version_id_col": mark.column,
                "version_id_generator": False,
            }

        target = target_of(Counted)
        assert upsert_sql(target, ["id", "text"], "sqlite").endswith("SET text = excluded.text")
        assert "mark" not in target.fills

    def test_a_sequence_on_update_is_left_to_sqlalchemy(self) -> None:
        """It is no value, and nobody uses it so."""

        class Odd(PlainBase):
            __tablename__ = "odd"
            id: Mapped[int] = mapped_column(primary_key=True)
            text: Mapped[str]
            other: Mapped[int] = mapped_column(onupdate=Sequence("odd_seq"))

        assert upsert_sql(target_of(Odd), ["id", "text"], "sqlite").endswith(
            "SET text = excluded.text"
        )

    def test_update_sets_what_the_rows_give_and_counts_the_version(self) -> None:
        """Stamps are SQLAlchemy's business in an UPDATE."""
        text = sql(update_statement(target_of(Article), ["id", "mood", "author"]), "postgresql")
        assert "state_of_mind=%(new_mood)s" in text
        assert "version=(article.version + 1)" in text
        assert "updated_at=%(updated_at)s" in text
        assert "WHERE article.id = %(key_id)s" in text

    def test_there_is_no_update_of_nothing(self) -> None:
        """The rows are only read back then."""
        assert update_statement(target_of(Hero), ["id"]) is None
        assert update_statement(target_of(Hero, update_columns=[]), ["id", "age"]) is None

    def test_new_rows_give_back_their_keys_where_the_database_can(self) -> None:
        """In the order in which they were given."""
        returning = insert_statement(target_of(Hero), returning=True)
        assert "RETURNING hero.id" in sql(returning, "postgresql")
        plain = insert_statement(target_of(Hero), returning=False)
        assert "RETURNING" not in sql(plain, "mysql")

    def test_other_databases_are_refused(self) -> None:
        """The error names the supported ones."""
        with pytest.raises(ValidationError, match="there is no upsert for mssql; SQLite,"):
            check_dialect(mssql.dialect())
        for dialect in _DIALECTS.values():
            check_dialect(dialect)


class TestReadBack:
    """Rows that are found again."""

    def test_rows_are_matched_by_key(self) -> None:
        """A key that is not among them, and one that is not known, match nothing."""
        a, b = Seat(row="A", number=1), Seat(row="B", number=2)
        entries = [
            Entry(0, {}, ("B", 2)),
            Entry(1, {}, ("C", 3)),
            Entry(2, {}, ("A", 1)),
            Entry(3, {}, None),
        ]
        assert matched(target_of(Seat), entries, [a, b]) == {entries[0]: b, entries[2]: a}
        hero = Hero(id=5, name="a", secret_name="b")
        entry = Entry(0, {}, (5,))
        assert matched(target_of(Hero), [entry], [hero]) == {entry: hero}

    def test_a_row_can_be_looked_for_by_any_key_that_it_gives(self) -> None:
        """A key that has no value finds nothing."""
        entry = Entry(0, {"scope": "x", "key": "k"}, (5,))
        target = target_of(Setting)
        by_name = equal_to(target, ["scope", "key"], entry)
        assert [str(criterion) for criterion in by_name or ()] == [
            "setting.scope = :scope_1",
            "setting.key = :key_1",
        ]
        assert len(equal_to(target, ["id"], entry) or ()) == 1
        assert equal_to(target, ["state"], entry) is None
        assert target.other_keys == (("key", "scope"),)

    def test_the_error_for_a_lost_row_names_it(self) -> None:
        """And says what may be the reason."""
        error = not_read_back(target_of(OddName), Entry(7, {}, (1,)))
        assert "row 7 of the payload was written, but no OddName has its key (id)" in str(error)


class TestVisibleKeys:
    """Keys of `unique_when_visible`."""

    def test_the_key_is_that_of_visible_rows(self) -> None:
        """The conflict is with the index; other keys need no such care."""
        target = target_of(Person, "email")
        assert (target.key, target.visible_only) == (("email",), True)
        text = upsert_sql(target, ["email", "note"], "postgresql")
        assert "ON CONFLICT (email, visible_marker) DO UPDATE" in text
        assert not target_of(Person).visible_only

    def test_a_deleted_row_is_neither_updated_nor_found(self) -> None:
        """Its key is free for another row."""
        target = target_of(Person, "email")
        text = sql(update_statement(target, ["email", "note"]), "sqlite")
        assert text.endswith("WHERE person.email = ? AND person.is_deleted = 0")
        entry = Entry(0, {"email": "a", "number": 5}, ("a",))
        assert len(equal_to(target, ["email"], entry) or ()) == 2
        assert len(equal_to(target, ["number"], entry) or ()) == 1

    def test_a_row_that_is_deleted_cannot_be_told_by_it(self) -> None:
        """It would be inserted again each time."""
        target = target_of(Person, "email")
        assert payload_of(target, [{"email": "a", "is_deleted": False}]).entries
        with pytest.raises(ValidationError, match=r"row 1 .* tells visible rows from each other"):
            payload_of(target, [{"email": "a"}, {"email": "b", "is_deleted": True}])

    def test_the_order_matters_by_another_key(self) -> None:
        """What the index is computed from, nobody knows."""
        rows = [{"id": 1}, {"id": 2, "note": "b"}, {"id": 3}]
        assert shapes(target_of(Person), rows) == [[0], [1], [2]]
        by_email = [{"email": "a"}, {"email": "b", "note": "b"}, {"email": "c"}]
        assert shapes(target_of(Person, "email"), by_email) == [[0, 2], [1]]

    def test_mysql_can_find_rows_by_keys_of_mapped_columns_only(self) -> None:
        """The index has one that the model does not know."""
        assert target_of(Person).other_keys == (("number",),)

    def test_the_error_for_a_wrong_key_names_the_fields(self) -> None:
        """Without the column that the library has added."""
        with pytest.raises(ValidationError, match=r"there are \(id\), \(\w+\), \(\w+\)$"):
            target_of(Person, "note")


class Kind(enum.Enum):
    A = "a"


def test_an_enum_key_is_coerced_before_it_is_compared() -> None:
    """The same key in two spellings is one row."""

    class Flagged(Local, table=True):
        kind: Kind = Field(primary_key=True)
        note: str | None = None

    rows = [{"kind": "a"}, {"kind": Kind.A, "note": "x"}]
    assert len(payload_of(target_of(Flagged), rows).entries) == 1
