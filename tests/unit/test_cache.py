"""The parts of the cache that are private: names, values, the store in memory, outages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Engine, Integer, String, Table, Text, create_engine
from sqlalchemy.orm import registry as Registry  # noqa: N812 - it is a class
from sqlmodel import Session

from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._session.changes import Change, TableChange
from sqlmodel_crud_utils.exceptions import ValidationError
from sqlmodel_crud_utils.ext.cache import InMemoryCache, configure_cache
from sqlmodel_crud_utils.ext.cache.database_identity import database_of
from sqlmodel_crud_utils.ext.cache.store_names import (
    fingerprint,
    key_text,
    row_token,
    some_token,
    table_token,
    written_tokens,
)
from sqlmodel_crud_utils.ext.cache.store_outages import Outages
from sqlmodel_crud_utils.ext.cache.stored_values import UncacheableError, decoded, encoded
from sqlmodel_crud_utils.sync import get_row, update_row, write_row
from tests.cache_models import Bundle, Emblem, PlankNovel
from tests.recording import logged, statements_of

FACTS = facts_of(Bundle)


def change(*keys: int, **values: Any) -> Change:
    """An update of bundles."""
    return Change(Bundle, "update", [(key,) for key in keys], [values] * len(keys))


# --- names ---------------------------------------------------------------------------------------


def test_a_write_renews_the_tokens_of_its_rows_and_tables() -> None:
    """Rows by key, the old and the new one; "some rows" if there are too many."""
    rows = [row_token("bundle", str(key)) for key in (1, 2, 9)]
    assert set(written_tokens([change(1), change(2, id=9)])) == {table_token("bundle"), *rows}
    several = [change(*range(60)), change(*range(60, 120))]
    assert set(written_tokens(several)) == {table_token("bundle"), some_token("bundle")}
    unknown = Change(Bundle, "delete")
    assert set(written_tokens([unknown, change(1)])) == {
        table_token("bundle"),
        some_token("bundle"),
    }
    links = TableChange(PlankNovel.__table__)  # type: ignore[attr-defined]
    assert table_token("planknovel") in written_tokens([links])
    assert written_tokens([TableChange(None)]) == []


def test_only_exact_keys_have_a_token() -> None:
    """Databases may take texts for equal that are not."""
    assert key_text(FACTS, (5,)) == "5"
    assert key_text(FACTS, ("x",)) is None
    assert key_text(facts_of(Emblem), ("ann", 1)) is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql+psycopg://u:secret@db/heroes", '["postgresql", "db", "5432", "heroes", "{}"]'),
        (
            "postgresql+asyncpg://v:other@db:5432/heroes",
            '["postgresql", "db", "5432", "heroes", "{}"]',
        ),
        ("mysql+pymysql://u:secret@db/heroes", '["mysql", "db", "3306", "heroes", "{}"]'),
        ("mariadb+pymysql://u:secret@db/heroes", '["mysql", "db", "3306", "heroes", "{}"]'),
    ],
)
def test_a_database_is_its_place(url: str, expected: str) -> None:
    """Driver, user and password do not distinguish databases."""
    engine = create_engine(url.replace("+asyncpg", "+psycopg"))
    with Session(engine) as session:
        assert database_of(session, FACTS) == expected
    translated = engine.execution_options(schema_translate_map={None: "acme"})
    with Session(translated) as session:
        assert database_of(session, FACTS) == expected + '[["None", "acme"]]'


def test_what_has_no_place_is_shared_with_nobody(tmp_path: Path) -> None:
    """Memory, and connections that a program makes itself."""
    urls = ["sqlite://", "sqlite://", "postgresql+psycopg://", f"sqlite:///{tmp_path}/a.db"]
    names = set()
    for url in urls:
        with Session(create_engine(url)) as session:
            names.add(database_of(session, FACTS))
    assert len(names) == len(urls)


# --- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, 1, True, 0.1, "x", Decimal("1.50"), b"\xff", {"a": [1]}])
def test_values_come_back(value: Any) -> None:
    """As they were, of the same type."""
    again = decoded(encoded(value))
    assert (again, type(again)) == (value, type(value))


@pytest.mark.parametrize("value", [object(), {1: 2}, [object()], 1j, {"a": {1}}])
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    """It could not be restored unchanged."""
    with pytest.raises(UncacheableError):
        encoded(value)


# --- memory --------------------------------------------------------------------------------------


def test_what_was_not_read_for_longest_goes_first() -> None:
    """At most so many entries."""
    cache = InMemoryCache(max_entries=2)
    cache.set_many({"a": b"1", "b": b"2"}, 60)
    assert cache.get_many(["a"]) == [b"1"]
    cache.set_many({"c": b"3"}, 60)
    assert cache.get_many(["a", "b", "c"]) == [b"1", None, b"3"]
    assert len(cache) == 2


def test_it_holds_so_many_bytes() -> None:
    """However few the entries are; a value that is replaced counts once."""
    cache = InMemoryCache(max_bytes=1_000)
    for _ in range(5):
        cache.set_many({"a": b"x" * 500}, 60)
    assert cache.get_many(["a"]) == [b"x" * 500]
    cache.set_many({"b": b"x" * 500}, 60)
    assert cache.get_many(["a", "b"]) == [None, b"x" * 500]
    assert not cache.set_many({"c": b"x" * 5_000}, 60)
    assert cache.get_many(["c"]) == [None]


def test_what_is_over_is_gone() -> None:
    """`add` keeps a value where the one before is over, and no other."""
    cache = InMemoryCache()
    cache.set_many({"a": b"1"}, 1e-9)
    assert cache.get_many(["a"]) == [None]
    assert cache.add("a", b"2", 60)
    assert not cache.add("a", b"3", 60)
    assert cache.get_many(["a"]) == [b"2"]


@pytest.mark.parametrize("limits", [{"max_entries": 0}, {"max_bytes": 0}, {"max_entries": True}])
def test_limits_are_checked(limits: Mapping[str, Any]) -> None:
    """A limit below 1 holds nothing."""
    with pytest.raises(ValidationError, match=next(iter(limits))):
        InMemoryCache(**limits)


def test_a_model_is_known_by_its_columns_and_their_types() -> None:
    """A deployment that adds a column, or changes a type, reads no entry from before."""

    def model(**columns: Any) -> Any:
        registry = Registry()
        table = Table("parcel", registry.metadata, Column("id", Integer, primary_key=True))
        for name, type_ in columns.items():
            table.append_column(Column(name, type_))
        made = type("Parcel", (), {})
        registry.map_imperatively(made, table)
        return made

    versions = [model(name=String(9)), model(name=Text()), model(name=String(9), size=Integer())]
    assert len({fingerprint(each) for each in versions}) == 3
    assert fingerprint(model(name=String(9))) == fingerprint(versions[0])


def test_entries_end_a_little_before_their_time(engine: Engine) -> None:
    """By up to a tenth, so that those that were made together do not end together."""
    kept: list[float] = []

    class Recording(InMemoryCache):
        """Notes for how long entries are kept."""

        def set_many(self, entries: Mapping[str, bytes], ttl: float) -> bool:
            """Keep values under keys."""
            assert entries
            kept.append(ttl)
            return True

    configure_cache(Recording(), ttl=60)
    for _ in range(40):
        read(engine)
    assert len(set(kept)) > 30
    assert 54 <= min(kept) < 57 < max(kept) <= 60


# --- outages -------------------------------------------------------------------------------------


class Breaking(InMemoryCache):
    """A store that does nothing for a while."""

    is_broken = False

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values of keys."""
        self._check()
        return super().get_many(keys)

    def set_many(self, entries: Mapping[str, bytes], ttl: float) -> bool:
        """Keep values under keys."""
        self._check()
        return super().set_many(entries, ttl)

    def _check(self) -> None:
        if self.is_broken:
            raise ConnectionError


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that a test moves."""
    now = [1_000.0]
    monkeypatch.setattr("sqlmodel_crud_utils.ext.cache.store_outages.monotonic", lambda: now[0])
    return now


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A database with a bundle."""
    engine = create_engine(f"sqlite:///{tmp_path}/cache.db")
    Bundle.__table__.create(engine)  # type: ignore[attr-defined]
    with Session(engine) as session:
        write_row(Bundle(id=1, name="a"), session)
    yield engine
    configure_cache(None)
    engine.dispose()


