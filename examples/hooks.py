"""Lifecycle hooks: an outbox, and a search index that follows the table.

    python examples/hooks.py

The outbox is written in the transaction of each change: a message exists if, and only if, the
change was committed. The search index is outside the database, so it is updated after the commit,
with `on_commit`; changes that are rolled back never reach it.
"""

import asyncio
from typing import Any

from sqlmodel import Field, Session, SQLModel, select

from sqlmodel_crud_utils import aio, register_hook, registered_hook
from sqlmodel_crud_utils.exceptions import TransactionError
from sqlmodel_crud_utils.sync import (
    create_pooled_engine,
    delete_row,
    on_commit,
    session_factory,
    transaction,
    update_row,
    write_row,
)


class Article(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    title: str
    words: int = 0


class Message(SQLModel, table=True):
    """A row of the outbox; another process sends and deletes it."""

    id: int | None = Field(default=None, primary_key=True)
    text: str


# --- The hooks -------------------------------------------------------------------------------


class Outbox:
    """Write a message with each change, in the same transaction."""

    def after_create(self, instance: SQLModel, session: Session) -> None:
        """Announce a new row."""
        self._announce("created", instance, session)

    def after_update(self, instance: SQLModel, session: Session) -> None:
        """Announce a change."""
        self._announce("updated", instance, session)

    def after_delete(self, instance: SQLModel, session: Session) -> None:
        """Announce a deletion."""
        self._announce("deleted", instance, session)

    def _announce(self, what: str, row: Any, session: Session) -> None:
        session.add(Message(text=f"{type(row).__name__} {row.id} {what}"))


class SearchIndex:
    """Keep an index of titles that is not part of the database."""

    def __init__(self) -> None:
        self.titles: dict[int | None, str] = {}

    def after_create(self, instance: Article, session: Session) -> None:
        """Index a new article after the commit."""
        key, title = instance.id, instance.title
        on_commit(session, lambda: self.titles.update({key: title}))

    after_update = after_create

    def after_delete(self, instance: Article, session: Session) -> None:
        """Remove a deleted article after the commit."""
        key = instance.id
        on_commit(session, lambda: self.titles.pop(key, None))


class AsyncModeration:
    """Ask a service before an article is written; the async API also runs `async def` hooks."""

    async def before_create(self, instance: Article) -> None:
        """Refuse an article that the service refuses."""
        await asyncio.sleep(0)  # a request to another service
        if "spam" in instance.title.lower():
            raise PermissionError(f"{instance.title!r} was refused")


# --- The program -----------------------------------------------------------------------------


def run(session: Session, index: SearchIndex) -> None:
    """Write, change, fail and delete, and show what the hooks did."""
    _, article = write_row(Article(title="Hooks"), session, raise_on_error=True)
    key = article.id
    update_row(key, {"title": "Lifecycle hooks"}, session, Article)
    show("one article", session, index)

    try:
        with transaction(session):
            write_row(Article(title="Never published"), session)
            delete_row(key, session, Article)
            raise RuntimeError("the power is gone")
    except TransactionError as error:
        print(f"\nFailed: {error.original_error}")
    show("as before", session, index)

    delete_row(key, session, Article)
    show("deleted", session, index)


def show(what: str, session: Session, index: SearchIndex) -> None:
    """Print the outbox and the index."""
    outbox = ", ".join(message.text for message in session.exec(select(Message)))
    print(f"\n{what}\n  outbox  {outbox}\n  index   {index.titles}")


async def moderate() -> None:
    """Write through the async API, with another hook for this block only."""
    engine = aio.create_pooled_engine("sqlite://")
    async with engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.create_all)
    async with aio.session_factory(engine)() as session:
        with registered_hook(Article, AsyncModeration()):
            await aio.write_row(Article(title="News"), session)
            try:
                await aio.write_row(Article(title="Spam"), session)
            except PermissionError as error:
                print(f"\nModeration: {error}")
        _, articles = await aio.get_rows(session, Article)
        print(f"  articles  {[each.title for each in articles]}")
    await engine.dispose()


def main() -> None:
    """Register the hooks at the start of the program, and run it."""
    index = SearchIndex()
    asyncio.run(moderate())
    register_hook(Article, Outbox())
    register_hook(Article, index)

    engine = create_pooled_engine("sqlite://")
    SQLModel.metadata.create_all(engine)
    with session_factory(engine)() as session:
        run(session, index)
    engine.dispose()


if __name__ == "__main__":
    main()
