"""The values that each lookup accepts, and SQL that differs between databases."""

from __future__ import annotations

import sqlite3
import sys
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import JSON, Column, Dialect, Integer, String
from sqlalchemy.dialects import mysql, oracle, postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from sqlmodel_crud_utils._core.filters.lookups import LOOKUPS, compared_value, criterion
from sqlmodel_crud_utils._core.filters.text import _glob_class
from sqlmodel_crud_utils.exceptions import ValidationError
from tests.models import AllTypes

SQLITE = sqlite.dialect(dbapi=sqlite3)
POSTGRESQL = postgresql.asyncpg.dialect()
MYSQL = mysql.pymysql.dialect()
ORACLE = oracle.dialect()
DIALECTS = [SQLITE, POSTGRESQL, MYSQL, ORACLE]
TEXT_LOOKUPS = LOOKUPS[LOOKUPS.index("like") :]
NOT_TEXT = ["integer", "real", "flag", "day", "moment", "token", "colour", "blob", "payload"]
OTHER_LOOKUPS = LOOKUPS[: LOOKUPS.index("like")]


class Words(TypeDecorator[list[str]]):
    """Words in a text."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, _dialect: Any) -> Any:
        return " ".join(value)


class Base(DeclarativeBase):
    pass


class Thing(Base):
    __tablename__ = "thing"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    words = Column(Words)
    settings = Column(JSON(none_as_null=True))


def sql(attribute: Any, lookup: str, value: Any, dialect: Dialect) -> tuple[str, list[Any]]:
    """Return the SQL of a filter on one line, and its parameters."""
    compiled = criterion(attribute, lookup, value, dialect).compile(dialect=dialect)
    return " ".join(str(compiled).split()), list(compiled.params.values())


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("lookup", LOOKUPS)
def test_no_value_is_written_into_the_statement(lookup: str, dialect: Dialect) -> None:
    """All values are parameters, so that SQLAlchemy compiles one statement for all of them."""
    values: list[Any] = ["q1", "q2"]
    if lookup in {"in", "not_in", "between"}:
        values = [["q1", "q2"], ["q3", "q4"]]
    elif lookup == "is_null":
        values = [True]
    keys = set()
    for value in values:
        found = criterion(AllTypes.text, lookup, value, dialect)
        assert "q" not in str(found.compile(dialect=dialect))
        keys.add(found._generate_cache_key().key)  # type: ignore[union-attr]
    assert len(keys) == 1


@pytest.mark.parametrize("value", [True, False])
def test_a_bool_is_a_parameter_too(value: bool) -> None:
    """SQLAlchemy would write it into the statement, and has no order for it then."""
    assert sql(AllTypes.flag, "gte", value, SQLITE) == ("alltypes.flag >= ?", [value])


@pytest.mark.parametrize("name", NOT_TEXT)
@pytest.mark.parametrize("lookup", TEXT_LOOKUPS)
def test_a_text_lookup_needs_a_text_column(lookup: str, name: str) -> None:
    """The error names the lookups that fit instead."""
    attribute = getattr(AllTypes, name)
    with pytest.raises(ValidationError, match=rf"{lookup} searches text") as caught:
        criterion(attribute, lookup, "5", SQLITE)
    assert caught.value.field == name
    assert f"AllTypes.{name} takes" in str(caught.value)
    assert str(caught.value).endswith(", ".join(OTHER_LOOKUPS))


@pytest.mark.parametrize("lookup", ["gt", "gte", "lt", "lte"])
def test_nothing_is_above_or_below_none(lookup: str) -> None:
    """The error names the lookup that finds NULLs."""
    with pytest.raises(ValidationError, match=r"needs a value, not None; .* integer__is_null"):
        criterion(AllTypes.integer, lookup, None, SQLITE)
    with pytest.raises(ValidationError, match=r"AllTypes\.integer__between needs a value"):
        criterion(AllTypes.integer, "between", (None, 5), SQLITE)


@pytest.mark.parametrize("lookup", TEXT_LOOKUPS)
@pytest.mark.parametrize("value", [None, True, ["x"], b"x"])
def test_a_text_lookup_needs_a_text(lookup: str, value: Any) -> None:
    """None, bools, bytes and lists are refused."""
    with pytest.raises(ValidationError):
        criterion(AllTypes.text, lookup, value, SQLITE)


@pytest.mark.parametrize("lookup", ["in", "not_in", "between"])
@pytest.mark.parametrize("value", ["12", b"12", 12, None, {1: 2}])
def test_a_list_lookup_needs_a_list(lookup: str, value: Any) -> None:
    """A string above all: its letters are hardly what the caller meant."""
    with pytest.raises(ValidationError, match=f"AllTypes.text__{lookup} takes a list of values"):
        criterion(AllTypes.text, lookup, value, SQLITE)


@pytest.mark.parametrize("value", [[], [1], [1, 2, 3]])
def test_between_needs_two_values(value: Any) -> None:
    """The error says how many there were."""
    with pytest.raises(ValidationError, match=f"takes two values.*not {len(value)}"):
        criterion(AllTypes.integer, "between", value, SQLITE)


@pytest.mark.parametrize("value", [None, "maybe", 2, []])
def test_is_null_needs_a_bool(value: Any) -> None:
    """A word that means one will do."""
    with pytest.raises(ValidationError, match=r"AllTypes\.integer__is_null takes True or False"):
        criterion(AllTypes.integer, "is_null", value, SQLITE)
    assert sql(AllTypes.integer, "is_null", "true", SQLITE) == ("alltypes.integer IS NULL", [])
    assert sql(AllTypes.integer, "is_null", 0, SQLITE) == ("alltypes.integer IS NOT NULL", [])


def test_a_value_of_a_list_must_fit_the_column() -> None:
    """Each of them is coerced."""
    with pytest.raises(ValidationError, match=r"AllTypes\.integer must be a 64-bit integer"):
        criterion(AllTypes.integer, "in", [1, "x"], SQLITE)


def test_a_regular_expression_that_python_refuses_is_reported_where_python_runs_it() -> None:
    """SQLite has Python's expressions; others have their own, with their own errors."""
    with pytest.raises(ValidationError, match=r"AllTypes\.text__regex: not a regular expression"):
        criterion(AllTypes.text, "regex", "(", SQLITE)
    assert sql(AllTypes.text, "regex", "(", POSTGRESQL)[1] == ["("]


