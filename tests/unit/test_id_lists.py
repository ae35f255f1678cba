"""Lists become one parameter where the database takes a list as one."""

from __future__ import annotations

import sqlite3
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    Dialect,
    Integer,
    SmallInteger,
    String,
    func,
    not_,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.sql.elements import False_, True_
from sqlalchemy.types import TypeDecorator

from sqlmodel_crud_utils._core.filters.lists import comparable, in_list
from tests.models import AllTypes, Colour

SQLITE = sqlite.dialect(dbapi=sqlite3)
POSTGRESQL = postgresql.asyncpg.dialect()
MYSQL = mysql.pymysql.dialect()


class Wrapped(TypeDecorator[str]):
    """A type whose parameters are wrapped in a function call."""

    impl = String
    cache_ok = True

    def bind_expression(self, bindvalue: Any) -> ColumnElement[Any]:
        return func.lower(bindvalue)


class Base(DeclarativeBase):
    pass


class Thing(Base):
    __tablename__ = "thing"

    id: Mapped[int] = mapped_column(primary_key=True)
    small = Column(SmallInteger)
    numbers = Column(ARRAY(Integer))
    wrapped = Column(Wrapped)


def sql(criterion: ColumnElement[bool], dialect: Dialect) -> str:
    """Return the SQL of a criterion on one line."""
    return " ".join(str(criterion.compile(dialect=dialect)).split())


def parameters(criterion: ColumnElement[bool], dialect: Dialect) -> dict[str, Any]:
    """Return the parameters of a criterion."""
    return dict(criterion.compile(dialect=dialect).params)


def test_postgresql_takes_an_array() -> None:
    """One parameter that is typed as an array of the column's type."""
    criterion = in_list(AllTypes.integer, [1, 2], POSTGRESQL)
    assert sql(criterion, POSTGRESQL) == "alltypes.integer = ANY ($1::INTEGER[])"
    assert list(parameters(criterion, POSTGRESQL).values()) == [[1, 2]]


@pytest.mark.parametrize(
    ("name", "values", "text"),
    [
        ("integer", [1, 2], "[1, 2]"),
        ("text", ['a"b', "é"], '["a\\"b", "é"]'),
        ("flag", [True], "[1]"),
        ("colour", [Colour.RED], '["RED"]'),
    ],
)
def test_sqlite_takes_a_json_text(name: str, values: list[Any], text: str) -> None:
    """One parameter that holds the values as the column's type binds them."""
    criterion = in_list(getattr(AllTypes, name), values, SQLITE)
    assert "json_each(?)" in sql(criterion, SQLITE)
    assert list(parameters(criterion, SQLITE).values()) == [text]


@pytest.mark.parametrize(
    ("attribute", "values", "dialect"),
    [
        (AllTypes.integer, [1, 2], MYSQL),
        (AllTypes.real, [0.1, 0.2], SQLITE),
        (AllTypes.amount, [Decimal("0.1")], SQLITE),
        (AllTypes.blob, [b"a"], SQLITE),
        (AllTypes.text, ["a\0b"], SQLITE),
        (Thing.numbers, [[1], [2]], POSTGRESQL),
        (Thing.wrapped, ["a"], POSTGRESQL),
        (Thing.wrapped, ["a"], SQLITE),
    ],
)
def test_what_would_not_survive_is_an_ordinary_in(
    attribute: Any, values: list[Any], dialect: Dialect
) -> None:
    """MySQL has no lists, JSON no exact floats, an array no arrays; a function call is kept."""
    criterion = in_list(attribute, values, dialect)
    assert "IN (__[POSTCOMPILE" in sql(criterion, dialect)
    assert list(parameters(criterion, dialect).values()) == [values]


def test_many_bytes_are_compared_as_digits_on_sqlite() -> None:
    """There are more of them than parameters."""
    criterion = in_list(AllTypes.blob, [b"\x00\xff"] * 40_000, SQLITE)
    assert "hex(alltypes.blob)" in sql(criterion, SQLITE)
    assert sql(criterion, SQLITE).count("?") == 1


def test_an_empty_list_matches_nothing() -> None:
    """And its contrary everything, on every database."""
    for dialect in (SQLITE, POSTGRESQL, MYSQL):
        assert isinstance(in_list(AllTypes.id, [], dialect), False_)
        assert isinstance(not_(in_list(AllTypes.id, [], dialect)), True_)


@pytest.mark.parametrize("dialect", [SQLITE, POSTGRESQL, MYSQL], ids=lambda dialect: dialect.name)
def test_the_statement_is_the_same_for_every_length(dialect: Dialect) -> None:
    """So SQLAlchemy compiles it once, and so does the database."""
    keys = {
        in_list(AllTypes.id, list(range(1, length)), dialect)._generate_cache_key().key  # type: ignore[union-attr]
        for length in (2, 3, 500)
    }
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("attribute", "value", "type_"),
    [
        (AllTypes.integer, 2**31, "BIGINT"),
        (AllTypes.integer, -(2**31) - 1, "BIGINT"),
        (AllTypes.integer, 2**31 - 1, "INTEGER"),
        (AllTypes.big, 2**40, "BIGINT"),
        (Thing.small, 2**15, "BIGINT"),
        (Thing.small, 2**15 - 1, "SMALLINT"),
        (AllTypes.amount, Decimal(10) ** 9, "NUMERIC"),
    ],
)
def test_a_number_beyond_the_column_is_bound_as_a_larger_type(
    attribute: Any, value: int | Decimal, type_: str
) -> None:
    """PostgreSQL compares the two; its drivers would refuse the number as the column's type."""
    assert f"::{type_}" in sql(attribute == comparable(attribute, value), POSTGRESQL)
    assert f"::{type_}[]" in sql(in_list(attribute, [value, 1], POSTGRESQL), POSTGRESQL)
