"""Results are kept, but not without end, and not beyond a change of the models."""

from __future__ import annotations

from sqlalchemy import Column, Integer, MetaData, Table
from sqlalchemy.orm import configure_mappers, registry

from sqlmodel_crud_utils._core.memoizing import Store

KEY = Column("id", Integer, primary_key=True)


def test_a_result_is_made_once() -> None:
    """And given for its key each time."""
    store: Store[str, list[int]] = Store()
    first = store.get("a", lambda: [1])
    assert store.get("a", lambda: [2]) is first
    assert store.get("b", lambda: [2]) == [2]


def test_the_oldest_results_go() -> None:
    """A program that asks for ever new ones does not grow without end."""
    store: Store[int, object] = Store()
    made = [store.get(key, object) for key in range(3_000)]
    assert store.get(2_999, object) is made[2_999]
    assert store.get(0, object) is not made[0]


def test_results_are_forgotten_when_models_are_declared() -> None:
    """They may have relationships that were not there."""
    store: Store[str, object] = Store()
    first = store.get("a", object)
    models = registry()
    models.map_imperatively(type("Thing", (), {}), Table("thing", MetaData(), KEY))
    configure_mappers()
    models.dispose()
    assert store.get("a", object) is not first
