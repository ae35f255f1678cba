"""Which engines replace dead connections; what they do stands in `test_lost_connections.py`."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine

from sqlmodel_crud_utils._session.liveness import replace_dead_connections


@pytest.mark.parametrize(("driver", "sends_again"), [("psycopg", True), ("other", False)])
def test_only_known_drivers_send_again(driver: str, sends_again: bool) -> None:
    """Of others nobody can say whether something was sent already."""
    engine = create_engine("postgresql+psycopg://host/db")
    engine.dialect.driver = driver
    replace_dead_connections(engine, 0.5)
    assert bool(engine.dialect.dispatch.do_execute) is sends_again  # type: ignore[attr-defined]
    assert bool(engine.pool.dispatch.checkout)


def test_sqlite_is_left_alone() -> None:
    """Its connections do not die."""
    engine = create_engine("sqlite://")
    replace_dead_connections(engine, 0.5)
    assert not engine.pool.dispatch.checkout
