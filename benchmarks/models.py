"""The tables of the benchmarks, with a registry separate from `SQLModel.metadata`."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Index, inspect
from sqlalchemy.orm import registry
from sqlmodel import Field, Relationship, SQLModel

from sqlmodel_crud_utils.mixins import AuditMixin, SoftDeleteMixin


@dataclass(frozen=True)
class Sizes:
    """Numbers of rows.

    Attributes:
        rows: In the tables for operations on single rows.
        many: In a bulk operation.
        lots: In a large bulk operation.
        stream: In a stream.
        depth: Before the last keyset page.
    """

    rows: int = 1_000
    many: int = 10_000
    lots: int = 100_000
    stream: int = 200_000
    depth: int = 300_000


class Table(SQLModel, registry=registry()):
    pass


class Hero(Table, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, max_length=100)
    secret_name: str = Field(max_length=100)
    age: int | None = Field(default=None, index=True)
    team_id: int | None = Field(default=None, foreign_key="team.id", index=True)


class Team(Table, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, max_length=100)

    heroes: list[Hero] = Relationship()


class Ghost(SoftDeleteMixin, Table, table=True):
    """A row with soft deletion; every tenth is deleted."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, max_length=100)
    age: int | None = Field(default=None, index=True)


class Page(AuditMixin, Table, table=True):
    """A row that records when it was changed, and by whom."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, max_length=100)
    views: int = 0


class Item(Table, table=True):
    """A row for the bulk operations."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, max_length=100)
    amount: int
    note: str | None = None


class Reading(Table, table=True):
    """A row of a large table that is only read; ten rows share a rank."""

    __table_args__ = (Index("ix_reading_rank_id", "rank", "id"),)

    id: int | None = Field(default=None, primary_key=True)
    rank: int
    name: str


# The columns to fill in each table, with the SQL of their values in row n.
CONTENTS: dict[type[SQLModel], dict[str, str]] = {
    Team: {"name": "'team ' || n"},
    Hero: {
        "name": "'hero ' || n",
        "secret_name": "'?'",
        "age": "n % 60",
        "team_id": "(n - 1) / 10 + 1",
    },
    Ghost: {"name": "'ghost ' || n", "age": "n % 60", "is_deleted": "n % 10 = 0"},
    Page: {"name": "'page ' || n", "views": "n"},
    Item: {"name": "'item ' || n", "amount": "n", "note": "'old'"},
    Reading: {"rank": "n / 10", "name": "'reading ' || n"},
}


def core_table(model: type[SQLModel]) -> Any:
    """Return the table of a model, for SQLAlchemy's Core."""
    return inspect(model).local_table


def refilling(model: type[SQLModel], count: int, dialect: str) -> list[str]:
    """Return the SQL that leaves only the rows 1 to `count` in a table."""
    name = str(model.__tablename__)
    empty = f"DELETE FROM {name}"
    if dialect == "postgresql":
        empty = f"TRUNCATE {name} RESTART IDENTITY CASCADE"
    columns, values = (", ".join(part) for part in zip(*CONTENTS[model].items(), strict=True))
    numbers = f"SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count}"
    fill = (
        f"INSERT INTO {name} ({columns}) WITH RECURSIVE numbers(n) AS ({numbers}) "
        f"SELECT {values} FROM numbers"
    )
    # Otherwise the plans would depend on the table's content at the first statement.
    return [empty, *([fill] if count else []), f"ANALYZE {name}"]
