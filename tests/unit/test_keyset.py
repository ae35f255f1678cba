"""Cursors hold values of every type, and nothing else gets through."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import math
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, strategies as st
from sqlalchemy.dialects import mysql, postgresql, sqlite

from sqlmodel_crud_utils._core.queries.keyset import (
    decode_cursor,
    encode_cursor,
    fingerprint,
    rows_after,
)
from sqlmodel_crud_utils._core.queries.ordering import key_terms, parse
from sqlmodel_crud_utils.exceptions import ValidationError
from tests.models import Hero, Seat

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(),
    st.binary(),
    st.floats(allow_nan=False),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.datetimes(timezones=st.none() | st.just(dt.UTC)),
)


@given(st.lists(VALUES, max_size=4))
def test_values_come_back_as_they_were(values: list[Any]) -> None:
    """In value and in type; the cursor can stand in a URL as it is."""
    cursor = encode_cursor("mark", values)
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    found = decode_cursor("mark", cursor, len(values))
    assert found == values
    assert list(map(type, found)) == list(map(type, values))


def test_a_nan_comes_back() -> None:
    """PostgreSQL sorts by it."""
    assert math.isnan(decode_cursor("mark", encode_cursor("mark", [math.nan]), 1)[0])


@given(st.data())
def test_a_cursor_with_a_wrong_character_is_refused(data: st.DataObject) -> None:
    """Wherever it is."""
    cursor = encode_cursor("mark", [Decimal("1.5"), "x", None])
    place = data.draw(st.integers(0, len(cursor) - 1))
    other = data.draw(st.characters().filter(lambda c: c != cursor[place]))
    with pytest.raises(ValidationError, match="cursor is damaged"):
        decode_cursor("mark", cursor[:place] + other + cursor[place + 1 :], 3)


@given(st.text())
def test_any_text_is_refused(text: str) -> None:
    """With the one error, whatever it is."""
    with pytest.raises(ValidationError, match="cursor is damaged"):
        decode_cursor("mark", text, 1)


def forged(content: Any) -> str:
    """Return a cursor with this content and the right checksum."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(hashlib.sha256(body).digest()[:8] + body).decode().rstrip("=")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[" * 100_000,
        b"\xff",
        {},
        [1, "mark"],
        [1, "mark", "x"],
        [1, "mark", []],
        [1, "mark", [1, 2]],
        [1, "mark", [1.5]],
        [1, "mark", [[1]]],
        [1, "mark", [{"uuid": "x"}]],
        [1, "mark", [{"decimal": []}]],
        [1, "mark", [{"datetime": 3}]],
        [1, "mark", [{"interval": [1]}]],
        [1, "mark", [{"interval": [10**12, 0, 0]}]],
        [1, "mark", [{"code": "print()"}]],
        [1, "mark", [{"date": "2024-01-01", "time": "10:00"}]],
    ],
    ids=lambda content: repr(content)[:40],
)
def test_a_forged_cursor_is_refused(content: Any) -> None:
    """One with the right checksum, and a content that no page has made."""
    with pytest.raises(ValidationError, match="cursor is damaged"):
        decode_cursor("mark", forged(content), 1)


def test_other_versions_and_orders_are_told_apart() -> None:
    """The message says what to do."""
    with pytest.raises(ValidationError, match="another version of the library"):
        decode_cursor("mark", forged([2, "mark", [1]]), 1)
    with pytest.raises(ValidationError, match="another model or order_by"):
        decode_cursor("mark", encode_cursor("other", [1]), 1)


def test_values_without_a_place_in_a_cursor_are_refused() -> None:
    """The page that would end with one says so."""
    with pytest.raises(ValidationError, match="can't continue after a complex"):
        encode_cursor("mark", [1j])


def test_a_fingerprint_is_that_of_model_order_and_database() -> None:
    """It is the same for the same order, however that was said."""

    def mark(*terms: Any, model: type[Any] = Hero, dialect: Any = sqlite) -> str:
        order = key_terms(model, [parse(model, term, desc=False) for term in terms])
        return fingerprint(model, order, dialect.dialect())

    assert mark("-age") == mark(Hero.age.desc()) == mark(Hero.age.desc().nulls_last())
    assert mark("age") == mark("age", "id") == mark(Hero.age.asc())
    others = [mark("age"), mark("-age"), mark(), mark(model=Seat), mark("age", dialect=postgresql)]
    others += [mark(Hero.age + 1), mark(Hero.age + 2), mark(Hero.age.nulls_first())]
    assert len(set(others)) == len(others)


def test_what_comes_after_a_row_is_told_term_by_term() -> None:
    """Terms with NULLs say where these are; a key is compared as it is."""

    def after(*terms: Any, values: list[Any], dialect: Any = mysql) -> str:
        order = key_terms(Hero, [parse(Hero, term, desc=False) for term in terms])
        return " ".join(str(rows_after(order, values, dialect.dialect())).split())

    assert after("-name", values=["x", 5]) == (
        "hero.name <= :param_1 AND "
        "(hero.name < :param_2 OR hero.name = :param_3 AND hero.id > :param_4)"
    )
    for dialect in (sqlite, postgresql):
        row = after("name", values=["x", 5], dialect=dialect)
        assert row == "(hero.name, hero.id) > (:param_1, :param_2)"
        downwards = after("-name", "-id", values=["x", 5], dialect=dialect)
        assert downwards == "(hero.name, hero.id) < (:param_1, :param_2)"
        assert " OR " in after("-name", values=["x", 5], dialect=dialect)
        assert " OR " in after("age", values=[1, 5], dialect=dialect)
    assert "hero.age > :param_1 OR hero.age IS NULL OR hero.age = " in after("age", values=[1, 5])
    assert after("age", values=[None, 5]) == "hero.age IS NULL AND hero.id > :param_1"
    first = after(Hero.age.nulls_first(), values=[None, 5])
    assert first.startswith("hero.age IS NOT NULL OR hero.age IS NULL AND")
    assert "IS NULL" not in after(Hero.age.nulls_first(), values=[1, 5])


def test_uuids_of_drivers_come_back_as_uuids() -> None:
    """Asyncpg has a class of its own for them."""

    class DriversUUID(UUID):
        """One of these."""

    [found] = decode_cursor("m", encode_cursor("m", [DriversUUID(int=3)]), 1)
    assert found == UUID(int=3)
