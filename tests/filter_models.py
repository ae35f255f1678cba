"""Table models for the tests of the filter language."""

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

from sqlalchemy import Dialect, Double, Integer, Numeric, String
from sqlalchemy.dialects.mysql import VARCHAR
from sqlalchemy.types import TypeDecorator, TypeEngine
from sqlmodel import Field, Relationship, SQLModel

from sqlmodel_crud_utils.mixins import SoftDeleteMixin
from tests.models import Colour

# Text that every database compares and sorts by code points.
BY_CODE_POINT = (
    String(50)
    .with_variant(String(50, collation="C"), "postgresql")
    .with_variant(VARCHAR(50, collation="utf8mb4_nopad_bin"), "mysql")
)


class Halved(TypeDecorator[int]):
    """Stores twice the number, and compares with the stored number."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: int | None, _dialect: Dialect) -> int | None:
        """Return the value to store."""
        return None if value is None else value * 2

    def process_result_value(self, value: Any, _dialect: Dialect) -> int | None:
        """Return the value to show."""
        return None if value is None else value // 2

    def coerce_compared_value(self, _op: Any, _value: Any) -> TypeEngine[Any]:
        """Let a value be compared unchanged."""
        return Integer()


class Scale(SQLModel, table=True):
    """Has a type that decides how values are compared."""

    id: int | None = Field(default=None, primary_key=True)
    weight: int = Field(sa_type=Halved)


class Sample(SQLModel, table=True):
    """Values for which a Python model of the filter language can compute results.

    MySQL's default collations ignore case, accents and trailing spaces in comparisons (eq, gt, in),
    so comparisons use `exact`, and searches use `word`.
    """

    id: int = Field(primary_key=True)
    word: str | None = Field(default=None, max_length=50)
    exact: str | None = Field(default=None, sa_type=BY_CODE_POINT)
    number: int | None = None
    amount: Decimal | None = Field(default=None, sa_type=Numeric(12, 2))
    real: float | None = Field(default=None, sa_type=Double)
    flag: bool | None = None
    day: dt.date | None = None
    moment: dt.datetime | None = None
    token: uuid.UUID | None = None
    colour: Colour | None = None


class Legacy(SQLModel, table=True):
    """Columns with older character sets, as in MySQL databases."""

    id: int | None = Field(default=None, primary_key=True)
    western: str = Field(
        sa_type=String(50).with_variant(VARCHAR(50, charset="latin1"), "mysql"),
    )
    narrow: str = Field(
        sa_type=String(50).with_variant(VARCHAR(50, charset="utf8mb3"), "mysql"),
    )


class Folder(SQLModel, table=True):
    """A tree: a self-referential relationship in both directions."""

    id: int | None = Field(default=None, primary_key=True)
    name: str
    parent_id: int | None = Field(default=None, foreign_key="folder.id", ondelete="CASCADE")

    parent: "Folder" = Relationship(
        back_populates="children", sa_relationship_kwargs={"remote_side": "Folder.id"}
    )
    children: list["Folder"] = Relationship(back_populates="parent")


class Authorship(SQLModel, SoftDeleteMixin, table=True):
    """A link between authors and books that can be soft-deleted."""

    author_id: int | None = Field(default=None, foreign_key="author.id", primary_key=True)
    book_id: int | None = Field(default=None, foreign_key="book.id", primary_key=True)


class Author(SQLModel, table=True):
    """Has books, and a publisher."""

    id: int | None = Field(default=None, primary_key=True)
    name: str
    publisher_id: int | None = Field(default=None, foreign_key="publisher.id")

    books: list["Book"] = Relationship(back_populates="authors", link_model=Authorship)
    publisher: "Publisher" = Relationship(back_populates="authors")


class Book(SQLModel, SoftDeleteMixin, table=True):
    """Has authors, and can be soft-deleted."""

    id: int | None = Field(default=None, primary_key=True)
    title: str

    authors: list[Author] = Relationship(back_populates="books", link_model=Authorship)


class Publisher(SQLModel, SoftDeleteMixin, table=True):
    """Has authors, and can be soft-deleted."""

    id: int | None = Field(default=None, primary_key=True)
    name: str

    authors: list[Author] = Relationship(back_populates="publisher")
