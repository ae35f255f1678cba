"""Callbacks that wait for a commit: whose they are and what becomes of them; no database."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session

from sqlmodel_crud_utils._runtime_sync import shielded
from sqlmodel_crud_utils._session import commit_callbacks
from sqlmodel_crud_utils._sync._running.settling import run_commit_callbacks
from sqlmodel_crud_utils.exceptions import ValidationError
from sqlmodel_crud_utils.sync import on_commit


@pytest.fixture
def session() -> Session:
    """A session that never meets a database."""
    return Session()


def run_all(session: Session) -> list[int]:
    """Run the due callbacks, each of which returns its number."""
    return [callback() for callback in commit_callbacks.take_due(session)]


class TestOwnership:
    def test_released_savepoints_hand_on(self, session: Session) -> None:
        """From the innermost to the transaction, where the commit makes them due."""
        session.begin()
        with session.begin_nested(), session.begin_nested():
            commit_callbacks.add(session, lambda: 1)
        assert run_all(session) == []
        session.commit()
        assert run_all(session) == [1]
        assert run_all(session) == []

    def test_a_released_savepoint_in_one_that_is_rolled_back(self, session: Session) -> None:
        """It is undone with it."""
        session.begin()
        outer = session.begin_nested()
        with session.begin_nested():
            commit_callbacks.add(session, lambda: 1)
        outer.rollback()
        commit_callbacks.add(session, lambda: 2)
        session.commit()
        assert run_all(session) == [2]

    def test_a_savepoint_that_is_closed_goes_too(self, session: Session) -> None:
        """SQLAlchemy ends it like this after a failed flush, without a rollback event."""
        session.begin()
        session.begin_nested().close()
        savepoint = session.begin_nested()
        commit_callbacks.add(session, lambda: 1)
        savepoint.close()
        session.commit()
        assert run_all(session) == []

    def test_a_commit_by_hand_in_a_savepoint(self, session: Session) -> None:
        """It commits all the way, and makes all of them due."""
        session.begin()
        commit_callbacks.add(session, lambda: 1)
        session.begin_nested()
        commit_callbacks.add(session, lambda: 2)
        session.commit()
        assert run_all(session) == [1, 2]

    @pytest.mark.parametrize("end", [Session.rollback, Session.close, Session.invalidate])
    def test_all_ends_without_a_commit(
        self, session: Session, end: Callable[[Session], None]
    ) -> None:
        """Nothing of it is run later."""
        session.begin()
        commit_callbacks.add(session, lambda: 1)
        session.begin_nested()
        commit_callbacks.add(session, lambda: 2)
        end(session)
        session.begin()
        session.commit()
        assert run_all(session) == []

    def test_one_that_was_there_before_the_transaction(self, session: Session) -> None:
        """It belongs to the first transaction, however that ends."""
        commit_callbacks.add(session, lambda: 1)
        session.begin()
        session.commit()
        assert run_all(session) == [1]
        commit_callbacks.add(session, lambda: 2)
        session.begin()
        session.rollback()
        session.begin()
        session.commit()
        assert run_all(session) == []

    def test_nothing_is_due_in_a_session_that_knows_none(self, session: Session) -> None:
        """Most sessions have no callbacks at all."""
        assert commit_callbacks.take_due(session) == []
        assert session.info == {}


class TestRunning:
    @pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
    def test_an_interruption_goes_on_after_the_last(
        self, session: Session, interruption: type[BaseException]
    ) -> None:
        """The others belong to a commit that is done."""

        def interrupt() -> None:
            raise interruption

        ran: list[int] = []
        session.begin()
        for callback in (interrupt, lambda: ran.append(1), lambda: ran.append(2)):
            on_commit(session, callback)
        session.commit()
        with pytest.raises(interruption):
            run_commit_callbacks(session)
        assert ran == [1, 2]

    def test_nothing_is_guarded_where_there_are_no_tasks(self) -> None:
        """The plain twin of the guard just calls."""
        assert shielded(max, 1, 2) == 2


class TestAsyncCallbacks:
    def test_the_sync_api_refuses_them(self, session: Session) -> None:
        """Nothing would ever run them; the text names them and what would be right."""

        async def notify() -> None: ...

        with pytest.raises(ValidationError, match=r"callback .*notify is an async function.*aio"):
            on_commit(session, notify)
        assert commit_callbacks.take_due(session) == []

    def test_also_an_object_that_is_called(self, session: Session) -> None:
        """The result of its call counts."""

        class Notify:
            async def __call__(self) -> None: ...

        with pytest.raises(ValidationError, match="Notify is an async function"):
            on_commit(session, Notify())
