"""Updates and bulk inserts store what the model itself makes of a value.

The models are drawn, so each has a database of its own in memory; what is told apart here is
values, which are the same code in both APIs.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from ipaddress import IPv4Address
from typing import Annotated, Any

import pytest
from hypothesis import given, strategies as st
from pydantic import (
    AfterValidator,
    AnyUrl,
    BeforeValidator,
    ConfigDict,
    HttpUrl,
    StringConstraints,
    TypeAdapter,
    ValidationError as PydanticError,
    field_validator,
)
from sqlalchemy import JSON, String, insert, select
from sqlalchemy.orm import registry
from sqlmodel import Field, Session, SQLModel, create_engine

from sqlmodel_crud_utils.exceptions import ValidationError
from sqlmodel_crud_utils.sync import (
    bulk_insert_rows,
    bulk_update_rows,
    bulk_upsert_mappings,
    insert_data_rows,
    update_row,
    write_row,
)
from tests.models import Colour
from tests.properties import examples
from tests.value_models import Address, Point, PointType

# Capitals and spaces, which configurations are about, and everything else.
WORDS = st.text("aB ", max_size=8) | st.text(
    st.characters(codec="ascii", exclude_characters="\0"), max_size=8
)
ADDRESSES = st.builds(Address, street=WORDS, since=st.none() | st.dates())
JSON_TYPE = JSON(none_as_null=True)

# The type of a field, that of its column, and values that are of the first.
KINDS: list[tuple[Any, Any, st.SearchStrategy[Any]]] = [
    (str, String(8), WORDS),
    (int, None, st.integers(-(2**31), 2**31 - 1)),
    (float, None, st.floats(allow_nan=False, allow_infinity=False)),
    (bool, None, st.booleans()),
    (Decimal, None, st.integers(-999, 999).map(Decimal)),
    (dt.date, None, st.dates()),
    (uuid.UUID, None, st.uuids()),
    (Colour, None, st.sampled_from(Colour)),
    (IPv4Address, None, st.ip_addresses(v=4)),
    (HttpUrl, String(40), st.sampled_from(("http://a.b/", "https://X.y"))),
    (Annotated[str, StringConstraints(strip_whitespace=True, to_upper=True)], String(8), WORDS),
    (Annotated[str, StringConstraints(min_length=2, pattern="^[a-z ]*$")], String(8), WORDS),
    (Annotated[int, AfterValidator(abs)], None, st.integers(-9, 9)),
    (Annotated[str, BeforeValidator(repr), AfterValidator(len)], JSON_TYPE, WORDS),
    (Point, PointType, st.builds(Point, st.integers(-9, 9), st.integers(-9, 9))),
    (Address, JSON_TYPE, ADDRESSES | ADDRESSES.map(lambda each: each.model_dump(mode="json"))),
    (list[Address], JSON_TYPE, st.lists(ADDRESSES, max_size=2)),
    (dict[str, dt.date], JSON_TYPE, st.dictionaries(WORDS, st.dates().map(str), max_size=2)),
    (dict[str, Any], JSON_TYPE, st.dictionaries(WORDS, ADDRESSES | WORDS, max_size=2)),
    ("Below", JSON_TYPE, st.fixed_dictionaries({"n": st.integers(0, 9)})),
]
# A value that only the field can make one of the column's type.
READ: list[tuple[Any, Any, st.SearchStrategy[Any]]] = [
    (Annotated[int, BeforeValidator(len)], None, WORDS)
]


def each_of(kinds: list[tuple[Any, Any, st.SearchStrategy[Any]]]) -> pytest.MarkDecorator:
    """Run a test with each of the kinds."""
    numbers = [str(number) for number in range(len(kinds))]
    return pytest.mark.parametrize(("kind", "type_", "values"), kinds, ids=numbers)


CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "str_strip_whitespace": st.booleans(),
        "str_to_lower": st.booleans(),
        "str_min_length": st.integers(0, 2),
        "regex_engine": st.sampled_from(("rust-regex", "python-re")),
        "extra": st.just("forbid"),
    },
)


def _own(value: Any) -> Any:
    """Validate a text as no type would, and turn it round."""
    if type(value) is not str:
        return value
    if len(value) == 1:
        raise ValueError("it is too short")
    return value[::-1]


def model_of(kind: Any, type_: Any, config: dict[str, Any], *, is_checked: bool) -> type[Any]:
    """Return a table model with one field of a kind."""
    options: dict[str, Any] = {} if type_ is None else {"sa_type": type_}

    class Drawn(SQLModel, registry=registry()):
        model_config = ConfigDict(arbitrary_types_allowed=True, **config)  # type: ignore[assignment]

    namespace: dict[str, Any] = {
        "__module__": __name__,
        "__qualname__": "Model",
        "__annotations__": {"id": int | None, "value": kind},
        "id": Field(default=None, primary_key=True),
        "value": Field(nullable=True, **options),
    }
    if is_checked:
        namespace["again"] = field_validator("value")(classmethod(lambda _, value: _own(value)))
    below = globals().pop("Below")  # it is there when the model is used
    try:
        return type(SQLModel)("Model", (Drawn,), namespace, table=True)
    finally:
        globals()["Below"] = below


@contextmanager
def opened(model: Any) -> Iterator[Session]:
    """A session on an empty database."""
    engine = create_engine("sqlite://")
    model.metadata.create_all(engine)
    with Session(engine) as session:
        yield session
    engine.dispose()


def stored(session: Session, model: Any, key: int) -> Any:
    """Return what the database has."""
    return session.execute(select(model.value).where(model.id == key)).scalar_one()


def plain(model: Any, value: Any) -> Any:
    """Return what SQLAlchemy can store of a value that the model has validated."""
    if model.__table__.c.value.type is JSON_TYPE:
        return TypeAdapter(Any).dump_python(value, mode="json")
    return str(value) if isinstance(value, IPv4Address | AnyUrl) else value


class Below(SQLModel):
    """A class that the models refer to before it is defined."""

    n: int


@each_of(KINDS + READ)
@given(data=st.data())
@examples(32)
def test_a_value_is_stored_as_the_model_validates_it(
    data: st.DataObject, kind: Any, type_: Any, values: st.SearchStrategy[Any]
) -> None:
    """Or refused if the model refuses it; values that no model validates are stored unchanged."""
    config, is_checked = data.draw(CONFIGS), data.draw(st.booleans())
    model = model_of(kind, type_, config, is_checked=is_checked)
    value = data.draw(values)
    try:
        # A model that has validated something is complete, so this is another one.
        judge = model_of(kind, type_, config, is_checked=is_checked)
        validated = judge.model_validate({"value": value})
    except PydanticError:
        validated = None
    with opened(model) as session:
        session.execute(insert(model).values(id=1, value=None))
        session.commit()
        calls = [
            lambda: update_row(1, {"value": value}, session, model, raise_on_error=True),
            lambda: bulk_update_rows([1], {"value": value}, session, model),
            lambda: bulk_insert_rows([{"id": 2, "value": value}], session, model),
        ]
        if validated is None:
            for call in calls:
                try:
                    call()
                except ValidationError:
                    continue
                raise AssertionError("it was not refused")
            return
        session.execute(insert(model).values(id=9, value=plain(model, validated.value)))
        session.commit()
        expected = stored(session, model, 9)
        for call, key in zip(calls, (1, 1, 2), strict=True):
            call()
            assert stored(session, model, key) == expected


@each_of(KINDS)
@given(data=st.data())
@examples(20)
def test_a_row_that_fits_is_stored_as_sqlalchemy_does(
    data: st.DataObject, kind: Any, type_: Any, values: st.SearchStrategy[Any]
) -> None:
    """A table model validates nothing, so nothing but the columns' types says what is stored."""
    model = model_of(kind, type_, {}, is_checked=False)
    value = data.draw(values)
    with opened(model) as session:
        session.execute(insert(model).values(id=9, value=plain(model, value)))
        session.commit()
        expected = stored(session, model, 9)
        write_row(model(id=1, value=value), session, raise_on_error=True)
        insert_data_rows([model(id=2, value=value), model(id=3)], session, raise_on_error=True)
        bulk_upsert_mappings([{"id": 4, "value": value}], session, model, raise_on_error=True)
        assert [stored(session, model, key) for key in (1, 2, 4)] == [expected] * 3
