"""Which filters a URL can contain, their types, and what is refused at import."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError as PydanticError
from sqlalchemy import Column, Enum
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from sqlmodel_crud_utils._core.filters.lookups import LOOKUPS
from sqlmodel_crud_utils._core.queries.params import filter_param, page_params, sort_param
from sqlmodel_crud_utils.exceptions import UnknownFieldError, ValidationError
from tests.filter_models import Sample
from tests.models import AllTypes, Colour, Hero
from tests.query_models import Score


class Described(SQLModel, registry=registry()):
    """The base of tables that stay out of the other tests."""


class Item(Described, table=True):
    """Fields that say what they are, and columns of unusual types."""

    id: int | None = Field(default=None, primary_key=True)
    size: int = Field(default=0, description="In millimetres.")
    state: str = Field(sa_column=Column(Enum("new", "worn", native_enum=False)))
    picture: bytes = b""


def parsed(model: type[Any], name: str, value: Any) -> Any:
    """Return the value that a filter's parameter parses from a query string."""
    return TypeAdapter(filter_param(model, name).type).validate_python(value)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("word", "x", "x"),
        ("word__icontains", "1", "1"),
        ("number__gte", "5", 5),
        ("number__is_null", "true", True),
        ("amount__lt", "1.50", Decimal("1.50")),
        ("real__gt", "1.5", 1.5),
        ("flag", "false", False),
        ("day__lte", "2026-01-31", dt.date(2026, 1, 31)),
        ("moment__gt", "2026-01-31", dt.datetime(2026, 1, 31, tzinfo=dt.UTC)),
        ("moment__gt", "2026-01-31T10:00:00+02:00", dt.datetime(2026, 1, 31, 8, tzinfo=dt.UTC)),
        ("token", "12345678123456781234567812345678", uuid.UUID("12345678" * 4)),
        ("number__in", ["1,2", "3"], [1, 2, 3]),
        ("number__in", [""], None),
        ("number__gte", "", None),
        ("word", "", ""),
        ("word__in", ['""'], [""]),
        ("word__between", ["b", "A"], ["b", "A"]),
        ("word__in", ['Ann,"Smith, John"'], ["Ann", "Smith, John"]),
        ("number__between", ["1", "5"], [1, 5]),
        ("number__between", ["1,5"], [1, 5]),
    ],
)
def test_values_get_the_type_of_the_column(name: str, text: Any, value: Any) -> None:
    """Text is converted to the type of the column; times without an offset are in UTC."""
    found = parsed(Sample, name, text)
    assert found == value
    assert type(found) is type(value)


def test_an_enum_is_given_by_its_value() -> None:
    """Members are found by value, and those of a list of names by name."""
    colour = next(iter(Colour))
    assert parsed(Sample, "colour", colour.value) is colour
    assert parsed(Item, "state", "worn") == "worn"
    with pytest.raises(PydanticError):
        parsed(Item, "state", "old")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("number", "x"),
        ("number", str(2**63)),
        ("number", " "),
        ("number__in", ["1,x"]),
        ("number__in", [str(2**63)]),
        ("number__between", ["1"]),
        ("number__between", ["1,2,3"]),
        ("number__between", ["5,1"]),
        ("moment__between", ["2024-01-02,2024-01-01"]),
        ("word", "a\0b"),
        ("word__in", ['"a']),
        ("word__in", ["a\0b"]),
        ("real", "nan"),
        ("real", "-inf"),
        ("amount", "NaN"),
        ("amount", "Infinity"),
        ("moment", "0001-01-01T00:00:00+14:00"),
        ("flag", "perhaps"),
        ("token", "1"),
    ],
)
def test_rubbish_is_refused_before_a_query_runs(name: str, text: Any) -> None:
    """A value that no database accepts is the client's mistake."""
    with pytest.raises(PydanticError):
        parsed(Sample, name, text)


def test_a_duration_is_one_that_every_database_holds() -> None:
    """Where a duration is stored as a time after 1970, one of millenniums has no place."""
    assert parsed(AllTypes, "duration", "P1DT2H") == dt.timedelta(days=1, hours=2)
    with pytest.raises(PydanticError):
        parsed(AllTypes, "duration", "-P700001D")


