"""`get_one_or_create` with many callers at the same time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from sqlalchemy import event, text

from sqlmodel_crud_utils.aio import get_one_or_create, get_rows, on_commit, transaction, write_row
from sqlmodel_crud_utils.exceptions import QueryExecutionError
from tests._runtime_async import (
    AsyncEngine,
    AsyncSession,
    execute,
    make_engine,
    sync_engine,
    together,
)
from tests.databases import Database, prepare, wait_for_locks
from tests.models import Hero, Tag, Team

CALLERS = 20
WAITING = 6


def isolate_snapshots(connection: Any, _record: object) -> None:
    """Set what newer MariaDBs have by default; MySQL and older ones know no such variable."""
    cursor = connection.cursor()
    cursor.execute("SHOW VARIABLES LIKE 'innodb_snapshot_isolation'")
    if cursor.fetchone():
        cursor.execute("SET SESSION innodb_snapshot_isolation = ON")
    cursor.close()


@pytest.fixture(params=[False, True], ids=["as it is", "snapshot isolation"])
async def crowd(
    engine: AsyncEngine, database: Database, request: pytest.FixtureRequest
) -> AsyncIterator[AsyncEngine]:
    """An engine with a connection for each caller; the tables are emptied after `engine`."""
    assert engine.dialect.name == database.name
    large = make_engine(database.async_url, pool_size=CALLERS, max_overflow=0)
    prepare(large)
    wait_for_locks(large)
    if request.param:
        if database.name != "mysql":
            pytest.skip("only MariaDB has such a setting")
        event.listen(sync_engine(large), "connect", isolate_snapshots)
    yield large
    await large.dispose()


@pytest.mark.parametrize("how", ["outside", "block", "block after reading", "nested block"])
async def test_all_callers_get_the_one_row(crowd: AsyncEngine, how: str) -> None:
    """One of them created it; all of their transactions can be used, and what they write stays."""
    answers: list[tuple[int | None, bool]] = []

    async def work(session: AsyncSession, number: int) -> None:
        team, existed = await get_one_or_create(session, Team, {"city": "Oslo"}, name="Preventers")
        assert (team.name, team.city) == ("Preventers", "Oslo")
        key = team.id
        await write_row(Tag(label=f"{number}"), session, raise_on_error=True)
        answers.append((key, existed))

    async def call(number: int) -> None:
        async with AsyncSession(crowd) as session:
            if how == "outside":
                await work(session, number)
                return
            async with transaction(session):
                if how == "block after reading":
                    assert await get_rows(session, Hero) == (False, [])
                if how == "nested block":
                    async with transaction(session):
                        await work(session, number)
                else:
                    await work(session, number)

    await together(*((lambda number=number: call(number)) for number in range(CALLERS)))
    assert len({key for key, _ in answers}) == 1
    assert sorted(existed for _, existed in answers) == [False] + [True] * (CALLERS - 1)
    async with AsyncSession(crowd) as session:
        assert len((await get_rows(session, Team))[1]) == 1
        assert len((await get_rows(session, Tag))[1]) == CALLERS


async def test_callers_of_different_rows_do_not_disturb_each_other(crowd: AsyncEngine) -> None:
    """Each of five rows is created by one of the callers."""
    created: list[str] = []

    async def call(number: int) -> None:
        for step in range(5):
            name = f"team {(number + step) % 5}"
            # On MySQL, a session that has read before would get a deadlock.
            async with AsyncSession(crowd) as session:
                _, existed = await get_one_or_create(session, Team, name=name)
            if not existed:
                created.append(name)

    await together(*((lambda number=number: call(number)) for number in range(CALLERS)))
    assert sorted(created) == [f"team {number}" for number in range(5)]


@pytest.mark.databases("mysql")
class TestDeadlocks:
    """Callers wait for a row whose creator then rolls back; MySQL lets one of them go on."""

    async def race(
        self, crowd: AsyncEngine, before: str = ""
    ) -> tuple[list[bool], list[QueryExecutionError]]:
        """Return the callers' results and failures; each may do something beforehand."""
        answers: list[bool] = []
        failures: list[QueryExecutionError] = []

        async def call() -> None:
            async with AsyncSession(crowd) as session:
                await self.do(before, session)
                try:
                    _, existed = await get_one_or_create(session, Team, name="Preventers")
                except QueryExecutionError as failure:
                    failures.append(failure)
                    # The session can be used at once.
                    _, existed = await get_one_or_create(session, Team, name="Preventers")
                answers.append(existed)

        async def fail(session: AsyncSession) -> None:
            waiting = text(
                "SELECT count(*) FROM information_schema.processlist "
                "WHERE db = database() AND info LIKE 'INSERT INTO team%'"
            )
            async with AsyncSession(crowd) as watcher:
                while (await execute(watcher, waiting)).scalar_one() < WAITING:
                    await watcher.rollback()
            await session.rollback()

        async with AsyncSession(crowd) as creator:
            creator.add(Team(name="Preventers"))
            await creator.flush()
            await together(*[call] * WAITING, partial(fail, creator))
        return answers, failures

    async def do(self, what: str, session: AsyncSession) -> None:
        """Begin a transaction, or leave something to the next one."""
        if what == "a callback":
            on_commit(session, list)
        elif what == "a read":
            assert await get_rows(session, Hero) == (False, [])
        elif what:
            session.add(Tag(label=f"{id(session)}"))
            if what == "a row":
                await session.flush()

    async def test_the_callers_do_not_notice(
        self, crowd: AsyncEngine, logged_errors: list[tuple[str, str, str]]
    ) -> None:
        """Their calls are run again, and nothing is logged as an error."""
        answers, failures = await self.race(crowd)
        assert sorted(answers) == [False] + [True] * (WAITING - 1)
        assert (failures, logged_errors) == ([], [])

    @pytest.mark.parametrize("what", ["a row", "a new row", "a callback", "a read"])
    async def test_what_would_be_lost_is_told(self, crowd: AsyncEngine, what: str) -> None:
        """Other work of the transaction is not run again behind the caller's back."""
        answers, failures = await self.race(crowd, what)
        assert sorted(answers) == [False] + [True] * (WAITING - 1)
        assert failures
        for failure in failures:
            assert "run the transaction again" in str(failure)
