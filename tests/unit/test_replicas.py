"""Replicas that fail: they are put aside, and asked again after a while."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine

from sqlmodel_crud_utils._session import replica_sessions
from sqlmodel_crud_utils._session.replica_sessions import replicas_of
from tests.recording import logged


def test_a_replica_that_fails_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried every five seconds; the failure is logged once until it answers again."""
    clock = [100.0]
    monkeypatch.setattr(replica_sessions, "monotonic", lambda: clock[0])
    found = replicas_of(create_engine("sqlite://"), [create_engine("sqlite://") for _ in "ab"])
    one, other = found.members
    with logged() as lines:
        for _ in range(3):
            found.suspend(one, OSError())
            assert set(found.in_turn()) == {other}
            clock[0] += 5
            assert set(found.in_turn()) == {one, other}
        one.is_failing = False
        found.suspend(one, OSError())
        found.suspend(other, OSError())
    assert [line for _, _, line in lines] == [
        "a replica failed (OSError); 1 of 2 are left",
        "a replica failed (OSError); 1 of 2 are left",
        "a replica failed (OSError); reads go to the primary",
    ]


def test_replicas_are_asked_in_turn() -> None:
    """Each session begins with another one."""
    found = replicas_of(create_engine("sqlite://"), [create_engine("sqlite://") for _ in "abc"])
    firsts = [next(found.in_turn()) for _ in range(6)]
    assert firsts == [*found.members, *found.members]
