"""A session that two threads use at once: refused before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from threading import Event
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event
from sqlmodel import Session, select

from sqlmodel_crud_utils.exceptions import QueryExecutionError, TransactionError, ValidationError
from sqlmodel_crud_utils.sync import (
    QueryBuilder,
    bulk_insert_rows,
    get_one_or_create,
    get_rows,
    transaction,
    update_row,
    write_row,
)
from tests.databases import Database, prepare
from tests.models import Hero
from tests.observing import recorded_calls

WAIT = 10


def hero(name: str) -> Hero:
    """A hero that can be written."""
    return Hero(name=name, secret_name="?")


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    """A plain engine."""
    engine = create_engine(database.sync_url)
    prepare(engine)
    yield engine
    engine.dispose()
    database.clear()


def names(engine: Engine) -> list[str]:
    """Return the committed names."""
    with Session(engine) as reader:
        return sorted(reader.exec(select(Hero.name)).all())


@contextmanager
def another_thread_writes(
    engine: Engine,
    session: Session,
    *,
    write: Callable[[Any, Session], object] = write_row,
    held: str = "before",
) -> Iterator[Future[Any]]:
    """Let another thread write a hero, and be held at its INSERT as long as the block lasts."""
    reached, goes_on = Event(), Event()

    def hold(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT") and not reached.is_set():
            reached.set()
            assert goes_on.wait(WAIT)

    event.listen(engine, f"{held}_cursor_execute", hold)
    with ThreadPoolExecutor(1) as threads:
        work = threads.submit(write, hero("Rusty"), session)
        try:
            assert reached.wait(WAIT)
            yield work
        finally:
            goes_on.set()
            work.exception(WAIT)
            event.remove(engine, f"{held}_cursor_execute", hold)


CALLS: tuple[Callable[[Session], object], ...] = (
    lambda session: write_row(hero("Nova"), session),
    lambda session: update_row(1, {"age": 1}, session, Hero),
    lambda session: get_rows(session, Hero),
    lambda session: get_one_or_create(session, Hero, name="Nova"),
    lambda session: bulk_insert_rows([hero("Nova")], session, Hero),
    lambda session: QueryBuilder(session, Hero).count(),
)


def test_the_second_thread_is_refused(engine: Engine) -> None:
    """The first one continues, and the session stays usable."""
    with Session(engine) as session:
        with another_thread_writes(engine, session) as first:
            for call in CALLS:
                with pytest.raises(ValidationError, match="one session per") as caught:
                    call(session)
                assert caught.value.field == "session"
        assert first.result()[0]
        assert write_row(hero("Sid"), session)[0]
    assert names(engine) == ["Rusty", "Sid"]
    assert engine.pool.checkedout() == 0


def test_a_block_whose_body_uses_two_threads(engine: Engine) -> None:
    """The refusal is an error of the block, which also undoes the other thread's write."""
    with Session(engine) as session:
        with pytest.raises(TransactionError) as caught, transaction(session):
            write_row(hero("Sid"), session)
            with another_thread_writes(engine, session):
                write_row(hero("Nova"), session)
        assert isinstance(caught.value.original_error, ValidationError)
    assert names(engine) == []
    assert engine.pool.checkedout() == 0


def test_a_block_that_ends_while_another_thread_writes(engine: Engine) -> None:
    """Nothing of it is committed, and the other thread gets an error."""
    with Session(engine) as session, ExitStack() as stack:
        with pytest.raises(TransactionError), transaction(session):
            write_row(hero("Sid"), session)
            other = stack.enter_context(another_thread_writes(engine, session))
        stack.close()
        assert isinstance(other.exception(), ValidationError)
    assert names(engine) == []
    assert engine.pool.checkedout() == 0


def test_such_a_block_in_the_callers_own(engine: Engine) -> None:
    """The caller's transaction is undone too, as the other thread's statement may be in it."""
    with ExitStack() as stack, Session(engine) as session:
        with pytest.raises(QueryExecutionError, match="block is over"), session.begin():
            with pytest.raises(TransactionError), transaction(session):
                other = stack.enter_context(another_thread_writes(engine, session))
            stack.close()
            write_row(hero("Sid"), session)
        assert isinstance(other.exception(), ValidationError)
    assert names(engine) == []
    assert engine.pool.checkedout() == 0


def test_the_callers_own_block_that_ends_while_another_thread_writes(engine: Engine) -> None:
    """Its commit is refused: what the other thread sends would come after it."""
    with Session(engine) as session, ExitStack() as stack:
        with pytest.raises(ValidationError, match="one session per"), session.begin():
            write_row(hero("Sid"), session)
            other = stack.enter_context(another_thread_writes(engine, session))
        stack.close()
        assert isinstance(other.exception(), ValidationError)
    assert names(engine) == []
    assert engine.pool.checkedout() == 0


def in_a_block(row: Hero, session: Session) -> None:
    """Write a hero between others."""
    with transaction(session, wrap_errors=False):
        write_row(hero("first"), session)
        get_rows(session, Hero)
        write_row(hero("last"), session)
        write_row(row, session)


def many(row: Hero, session: Session) -> None:
    """Write a hero before others, in chunks."""
    rows = [row, *(hero(f"hero {number}") for number in range(9))]
    bulk_insert_rows(rows, session, Hero, chunk_size=3)


@pytest.mark.parametrize("write", [write_row, in_a_block, many])
@pytest.mark.parametrize("held", ["before", "after"])
@pytest.mark.parametrize("end", ["rollback", "close"])
def test_a_transaction_that_is_ended_while_another_thread_writes(
    engine: Engine, end: str, held: str, write: Callable[[Any, Session], object]
) -> None:
    """The other thread's part is lost, and it gets an error; nothing is sent after the end."""
    with Session(engine) as session:
        with another_thread_writes(engine, session, write=write, held=held) as other:
            getattr(session, end)()
        assert isinstance(other.exception(), ValidationError)
        assert "one session per task" in str(other.exception())
        assert names(engine) == []
        assert write_row(hero("Sid"), session)[0]
    assert names(engine) == ["Sid"]
    assert engine.pool.checkedout() == 0


def test_a_commit_while_another_thread_writes(engine: Engine) -> None:
    """It is refused; what the other thread says to have written is written."""
    with Session(engine) as session:
        with (
            another_thread_writes(engine, session) as other,
            pytest.raises(ValidationError, match="one session per"),
        ):
            session.commit()
        written = other.exception() is None and other.result()[0]
    assert names(engine) == (["Rusty"] if written else [])
    assert engine.pool.checkedout() == 0


def test_who_observes_hears_how_such_a_call_ends(engine: Engine) -> None:
    """With the error that its caller gets."""
    with Session(engine) as session, recorded_calls() as calls:
        with another_thread_writes(engine, session, held="after") as other:
            session.rollback()
        assert calls.only.error is other.exception()
        assert isinstance(other.exception(), ValidationError)
