"""Models with unusual relationships and columns: keyed, write-only, dynamic, mutable."""

from typing import Any

from sqlalchemy import JSON, Column, ForeignKey, String
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import (
    DeclarativeBase,
    DynamicMapped,
    Mapped,
    WriteOnlyMapped,
    attribute_keyed_dict,
    composite,
    mapped_column,
    relationship,
)
from sqlmodel import Field, SQLModel


class Base(DeclarativeBase):
    """Plain SQLAlchemy models in the metadata of the other models."""

    metadata = SQLModel.metadata


class PageNote(Base):
    """A note of a page, with a kind."""

    __tablename__ = "kept_page_note"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    page_id: Mapped[int] = mapped_column(ForeignKey("kept_page.id"))


class PageView(Base):
    """One of many views of a page."""

    __tablename__ = "kept_page_view"

    id: Mapped[int] = mapped_column(primary_key=True)
    page_id: Mapped[int] = mapped_column(ForeignKey("kept_page.id"))


class PageEdit(Base):
    """An edit of a page."""

    __tablename__ = "kept_page_edit"

    id: Mapped[int] = mapped_column(primary_key=True)
    page_id: Mapped[int] = mapped_column(ForeignKey("kept_page.id"))


class Size:
    """A value of two columns."""

    def __init__(self, width: int | None, height: int | None) -> None:
        self.width = width
        self.height = height

    def __composite_values__(self) -> tuple[int | None, int | None]:
        """The values of the columns."""
        return self.width, self.height

    def __eq__(self, other: object) -> bool:
        """Compare by value."""
        return isinstance(other, Size) and vars(other) == vars(self)

    __hash__ = None  # type: ignore[assignment]


class Page(Base):
    """A page with relationships of every kind."""

    __tablename__ = "kept_page"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(50), unique=True)
    width: Mapped[int | None]
    height: Mapped[int | None]
    size: Mapped[Size] = composite("width", "height")
    notes: Mapped[dict[str, PageNote]] = relationship(collection_class=attribute_keyed_dict("kind"))
    labels: Mapped[set[PageNote]] = relationship(viewonly=True)
    views: WriteOnlyMapped[PageView] = relationship()
    edits: DynamicMapped[PageEdit] = relationship()


class Preferences(SQLModel, table=True):
    """A column whose in-place changes are tracked."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(default="", unique=True, max_length=50)
    data: dict[str, Any] = Field(
        default_factory=dict, sa_column=Column(MutableDict.as_mutable(JSON))
    )