def test_paths_take_the_type_of_the_related_column() -> None:
    """A filter may go through relationships, or ask whether there is anything related."""
    assert parsed(Hero, "team__id__in", ["1,2"]) == [1, 2]
    assert parsed(Hero, "tags__label", "x") == "x"
    assert parsed(Hero, "team__is_null", "false") is False
    assert filter_param(Hero, "team__name").description == "`team.name` equals this."


@pytest.mark.parametrize("lookup", [each for each in LOOKUPS if each != "regex"])
def test_every_lookup_is_described(lookup: str) -> None:
    """The documentation says of each lookup what it does with the field."""
    assert "`word`" in filter_param(Sample, f"word__{lookup}").description


def test_the_description_of_a_field_is_added() -> None:
    """The documentation includes the model's description of a field."""
    assert filter_param(Item, "size__lt").description == "`size` is less than this. In millimetres."


@pytest.mark.parametrize(
    ("model", "name", "match"),
    [
        (Hero, "agee", "age"),
        (Hero, "age__above", "gte"),
        (Hero, "team__agee", "city"),
        (Hero, "age__icontains", "the lookups for it are eq, ne"),
        (Hero, "name__regex", "can't be filtered with regex by a client"),
        (Hero, "team", "allow team__is_null"),
        (Hero, "team__ne", "is a relationship"),
        (Item, "picture", "only picture__is_null"),
        (AllTypes, "payload", "only payload__is_null"),
        (Hero, 5, "names of filters must be strings"),
    ],
)
def test_what_cannot_be_allowed_is_told_at_once(model: Any, name: Any, match: str) -> None:
    """A mistake in the list of filters shows when the program starts, with what would be right."""
    with pytest.raises(ValidationError, match=match):
        filter_param(model, name)


def test_any_column_can_be_asked_for_null() -> None:
    """Whether there is a value can be asked of a field whose values no URL can hold."""
    assert parsed(Item, "picture__is_null", "1") is True


# --- order and pages -----------------------------------------------------------------------------


def test_both_directions_can_be_sorted_by() -> None:
    """A name sorts upwards, with a sign downwards; several have commas between them."""
    sort = TypeAdapter(sort_param(Hero, ["name", "age"], by_cursor=True).type)
    assert sort.validate_python(["-age,name"]) == ["-age", "name"]
    assert sort.json_schema()["items"]["enum"] == ["name", "-name", "age", "-age"]
    with pytest.raises(PydanticError):
        sort.validate_python(["secret_name"])


def test_what_cannot_be_sorted_by_is_told_at_once() -> None:
    """A name that is not a field, a sign, a relationship, a value that cursors can't follow."""
    with pytest.raises(UnknownFieldError):
        sort_param(Hero, ["agee"], by_cursor=False)
    with pytest.raises(ValidationError, match="'age' for both directions"):
        sort_param(Hero, ["-age"], by_cursor=False)
    with pytest.raises(ValidationError, match="relationship"):
        sort_param(Hero, ["team"], by_cursor=False)
    with pytest.raises(ValidationError, match="JSON"):
        sort_param(AllTypes, ["payload"], by_cursor=True)
    assert sort_param(Score, ["league"], by_cursor=False).default == ()


@pytest.mark.parametrize(
    ("by_cursor", "name", "default"), [(True, "after", None), (False, "page", 1)]
)
def test_pages_have_a_largest_size(by_cursor: bool, name: str, default: Any) -> None:
    """A client may ask for fewer rows or more, up to the limit."""
    which, size = page_params(by_cursor=by_cursor, size=20, max_size=30)
    assert (which.name, which.default, size.name, size.default) == (name, default, "size", 20)
    assert TypeAdapter(size.type).validate_python("30") == 30
    for wrong in ("0", "31", "x"):
        with pytest.raises(PydanticError):
            TypeAdapter(size.type).validate_python(wrong)