def test_a_pattern_is_no_value_for_a_type_of_the_users_own() -> None:
    """It is bound as text, and the type's conversion is not asked."""
    compiled = criterion(Thing.words, "like", "a", SQLITE).compile(dialect=SQLITE)
    parameter = next(p for p in compiled.binds.values() if p.value == "%a%")
    assert type(parameter.type) is String
    with pytest.raises(ValidationError, match=r"Thing\.words__like takes a string, not list"):
        criterion(Thing.words, "like", ["a"], SQLITE)


def test_null_of_json_is_looked_for_only_where_it_may_be() -> None:
    """A column with `none_as_null` stores None as NULL."""
    assert sql(Thing.settings, "eq", None, SQLITE) == ("thing.settings IS NULL", [])
    assert sql(AllTypes.payload, "eq", None, SQLITE)[1] == ["null"]


@pytest.mark.parametrize(
    ("lookup", "value", "pattern"),
    [
        ("contains", "a*b", "*a[*]b*"),
        ("startswith", "[x]?", "[[]x][?]*"),
        ("endswith", "é", "*é"),
        ("icontains", "é*1", "*[Éé][*]1*"),
        ("iexact", "Ab", "[Aa][Bb]"),
        ("ilike", "a_%*", "*[Aa]?*[*]*"),
    ],
)
def test_sqlite_gets_a_glob_pattern(lookup: str, value: str, pattern: str) -> None:
    """Its LIKE ignores the case of ASCII letters, and of no others."""
    assert sql(AllTypes.text, lookup, value, SQLITE) == ("alltypes.text GLOB ?", [pattern])


