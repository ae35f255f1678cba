"""Upserts without a database: the batches, the statements, and what is read back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import pytest
from sqlalchemy import (
    Column,
    Index,
    Integer,
    Sequence,
    Table,
    UniqueConstraint,
    func,
)
from sqlalchemy.dialects import mssql, mysql, postgresql, sqlite
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    mapped_column,
)

from sqlmodel_crud_utils._core.writes.targets import Target, check_dialect, target_of
from sqlmodel_crud_utils._core.writes.upsert_rows import (
    Action,
    Batch,
    Entry,
    batches,
    matched,
    not_read_back,
    payload_of,
    unique_values,
)
from sqlmodel_crud_utils._core.writes.upsert_statements import (
    insert_statement,
    update_statement,
    upsert_statement,
)
from sqlmodel_crud_utils.exceptions import ValidationError
from tests.models import (
    Hero,
    OddName,
    Seat,
    Setting,
)
from tests.upsert_models import STAMPED, Article, Node, Person, Reading

_DIALECTS = {
    "sqlite": sqlite.dialect(),
    "postgresql": postgresql.dialect(),
    "mysql": mysql.dialect(),
}


class PlainBase(DeclarativeBase):
    """Plain SQLAlchemy models that no database of the tests needs."""


def sql(statement: Any, dialect: str) -> str:
    """Return the statement on one line."""
    return " ".join(str(statement.compile(dialect=_DIALECTS[dialect])).split())


def upsert_sql(target: Target, names: Iterable[str], dialect: str) -> str:
    """Return the upsert of rows with these fields."""
    keys = [target.columns[name].key for name in names]
    parameters = [dict.fromkeys(keys)]
    statement, _ = upsert_statement(target, names, parameters, _DIALECTS[dialect])
    compiled = statement.compile(dialect=_DIALECTS[dialect], column_keys=keys)
    return " ".join(str(compiled).split())


def shapes(target: Target, payload: Iterable[Any], size: int = 100) -> list[list[int]]:
    """Return the batches of a payload, each as the indexes of its rows."""
    entries = payload_of(target, payload).entries
    return [
        [entry.index for entry in batch.entries]
        for batch in batches(target, entries, size, _DIALECTS["sqlite"])
    ]


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
        """For any expression."""

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
        """A mapper may declare a key of its own."""

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
        (batch,) = batches(target, entries, 10, _DIALECTS["sqlite"])
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
            {"_0": 5, "_age": 7}
        ]


class TestStatements:
    """The statements for each database."""

    @pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
    def test_on_conflict_updates_what_the_rows_give(self, dialect: str) -> None:
        """Other columns are left alone."""
        text = upsert_sql(target_of(Hero, "name"), ["id", "name", "secret_name"], dialect)
        assert text.endswith("ON CONFLICT (name) DO UPDATE SET secret_name = excluded.secret_name")

    @pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
    def test_on_conflict_does_nothing_where_nothing_may_change(self, dialect: str) -> None:
        """The row is unchanged, including its version and stamps."""
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
        """`onupdate` of every kind is applied, which a plain INSERT ignores."""
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
        """They cannot be incremented; the generator returns the next one."""

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
        """It is not a value that the library could write."""

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
        assert "state_of_mind=%(_mood)s" in text
        assert "version=(article.version + 1)" in text
        assert "updated_at=%(updated_at)s" in text
        assert "WHERE article.id = %(_0)s" in text

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
        with pytest.raises(ValidationError, match="upserts are not supported on mssql; SQLite,"):
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
        seats, heroes = target_of(Seat), target_of(Hero)
        keys = unique_values(seats, seats.key, entries)
        assert matched(seats.key, keys, [a, b]) == {entries[0]: b, entries[2]: a}
        hero = Hero(id=5, name="a", secret_name="b")
        entry = Entry(0, {}, (5,))
        keys = unique_values(heroes, heroes.key, [entry])
        assert matched(heroes.key, keys, [hero]) == {entry: hero}

    def test_a_row_can_be_looked_for_by_any_key_that_it_gives(self) -> None:
        """A key that has no value finds nothing."""
        entry = Entry(0, {"id": 5, "scope": "x", "key": "k"}, (5,))
        target = target_of(Setting)
        assert unique_values(target, ("id",), [entry]) == {entry: (5,)}
        assert unique_values(target, ("key", "scope"), [entry]) == {entry: ("k", "x")}
        assert unique_values(target, ("state",), [entry]) == {}
        assert target.other_keys == (("key", "scope"),)

    def test_the_error_for_a_lost_row_names_it(self) -> None:
        """And says what may be the reason."""
        error = not_read_back(target_of(OddName), Entry(7, {}, (1,)))
        assert "row 7 of the payload was written, but no OddName has its key (id)" in str(error)


class TestVisibleKeys:
    """Keys of `unique_when_not_deleted`."""

    def test_the_key_is_that_of_visible_rows(self) -> None:
        """The conflict is with the index; other keys need no such care."""
        target = target_of(Person, "email")
        assert (target.key, len(target.criteria)) == (("email",), 1)
        text = upsert_sql(target, ["email", "note"], "postgresql")
        assert "ON CONFLICT (email, not_deleted_marker) DO UPDATE" in text
        assert not target_of(Person).criteria

    def test_a_deleted_row_is_neither_updated_nor_found(self) -> None:
        """Its key is free for another row."""
        target = target_of(Person, "email")
        text = sql(update_statement(target, ["email", "note"]), "sqlite")
        assert text.endswith("WHERE person.email = ? AND person.is_deleted = 0")

    def test_a_row_that_is_deleted_cannot_be_told_by_it(self) -> None:
        """It would be inserted again each time."""
        target = target_of(Person, "email")
        assert payload_of(target, [{"email": "a", "is_deleted": False}]).entries
        with pytest.raises(ValidationError, match=r"row 1 .* identifies only rows that are not"):
            payload_of(target, [{"email": "a"}, {"email": "b", "is_deleted": True}])

    def test_the_order_matters_by_another_key(self) -> None:
        """The columns behind the index's expression are unknown."""
        rows = [{"id": 1}, {"id": 2, "note": "b"}, {"id": 3}]
        assert shapes(target_of(Person), rows) == [[0], [1], [2]]
        by_email = [{"email": "a"}, {"email": "b", "note": "b"}, {"email": "c"}]
        assert shapes(target_of(Person, "email"), by_email) == [[0, 2], [1]]

    def test_mysql_can_find_rows_by_keys_of_mapped_columns_only(self) -> None:
        """The index has one that the model does not know."""
        assert target_of(Person).other_keys == (("number",),)

    def test_the_error_for_a_wrong_key_names_the_fields(self) -> None:
        """Without the column that the library has added."""
        with pytest.raises(ValidationError, match=r"the unique keys are \(id\), \(\w+\), \(\w+\)$"):
            target_of(Person, "note")
