"""Telemetry of pools, and when it listens."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, NullPool, QueuePool, StaticPool, create_engine, select
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import create_async_engine

from sqlmodel_crud_utils._core import observers
from sqlmodel_crud_utils.exceptions import ValidationError
from sqlmodel_crud_utils.ext.opentelemetry import instrument, observe_pool, uninstrument
from sqlmodel_crud_utils.sync import (
    create_pooled_engine,
    get_result_from_query,
    session_factory,
)
from tests.observing import Call, Observer, observing
from tests.telemetry import Exported, exported

POOL = "db.client.connection.pool.name"
STATE = "db.client.connection.state"


def _engine(**options: Any) -> Engine:
    options = {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 1, **options}
    return create_engine("sqlite://", **options)


@pytest.fixture
def engine() -> Iterator[Engine]:
    """An engine with one connection, and one more."""
    engine = _engine(pool_timeout=0.01)
    yield engine
    engine.dispose()


@pytest.fixture
def telemetry() -> Exported:
    """The exported telemetry."""
    return Exported()


def _observed(telemetry: Exported, metric: str) -> dict[Any, Any]:
    return telemetry.points(f"db.client.connection.{metric}")


def test_connections(engine: Engine, telemetry: Exported) -> None:
    """Those in use and those at rest, and how many there may be."""
    observe_pool(engine, name="main", meter_provider=telemetry.meter_provider)
    with engine.connect(), engine.connect():
        assert _observed(telemetry, "count") == {
            ((POOL, "main"), (STATE, "idle")): 0,
            ((POOL, "main"), (STATE, "used")): 2,
        }
    assert _observed(telemetry, "count")[(POOL, "main"), (STATE, "idle")] == 1
    assert _observed(telemetry, "max") == {((POOL, "main"),): 2}


def test_requests(engine: Engine, telemetry: Exported) -> None:
    """Those that wait, and those that waited in vain; after `dispose` too."""
    observe_pool(engine, name="main", meter_provider=telemetry.meter_provider)
    engine.dispose()
    with engine.connect(), engine.connect(), pytest.raises(PoolTimeoutError):
        engine.connect()
    assert _observed(telemetry, "timeouts") == {((POOL, "main"),): 1}
    assert _observed(telemetry, "pending_requests") == {((POOL, "main"),): 0}


def test_a_request_that_waits(telemetry: Exported) -> None:
    """It is pending as long as its connection is opened."""
    seen = []

    def connect() -> Any:
        seen.append(_observed(telemetry, "pending_requests"))
        raise ZeroDivisionError

    engine = _engine(creator=connect)
    observe_pool(engine, name="main", meter_provider=telemetry.meter_provider)
    with suppress(ZeroDivisionError):
        engine.connect()
    assert seen == [{((POOL, "main"),): 1}]
    assert _observed(telemetry, "pending_requests") == {((POOL, "main"),): 0}


def test_several_engines(engine: Engine, telemetry: Exported) -> None:
    """They share the instruments; those of one name are added up; a new name replaces the old."""
    others = [_engine(), _engine()]
    for each, name in zip([engine, *others], ["main", "main", "other"], strict=True):
        observe_pool(each, name="old", meter_provider=telemetry.meter_provider)
        observe_pool(each, name=name, meter_provider=telemetry.meter_provider)
    assert _observed(telemetry, "max") == {((POOL, "main"),): 4, ((POOL, "other"),): 2}


def test_no_engine_is_kept_alive(telemetry: Exported) -> None:
    """An engine without other references is collected, and no longer reported."""
    engine = _engine()
    engine.connect().close()
    observe_pool(engine, meter_provider=telemetry.meter_provider)
    gone = weakref.ref(engine), weakref.ref(engine.pool)
    engine.dispose()
    del engine
    gc.collect()
    assert [each() for each in gone] == [None, None]
    assert _observed(telemetry, "count") == {}


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({"poolclass": NullPool}, {}),
        ({"poolclass": StaticPool}, {((POOL, "default"),): 1}),
        ({"poolclass": QueuePool, "max_overflow": -1}, {}),
    ],
    ids=["none", "static", "unlimited"],
)
def test_other_pools(options: dict[str, Any], most: Any, telemetry: Exported) -> None:
    """A pool without a limit has no maximum."""
    engine = create_engine("sqlite://", **options)
    observe_pool(engine, meter_provider=telemetry.meter_provider)
    assert _observed(telemetry, "max") == most
    engine.dispose()


def test_engines_of_the_library(telemetry: Exported, tmp_path: Path) -> None:
    """Its own pools are pools like others."""
    engine = create_pooled_engine(f"sqlite:///{tmp_path}/a.db", pool_size=3)
    observe_pool(engine, meter_provider=telemetry.meter_provider)
    assert _observed(telemetry, "max") == {((POOL, "default"),): 13}
    engine.dispose()


async def test_an_async_engine(telemetry: Exported, tmp_path: Path) -> None:
    """It is the engine behind it that is observed."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/a.db")
    observe_pool(engine, name="main", meter_provider=telemetry.meter_provider)
    async with engine.connect():
        assert _observed(telemetry, "count")[(POOL, "main"), (STATE, "used")] == 1
    await engine.dispose()


@pytest.mark.parametrize(
    ("engine", "name", "field"),
    [("sqlite://", "main", "engine"), (create_engine("sqlite://"), "", "name")],
)
def test_bad_arguments(engine: Any, name: str, field: str) -> None:
    """Anything but an engine is refused, and so is an empty name."""
    with pytest.raises(ValidationError) as raised:
        observe_pool(engine, name=name)
    assert raised.value.field == field


def test_when_it_listens() -> None:
    """From `instrument` to `uninstrument`, once, however often they are called."""
    before = observers.registered
    instrument()
    instrument()
    assert len(observers.registered) == len(before) + 1
    uninstrument()
    uninstrument()
    assert observers.registered == before


def test_what_a_cache_did(engine: Engine) -> None:
    """The cache notes its result on the call; it is in the span, and is counted."""

    class Caching(Observer):
        """Says of each call that it was a hit."""

        def end(self, call: Call) -> None:
            call.cache = "hit"

    with exported() as telemetry, observing(Caching()), session_factory(engine)() as session:
        get_result_from_query(select(1), session)
    assert telemetry.attributes()["sqlmodel_crud.cache.result"] == "hit"
    about = (("code.function.name", "get_result_from_query"), ("result", "hit"))
    assert telemetry.points("sqlmodel_crud.cache.requests") == {about: 1}
