"""The state of a session's blocks: which refusal dooms what, without a database."""

from __future__ import annotations

import gc
import weakref

import pytest
from sqlalchemy.orm import Session

from sqlmodel_crud_utils._session import blocks, savepoints


@pytest.fixture
def session() -> Session:
    """A session that never meets a database."""
    session = Session()
    session.begin()
    return session


def test_levels_share_one_block(session: Session) -> None:
    """It exists from the outermost entry to its exit."""
    assert blocks.block_of(session) is None
    outer = blocks.enter(session)
    inner = blocks.enter(session)
    assert inner is outer is blocks.block_of(session)
    assert outer.depth == 2
    blocks.leave(session, inner)
    assert blocks.block_of(session) is outer
    blocks.leave(session, outer)
    assert blocks.block_of(session) is None
    assert blocks.enter(session) is not outer


class TestRefusals:
    def test_the_first_one_is_told(self, session: Session) -> None:
        """The others are its consequences."""
        block, first = blocks.enter(session), ValueError()
        block.doom(first)
        block.doom(KeyError())
        assert block.refusal(None) is first

    def test_a_savepoint_that_is_rolled_back_takes_it_along(self, session: Session) -> None:
        """With all savepoints in it, released or not."""
        block = blocks.enter(session)
        outer = session.begin_nested()
        with session.begin_nested():
            block.doom(ValueError())
        session.begin_nested()
        block.doom(ValueError())
        assert block.refusal(outer) is not None
        outer.rollback()
        assert block.refusal(None) is None

    def test_a_savepoint_that_is_released_hands_it_on(self, session: Session) -> None:
        """To the level around it, and so on."""
        block, error = blocks.enter(session), ValueError()
        with session.begin_nested() as outer:
            with session.begin_nested():
                block.doom(error)
            assert block.refusal(outer) is error
        assert block.refusal(None) is error

    def test_it_dooms_no_savepoint_that_comes_later(self, session: Session) -> None:
        """A nested block may succeed; the outermost exit refuses."""
        block = blocks.enter(session)
        block.doom(ValueError())
        later = session.begin_nested()
        assert block.refusal(later) is None
        assert block.refusal(None) is not None

    def test_a_lost_savepoint_dooms_everything(self, session: Session) -> None:
        """Its own rollback does not help then."""
        block = blocks.enter(session)
        with session.begin_nested() as savepoint:
            block.doom(ValueError(), wholly=True)
            savepoint.rollback()
        assert block.refusal(None) is not None
        session.rollback()
        assert block.refusal(None) is None

    def test_a_commit_by_hand_keeps_it(self, session: Session) -> None:
        """PostgreSQL makes a rollback of it, so nobody may call that a success."""
        block = blocks.enter(session)
        block.doom(ValueError())
        session.commit()
        assert block.refusal(None) is not None

    def test_where_nothing_is_begun_there_is_nothing_to_doom(self, session: Session) -> None:
        """The same is true if the session no longer exists."""
        block = blocks.enter(session)
        session.rollback()
        block.doom(ValueError())
        assert block.refusal(None) is None
        gone = Session()
        abandoned, reference = blocks.enter(gone), weakref.ref(gone)
        del gone
        gc.collect()
        assert reference() is None
        abandoned.doom(ValueError())
        assert abandoned.refusal(None) is None


def test_what_is_within_what(session: Session) -> None:
    """A transaction is within itself, and nothing is within nothing."""
    root = session.get_transaction()
    assert root is not None
    outer = session.begin_nested()
    inner = session.begin_nested()
    assert savepoints.innermost_transaction(session) is inner
    assert savepoints.is_within(inner, outer)
    assert savepoints.is_within(inner, root)
    assert savepoints.is_within(inner, inner)
    assert not savepoints.is_within(outer, inner)
    assert not savepoints.is_within(None, root)
