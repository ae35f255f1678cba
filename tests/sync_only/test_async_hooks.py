"""The sync API cannot run an `async def` hook."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlmodel import Session, SQLModel, create_engine, select

from sqlmodel_crud_utils import sync
from sqlmodel_crud_utils.exceptions import TransactionError, ValidationError
from sqlmodel_crud_utils.hooks import registered_hook
from tests.databases import Database
from tests.hook_models import AsyncRecorder, Page, Recorder, hooked

WRITES: dict[str, Callable[[Session, int], Any]] = {
    "write_row": lambda s, _: sync.write_row(Page(title="new"), s),
    "insert_data_rows": lambda s, _: sync.insert_data_rows([Page(title="new")], s),
    "get_one_or_create": lambda s, _: sync.get_one_or_create(s, Page, title="new"),
    "update_row": lambda s, key: sync.update_row(key, {"title": "new"}, s, Page),
    "delete_row": lambda s, key: sync.delete_row(key, s, Page),
    "soft_delete_row": lambda s, key: sync.soft_delete_row(key, s, Page),
    "restore_row": lambda s, key: sync.restore_row(key + 1, s, Page),
}


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    """A session on a database with two pages, one of them soft-deleted."""
    engine = create_engine(database.sync_url)
    with Session(engine) as session:
        deleted = Page(id=2, title="deleted")
        deleted.soft_delete()
        session.add_all([Page(id=1, title="old"), deleted])
        session.commit()
        yield session
    engine.dispose()
    database.clear()


def pages(session: Session) -> list[tuple[str, bool]]:
    """All pages, and whether they are deleted."""
    session.rollback()
    rows = session.exec(select(Page).order_by(Page.title)).all()
    return [(row.title, row.is_deleted) for row in rows]


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("inside", [False, True])
def test_it_is_refused_before_anything_is_written(
    session: Session, name: str, inside: bool
) -> None:
    """The error names the hook; a plain hook that would run before it has not run either."""
    recorder = Recorder()
    with (
        registered_hook(SQLModel, recorder),
        registered_hook(Page, AsyncRecorder()),
        pytest.raises((ValidationError, TransactionError)) as caught,
    ):
        if inside:
            with sync.transaction(session):
                WRITES[name](session, 1)
        else:
            WRITES[name](session, 1)
    error = caught.value if not inside else caught.value.__cause__
    assert isinstance(error, ValidationError)
    assert "AsyncRecorder." in str(error)
    assert "is an async function" in str(error)
    assert recorder.calls == []
    assert pages(session) == [("deleted", True), ("old", False)]


@pytest.mark.databases("sqlite")
def test_only_what_would_be_called_is_refused(session: Session) -> None:
    """A hook whose other methods are async can stay registered."""

    async def after_delete(_: Page) -> None: ...

    with hooked(Page, before_create=lambda _: None, after_delete=after_delete):
        sync.write_row(Page(title="new"), session)
        with pytest.raises(ValidationError, match=r"after_delete is an async function"):
            sync.delete_row(1, session, Page)
    assert ("old", False) in pages(session)


@pytest.mark.databases("sqlite")
def test_a_coroutine_in_disguise(session: Session) -> None:
    """A plain function that returns a coroutine is found out when it is called; it is undone."""

    async def work() -> None: ...

    with (
        hooked(Page, after_create=lambda _: work()),
        pytest.raises(ValidationError, match=r"lambda.* returned a coroutine"),
    ):
        sync.write_row(Page(title="new"), session)
    assert len(pages(session)) == 2
