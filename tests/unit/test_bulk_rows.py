"""The rows of a bulk insert, checked and made plain."""

from __future__ import annotations

import uuid
from collections import UserDict
from typing import Any

import pytest
from sqlalchemy import String, Uuid
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sqlmodel_crud_utils._core.writes.shapes import RowReader
from sqlmodel_crud_utils._core.writes.targets import target_of
from sqlmodel_crud_utils.exceptions import ValidationError


class Base(DeclarativeBase):
    """Plain SQLAlchemy models, whose fields nothing but their columns describes."""


class Token(Base):
    """A UUID that is kept as text."""

    __tablename__ = "token"

    id: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(Uuid(as_uuid=False))
    label: Mapped[str | None] = mapped_column(String(20))


READER = RowReader(target_of(Token))


def test_values_become_those_of_the_columns() -> None:
    """Text for a UUID is put into its usual form, though it is text already."""
    token = uuid.uuid4()
    [shape] = READER.read(3, [{"value": token.hex.upper(), "label": "x", "id": "5"}])
    assert (shape.start, shape.size) == (3, 1)
    assert shape.mappings(shape.names) == [{"value": str(token), "label": "x", "id": 5}]


@pytest.mark.parametrize("row", [{"value": "x"}, {"id": 2**63}, {"label": 1.5}, 5, Base])
def test_what_does_not_fit_is_refused(row: Any) -> None:
    """With the place of the row in the text."""
    with pytest.raises(ValidationError, match="row 8: "):
        READER.read(7, [{"id": 1}, row])


class Fickle(UserDict[str, Any]):
    """A row whose values are bad just the first time that they are read."""

    reads = 0

    def __getitem__(self, name: str) -> Any:
        """Return the value, at first one that does not fit."""
        self.reads += 1
        return object() if self.reads == 1 else super().__getitem__(name)


def test_a_bad_row_that_is_not_found_again() -> None:
    """Is refused all the same, and never written."""
    with pytest.raises(ValidationError, match="row 4: "):
        READER.read(4, [Fickle(value=str(uuid.uuid4()), label="x")])


class Defaulted(Base):
    """Nullable columns that are filled in, each in its own way."""

    __tablename__ = "defaulted"

    id: Mapped[int] = mapped_column(primary_key=True)
    by_python: Mapped[str | None] = mapped_column(String(20), default="a")
    by_server: Mapped[str | None] = mapped_column(String(20), server_default="b")
    empty: Mapped[str | None] = mapped_column(String(20))


def test_none_in_a_new_instance_is_no_value_where_something_fills_it() -> None:
    """As in a flush; in a mapping, an explicit None is kept."""
    reader = RowReader(target_of(Defaulted))
    nothing = {"id": None, "by_python": None, "by_server": None, "empty": None}
    [shape] = reader.read(0, [Defaulted(**nothing), Defaulted(**nothing)])
    assert shape.mappings(shape.names) == [{"empty": None}] * 2
    [shape] = reader.read(0, [{"by_python": None, "by_server": None}] * 2)
    assert shape.mappings(shape.names) == [{"by_python": None, "by_server": None}] * 2


@pytest.mark.parametrize("names", [(), ("id",), ("id", "empty"), ("id", "by_python", "empty")])
@pytest.mark.parametrize("count", [1, 3])
def test_rows_of_any_width_are_read(names: tuple[str, ...], count: int) -> None:
    """None at all, one field, and several; the keys of the mappings may have other names."""
    rows = [dict.fromkeys(names, "7") for _ in range(count)]
    [shape] = RowReader(target_of(Defaulted)).read(0, rows)
    assert (shape.names, shape.size) == (names, count)
    expected = {name.upper(): 7 if name == "id" else "7" for name in names}
    assert shape.mappings(map(str.upper, names)) == [expected] * count


def test_instances_without_keys_are_read_by_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that the database makes is no reason to look at each row."""
    monkeypatch.delattr(RowReader, "_levelled")
    [shape] = READER.read(0, [Token(id=None, value=str(uuid.uuid4()), label="x") for _ in range(2)])
    assert shape.names == ("value", "label")