@pytest.mark.parametrize(
    ("lookup", "operator"),
    [("contains", "LIKE"), ("icontains", "ILIKE"), ("istartswith", "ILIKE")],
)
def test_postgresql_gets_like_and_ilike(lookup: str, operator: str) -> None:
    """With the special characters escaped."""
    text, parameters = sql(AllTypes.text, lookup, "5%_/", POSTGRESQL)
    assert text == f"alltypes.text {operator} $1::VARCHAR ESCAPE '/'"
    assert "5/%/_//%" in parameters[0]


def test_postgresql_can_use_an_index_on_lower_for_iexact() -> None:
    """Nobody has one that ILIKE could use for a whole value."""
    assert sql(AllTypes.text, "iexact", "X", POSTGRESQL) == (
        "lower(alltypes.text) = lower($1::VARCHAR)",
        ["X"],
    )


def test_mysql_gets_a_binary_collation() -> None:
    """For any collation of the column, and any character set of the connection."""
    text, parameters = sql(AllTypes.text, "startswith", "5%", MYSQL)
    assert text == (
        "alltypes.text LIKE (CAST(%s AS CHAR CHARACTER SET utf8mb4) COLLATE utf8mb4_bin) ESCAPE '/'"
    )
    assert parameters == ["5/%%"]


def test_other_databases_get_standard_sql() -> None:
    """SQLAlchemy's default SQL."""
    assert (
        sql(AllTypes.text, "contains", "x", ORACLE)[0] == ("alltypes.text LIKE :text_1 ESCAPE '/'")
        or "LIKE" in sql(AllTypes.text, "contains", "x", ORACLE)[0]
    )
    assert "lower(alltypes.text) = lower(" in sql(AllTypes.text, "iexact", "x", ORACLE)[0]


def test_the_classes_of_letters_are_complete() -> None:
    """For every character of Unicode: exactly those that lower() makes the same."""
    same: dict[str, set[str]] = {}
    for character in map(chr, range(sys.maxunicode + 1)):
        lower = character.lower()
        if len(lower) == 1 and lower != character:
            same.setdefault(lower, {lower}).add(character)
    for letters in same.values():
        for letter in letters:
            assert set(_glob_class(letter)[1:-1]) == letters
    assert _glob_class("İ") == "İ"
    assert _glob_class("1") == "1"
    assert _glob_class("[") == "[[]"


def test_json_is_compared_as_the_database_can() -> None:
    """PostgreSQL as JSONB, MySQL as JSON and not as text, MariaDB and SQLite as they store it."""
    equal = criterion(AllTypes.payload, "eq", {"a": 1}, sqlite.dialect())
    assert str(equal.compile(dialect=sqlite.dialect())) == "alltypes.payload = ?"
    text = str(equal.compile(dialect=postgresql.dialect()))
    assert text == "CAST(alltypes.payload AS JSONB) = CAST(%(param_1)s::JSON AS JSONB)"
    server = mysql.dialect()
    assert str(equal.compile(dialect=server)) == (
        "CAST(alltypes.payload AS JSON) = CAST(%s AS JSON)"
    )
    server.is_mariadb = True
    assert str(equal.compile(dialect=server)) == "alltypes.payload = %s"


@pytest.mark.parametrize(
    ("name", "lookup", "value", "bound"),
    [
        ("integer", "eq", "5", 5),
        ("text", "ne", "x", "x"),
        ("day", "lte", "2024-05-17", date(2024, 5, 17)),
        ("integer", "in", [5], None),
        ("integer", "eq", None, None),
        ("integer", "eq", AllTypes.big, None),
        ("integer", "eq", 2**40, None),
        ("amount", "eq", Decimal("0.12345678901"), None),
    ],
)
def test_plain_comparisons_are_prepared(name: str, lookup: str, value: Any, bound: Any) -> None:
    """Their statement is the same for all values; the others are made for each."""
    assert compared_value(getattr(AllTypes, name), lookup, value) == bound