def read(engine: Engine) -> tuple[str, int]:
    """Return the name of the bundle, and how many statements that took."""
    with statements_of(engine) as statements, Session(engine) as session:
        _, row = get_row(1, session, Bundle, raise_on_error=True, use_cache=True)
        return row.name, len(statements)


def test_a_store_that_failed_rests(engine: Engine, clock: list[float]) -> None:
    """It is not used for 5 seconds; each outage is logged once."""
    store = Breaking()
    configure_cache(store, ttl=60)
    read(engine)
    with logged("WARNING") as lines:
        store.is_broken = True
        assert read(engine) == ("a", 1)
        store.is_broken = False
        assert read(engine) == ("a", 1)
        clock[0] += 4.9
        assert read(engine) == ("a", 1)
        clock[0] += 0.2
        assert read(engine) == ("a", 0)
        store.is_broken = True
        assert read(engine) == ("a", 1)
    assert len(lines) == 2


def test_what_was_not_told_is_not_read(engine: Engine, clock: list[float]) -> None:
    """If an invalidation is missed, the store is not read for the longest `ttl`.

    It is sent as soon as the store is back.
    """
    store = Breaking()
    configure_cache(store, ttl=60)
    read(engine)
    before = store.get_many([row_token("bundle", "1")])
    store.is_broken = True
    with Session(engine) as session:
        update_row(1, {"name": "b"}, session, Bundle)
    store.is_broken = False
    assert read(engine) == ("b", 1)
    clock[0] += 5.1
    assert read(engine) == ("b", 1)
    assert store.get_many([row_token("bundle", "1")]) != before
    clock[0] += 50
    assert read(engine) == ("b", 1)
    clock[0] += 6
    assert read(engine) == ("b", 1)
    assert read(engine) == ("b", 0)


def test_a_program_that_keeps_writing_tells_the_store_again(
    engine: Engine, clock: list[float]
) -> None:
    """Five seconds after a failure, regardless of writes in between."""
    store = Breaking()
    configure_cache(store, ttl=60)
    read(engine)
    before = store.get_many([row_token("bundle", "1")])
    store.is_broken = True
    for number in range(7):
        with Session(engine) as session:
            update_row(1, {"name": f"n{number}"}, session, Bundle)
        store.is_broken = False
        clock[0] += 1
    assert store.get_many([row_token("bundle", "1")]) != before


def test_what_is_owed_is_bounded() -> None:
    """A long outage does not fill the memory."""
    outages = Outages()
    outages.owe(map(str, range(20_000)))
    assert outages.take_owed() == set()
