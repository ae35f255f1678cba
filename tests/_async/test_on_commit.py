"""`on_commit`: what waits for a commit runs after it, in order, and never without it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pytest
from sqlmodel import select

from sqlmodel_crud_utils.aio import insert_data_rows, on_commit, transaction, write_row
from sqlmodel_crud_utils.exceptions import (
    ConstraintViolationError,
    TransactionError,
    ValidationError,
)
from tests._runtime_async import AsyncEngine, AsyncSession
from tests.models import Hero


def hero(name: str) -> Hero:
    """A hero that can be written."""
    return Hero(name=name, secret_name="?")


async def names(engine: AsyncEngine) -> list[str]:
    """Return the committed names."""
    async with AsyncSession(engine) as reader:
        return list((await reader.exec(select(Hero.name).order_by(Hero.name))).all())


def failing(error: BaseException) -> Callable[[], None]:
    """A callback that raises."""

    def callback() -> None:
        raise error

    return callback


class TestWhen:
    async def test_after_the_outermost_commit_in_order(self, session: AsyncSession) -> None:
        """Also for nested blocks and the user's savepoints, in the order of registration."""
        ran: list[int] = []
        async with transaction(session):
            on_commit(session, lambda: ran.append(1))
            async with transaction(session):
                on_commit(session, lambda: ran.append(2))
                async with session.begin_nested():
                    on_commit(session, lambda: ran.append(3))
                on_commit(session, lambda: ran.append(4))
            await write_row(hero("Rusty"), session)
            on_commit(session, lambda: ran.append(5))
            assert ran == []
        assert ran == [1, 2, 3, 4, 5]

    async def test_what_it_sees_is_committed(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """The connection is back in the pool by then, and rows can be read."""
        seen: list[object] = []
        async with transaction(session):
            _, row = await write_row(hero("Rusty"), session)
            on_commit(session, lambda: seen.extend([row.name, engine.pool.checkedout()]))
        assert seen == ["Rusty", 0]

    async def test_once(self, session: AsyncSession) -> None:
        """The next commit does not run it again."""
        ran: list[int] = []
        async with transaction(session):
            on_commit(session, lambda: ran.append(1))
        async with transaction(session):
            pass
        await write_row(hero("Rusty"), session)
        assert ran == [1]

    async def test_a_callback_twice_runs_twice(self, session: AsyncSession) -> None:
        """Each registration of a callback counts."""
        ran: list[int] = []

        def callback() -> None:
            ran.append(1)

        async with transaction(session):
            on_commit(session, callback)
            on_commit(session, callback)
        assert ran == [1, 1]

    async def test_outside_a_block_after_the_next_library_commit(
        self, session: AsyncSession
    ) -> None:
        """Before the transaction begins, and in a running one."""
        ran: list[int] = []
        on_commit(session, lambda: ran.append(1))
        await session.exec(select(Hero))
        on_commit(session, lambda: ran.append(2))
        await write_row(hero("Rusty"), session)
        assert ran == [1, 2]
        on_commit(session, lambda: ran.append(3))
        async with transaction(session):
            pass
        assert ran == [1, 2, 3]

    async def test_after_a_commit_by_hand_with_the_next_library_commit(
        self, session: AsyncSession
    ) -> None:
        """The library has no hand in the user's own commit, but nothing is forgotten."""
        ran: list[int] = []
        on_commit(session, lambda: ran.append(1))
        session.add(hero("Rusty"))
        await session.commit()
        assert ran == []
        await write_row(hero("Nova"), session)
        assert ran == [1]

    async def test_a_commit_by_hand_in_a_block_that_fails_later(
        self, session: AsyncSession
    ) -> None:
        """Callbacks of the committed part run, those of the rolled-back part do not."""
        ran: list[int] = []
        with pytest.raises(TransactionError):
            async with transaction(session):
                session.add(hero("Rusty"))
                on_commit(session, lambda: ran.append(1))
                await session.commit()
                session.add(hero("Nova"))
                on_commit(session, lambda: ran.append(2))
                raise RuntimeError
        assert ran == [1]

    @pytest.mark.parametrize("fails", [False, True])
    async def test_after_a_commit_by_hand_with_nothing_written_since(
        self, session: AsyncSession, fails: bool
    ) -> None:
        """Callbacks registered then belong to the rest of the block, and are dropped with it."""
        ran: list[int] = []
        with pytest.raises(TransactionError) if fails else nullcontext():
            async with transaction(session):
                await session.commit()
                on_commit(session, lambda: ran.append(1))
                if fails:
                    raise RuntimeError
        await write_row(hero("Rusty"), session)
        assert ran == ([] if fails else [1])

    async def test_of_an_insert_of_many_rows(self, session: AsyncSession) -> None:
        """All or nothing opens a block of its own; its commit counts."""
        ran: list[int] = []
        on_commit(session, lambda: ran.append(1))
        await insert_data_rows([hero("Rusty"), hero("Nova")], session, raise_on_error=True)
        assert ran == [1]


class TestNever:
    async def test_after_a_rollback(self, session: AsyncSession) -> None:
        """After a rollback no callback runs, neither then nor with the next commit."""
        ran: list[int] = []
        with pytest.raises(TransactionError):
            async with transaction(session):
                on_commit(session, lambda: ran.append(1))
                async with transaction(session):
                    on_commit(session, lambda: ran.append(2))
                async with session.begin_nested():
                    on_commit(session, lambda: ran.append(3))
                raise RuntimeError
        await write_row(hero("Rusty"), session)
        assert ran == []

    async def test_of_a_nested_block_that_failed(self, session: AsyncSession) -> None:
        """Also what a block inside it had released already."""
        ran: list[int] = []
        async with transaction(session):
            on_commit(session, lambda: ran.append(1))
            with pytest.raises(TransactionError):
                async with transaction(session):
                    on_commit(session, lambda: ran.append(2))
                    async with transaction(session):
                        on_commit(session, lambda: ran.append(3))
                    raise RuntimeError
            on_commit(session, lambda: ran.append(4))
        assert ran == [1, 4]

    async def test_of_a_savepoint_of_the_user_that_is_rolled_back(
        self, session: AsyncSession
    ) -> None:
        """They are not the library's blocks, but are undone as well."""
        ran: list[int] = []
        async with transaction(session):
            savepoint = await session.begin_nested()
            on_commit(session, lambda: ran.append(1))
            async with session.begin_nested():
                on_commit(session, lambda: ran.append(2))
            await savepoint.rollback()
            on_commit(session, lambda: ran.append(3))
        assert ran == [3]

    async def test_of_a_write_that_is_undone_in_a_block(self, session: AsyncSession) -> None:
        """A refused row undoes nothing else in the block."""
        ran: list[int] = []
        await write_row(hero("Rusty"), session)
        async with transaction(session):
            on_commit(session, lambda: ran.append(1))
            assert await write_row(hero("Rusty"), session, raise_on_error=False) == (False, None)
        assert ran == [1]

    async def test_by_a_failed_write(self, session: AsyncSession) -> None:
        """It rolled the session back, which drops waiting callbacks."""
        ran: list[int] = []
        await write_row(hero("Rusty"), session)
        on_commit(session, lambda: ran.append(1))
        assert await write_row(hero("Rusty"), session) == (False, None)
        assert ran == []
        await write_row(hero("Nova"), session)
        assert ran == []

    async def test_by_a_commit_that_fails(
        self, session: AsyncSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The transaction is rolled back then."""
        ran: list[int] = []

        def refuse(*_: object) -> None:
            raise RuntimeError

        with pytest.raises(TransactionError):
            async with transaction(session):
                on_commit(session, lambda: ran.append(1))
                monkeypatch.setattr(session.get_bind().dialect, "do_commit", refuse)
        monkeypatch.undo()
        await write_row(hero("Rusty"), session)
        assert ran == []

    async def test_after_the_session_was_closed(self, session: AsyncSession) -> None:
        """Closing without a commit is a rollback; the session can be used again."""
        ran: list[int] = []
        await session.exec(select(Hero))
        on_commit(session, lambda: ran.append(1))
        await session.close()
        await write_row(hero("Rusty"), session)
        assert ran == []
        on_commit(session, lambda: ran.append(2))
        await write_row(hero("Nova"), session)
        assert ran == [2]

    async def test_of_another_session(
        self, session: AsyncSession, session_factory: Callable[[], AsyncSession]
    ) -> None:
        """A commit runs no callbacks of another session."""
        ran: list[int] = []
        on_commit(session, lambda: ran.append(1))
        await write_row(hero("Rusty"), session_factory())
        assert ran == []
        await write_row(hero("Nova"), session)
        assert ran == [1]


class TestFailures:
    async def test_are_raised_together_after_the_last(
        self,
        session: AsyncSession,
        engine: AsyncEngine,
        logged_errors: list[tuple[str, str, str]],
    ) -> None:
        """All callbacks run, the errors are logged, and what was committed stays."""
        ran: list[int] = []
        with pytest.raises(ExceptionGroup, match="the transaction is committed") as caught:
            async with transaction(session):
                await write_row(hero("Rusty"), session)
                on_commit(session, failing(RuntimeError("secret")))
                on_commit(session, lambda: ran.append(1))
                on_commit(session, failing(KeyError("secret")))
                on_commit(session, lambda: ran.append(2))
        assert [type(error) for error in caught.value.exceptions] == [RuntimeError, KeyError]
        assert ran == [1, 2]
        assert await names(engine) == ["Rusty"]
        assert [text for *_, text in logged_errors] == [
            "on_commit callback failed: RuntimeError",
            "on_commit callback failed: KeyError",
        ]
        async with transaction(session):
            pass

    async def test_outside_a_block(self, session: AsyncSession, engine: AsyncEngine) -> None:
        """The write is done, and does not report a failure of its own."""
        on_commit(session, failing(ConstraintViolationError("of something else")))
        with pytest.raises(ExceptionGroup):
            await write_row(hero("Rusty"), session)
        assert await names(engine) == ["Rusty"]

    async def test_a_commit_by_hand_keeps_the_error_of_the_block(
        self, session: AsyncSession
    ) -> None:
        """The block's own error is the one that is raised."""
        with pytest.raises(TransactionError) as caught:
            async with transaction(session):
                on_commit(session, failing(RuntimeError()))
                await session.commit()
                raise KeyError
        assert isinstance(caught.value.original_error, KeyError)


class TestCallbacksThatWrite:
    async def test_they_commit_their_own_work(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """With a write of the library, with a block, and with what waits for those."""
        ran: list[str] = []

        async def write() -> None:
            on_commit(session, lambda: ran.append("write"))
            await write_row(hero("Nova"), session)
            ran.append("written")

        async def open_block() -> None:
            async with transaction(session):
                await write_row(hero("Sid"), session)
                on_commit(session, lambda: ran.append("block"))
            ran.append("left")

        async with transaction(session):
            await write_row(hero("Rusty"), session)
            on_commit(session, write)
            on_commit(session, open_block)
        assert ran == ["write", "written", "block", "left"]
        assert await names(engine) == ["Nova", "Rusty", "Sid"]

    async def test_their_failure_leaves_the_block_committed(
        self, session: AsyncSession, engine: AsyncEngine
    ) -> None:
        """A block in a callback is a transaction of its own."""

        async def fail() -> None:
            async with transaction(session):
                await write_row(hero("Nova"), session)
                raise RuntimeError

        with pytest.raises(ExceptionGroup) as caught:
            async with transaction(session):
                await write_row(hero("Rusty"), session)
                on_commit(session, fail)
        assert isinstance(caught.value.exceptions[0], TransactionError)
        assert await names(engine) == ["Rusty"]


async def test_what_cannot_be_called_is_refused(session: AsyncSession) -> None:
    """Before the commit, when it can still be corrected."""
    with pytest.raises(ValidationError, match="callback must be callable, not str"):
        on_commit(session, "send the mail")


async def test_what_is_no_session_is_refused() -> None:
    """The text names what would be right."""
    with pytest.raises(ValidationError, match="Session"):
        on_commit("session", print)
