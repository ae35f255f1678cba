"""Every kind of write reports its changes, which give the table when replayed on a dict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import given, strategies as st
from sqlalchemy import Engine, create_engine, delete, insert, select, update
from sqlmodel import Session

from sqlmodel_crud_utils._session import events
from sqlmodel_crud_utils._session.changes import Change, Need
from sqlmodel_crud_utils.ext.history.sync import get_change_history
from sqlmodel_crud_utils.sync import (
    QueryBuilder,
    bulk_insert_rows,
    bulk_update_rows,
    bulk_upsert_mappings,
    delete_row,
    delete_rows_within_id_list,
    get_one_or_create,
    insert_data_rows,
    purge_rows,
    restore_row,
    soft_delete_row,
    transaction,
    update_row,
    write_row,
)
from tests.change_models import Guarded, Watched
from tests.databases import Database, prepare
from tests.history_models import Pallet
from tests.properties import examples

MANY = 120  # from 100 rows on they are written past the flush

MODELS = (Watched, Guarded)
Rows = dict[Any, dict[str, Any]]


@dataclass
class Replay:
    """Applies committed changes to a dict for each table.

    Attributes:
        level: What it needs to know.
        tables: The rows by key, as far as the changes report them.
        unknown: The models of which no more was told than that rows were written.
        heard: All changes, whether they were committed or not.
    """

    level: Need
    tables: dict[type[Any], Rows] = field(default_factory=lambda: {model: {} for model in MODELS})
    unknown: set[type[Any]] = field(default_factory=set)
    heard: list[Change] = field(default_factory=list)

    def need(self, model: type[Any]) -> Need:
        """Return the level for the models of these tests."""
        return self.level if model in self.tables else Need.NOTHING

    def written(self, _session: Session, change: Change) -> None:
        """Note a change."""
        self.heard.append(change)

    def committed(self, session: Session, changes: Sequence[Change]) -> None:
        """Apply changes."""
        assert session.get_transaction() is not None
        for change in changes:
            self._apply(change)

    def _apply(self, change: Change) -> None:
        if change.keys is None or (change.values is None and change.operation != "delete"):
            self.unknown.add(change.model)
            return
        table = self.tables[change.model]
        if change.model in self.unknown:
            return
        for place, key in enumerate(change.keys):
            if change.operation == "delete":
                table.pop(key, None)
            elif change.values is not None:
                row = table.setdefault(key, {}) if change.operation == "create" else table[key]
                row.update(change.values[place])

    def compare(self, engine: Engine) -> None:
        """Check all tables, after reloading those whose changes are incomplete."""
        for model in MODELS:
            rows = stored(engine, model)
            if model not in self.unknown:
                assert self.tables[model] == rows, model
            self.tables[model] = rows
        self.unknown.clear()


def stored(engine: Engine, model: type[Any]) -> Rows:
    """Return the rows of a table by their keys."""
    with Session(engine) as session:
        rows = session.exec(select(*model.__table__.c)).mappings().all()
    return {(row["id"],): dict(row) for row in rows}


# --- the ways of writing --------------------------------------------------------------------------

names = count()


@dataclass
class Program:
    """The state that steps work with."""

    session: Session
    model: type[Any]
    number: int

    def new(self, **values: Any) -> Any:
        return self.model(name=f"n{next(names)}", stock=self.number, **values)

    def mappings(self, how_many: int) -> list[dict[str, Any]]:
        return [{"name": f"n{next(names)}", "stock": self.number} for _ in range(how_many)]

    @property
    def ids(self) -> list[int]:
        """The keys that the table has."""
        return list(self.session.exec(select(self.model.id).order_by(self.model.id)).scalars())

    @property
    def some(self) -> list[int]:
        """Keys of rows, and one that no row has."""
        return [*self.ids[: 1 + self.number % 5], 987_654]

    @property
    def one(self) -> int:
        """The key of a row if there is any."""
        ids = self.ids
        return ids[self.number % len(ids)] if ids else 987_654

    @property
    def query(self) -> QueryBuilder[Any]:
        """A query for some rows."""
        return QueryBuilder(self.session, self.model).where(stock__lte=self.number)


STEPS: dict[str, Callable[[Program], Any]] = {}


def step(function: Callable[[Program], Any]) -> Callable[[Program], Any]:
    """Make a function a way of writing that programs draw."""
    STEPS[function.__name__] = function
    return function


@step
def write_new(p: Program) -> None:
    write_row(p.new(), p.session, raise_on_error=False)


@step
def write_twice(p: Program) -> None:
    _, row = write_row(p.new(), p.session, raise_on_error=False)
    row.stock += 1
    write_row(row, p.session, raise_on_error=False)


@step
def write_refused(p: Program) -> None:
    row = p.new()
    twin = p.model(name=row.name)
    write_row(row, p.session, raise_on_error=False)
    assert write_row(twin, p.session, raise_on_error=False) == (False, None)


@step
def insert_some(p: Program) -> None:
    insert_data_rows([p.new(), p.new()], p.session, raise_on_error=False)


@step
def insert_many(p: Program) -> None:
    insert_data_rows([p.new() for _ in range(MANY)], p.session, raise_on_error=False)


@step
def insert_partly(p: Program) -> None:
    row = p.new()
    rows = [p.new(), row, p.model(name=row.name)]
    insert_data_rows(rows, p.session, raise_on_error=False)


@step
def get_or_create(p: Program) -> None:
    name = f"n{next(names)}"
    get_one_or_create(p.session, p.model, {"stock": p.number}, name=name)
    get_one_or_create(p.session, p.model, {"stock": 77}, name=name)


@step
def update_one(p: Program) -> None:
    update_row(p.one, {"stock": p.number}, p.session, p.model, raise_on_error=False)


@step
def update_one_held(p: Program) -> None:
    row = p.session.get(p.model, p.one)
    update_row(p.one, {"stock": p.number}, p.session, p.model, raise_on_error=False)
    assert row is None or row.stock is not None


@step
def delete_one(p: Program) -> None:
    delete_row(p.one, p.session, p.model, raise_on_error=False)


@step
def remove_one(p: Program) -> None:
    delete_row(p.one, p.session, p.model, soft=False, raise_on_error=False)


@step
def mark_and_restore(p: Program) -> None:
    if p.model is Guarded:
        soft_delete_row(p.one, p.session, p.model, raise_on_error=False)
        restore_row(p.one, p.session, p.model, raise_on_error=False)


@step
def purge(p: Program) -> None:
    if p.model is Guarded:
        delete_row(p.one, p.session, p.model, raise_on_error=False)
        purge_rows(p.session, p.model, older_than=timedelta(0))


@step
def bulk_insert(p: Program) -> None:
    bulk_insert_rows(p.mappings(3), p.session, p.model)


@step
def bulk_insert_many(p: Program) -> None:
    bulk_insert_rows(p.mappings(MANY), p.session, p.model)


@step
def bulk_insert_ignoring(p: Program) -> None:
    rows = p.mappings(2)
    bulk_insert_rows([*rows, rows[0]], p.session, p.model, on_conflict="ignore")


@step
def bulk_update(p: Program) -> None:
    bulk_update_rows(p.some, {"stock": p.number}, p.session, p.model)


@step
def bulk_delete(p: Program) -> None:
    delete_rows_within_id_list(p.some, p.session, p.model)


@step
def bulk_remove(p: Program) -> None:
    delete_rows_within_id_list(p.some, p.session, p.model, soft=False)


@step
def upsert(p: Program) -> None:
    rows = p.mappings(2)
    bulk_upsert_mappings(rows, p.session, p.model, ["name"])
    bulk_upsert_mappings([{**rows[0], "stock": 5}, *p.mappings(1)], p.session, p.model, ["name"])


@step
def upsert_many(p: Program) -> None:
    bulk_upsert_mappings(p.mappings(MANY), p.session, p.model, ["name"])


@step
def query_update(p: Program) -> None:
    p.query.update(stock=p.number)


@step
def query_update_by_sql(p: Program) -> None:
    p.query.update(stock=p.model.stock + 1)


@step
def query_delete(p: Program) -> None:
    p.query.delete()


@step
def query_remove(p: Program) -> None:
    p.query.delete(soft=False)


@step
def flush_new(p: Program) -> None:
    p.session.add_all([p.new(), p.new()])
    _end(p)


@step
def flush_changed(p: Program) -> None:
    row = p.session.get(p.model, p.one)
    if row is not None:
        row.stock += 1
    _end(p)


@step
def flush_deleted(p: Program) -> None:
    row = p.session.get(p.model, p.one)
    if row is not None:
        p.session.delete(row)
    _end(p)


@step
def orm_update(p: Program) -> None:
    p.session.exec(update(p.model).where(p.model.stock > 1).values(stock=p.number))
    _end(p)


@step
def orm_delete(p: Program) -> None:
    p.session.exec(delete(p.model).where(p.model.stock == p.number))
    _end(p)


@step
def core_insert(p: Program) -> None:
    p.session.exec(insert(p.model.__table__).values(p.mappings(2)))
    _end(p)


@step
def core_update(p: Program) -> None:
    table = p.model.__table__
    p.session.exec(update(table).where(table.c.stock > 1).values(stock=p.number))
    _end(p)


def _end(p: Program) -> None:
    if p.session.in_nested_transaction() or p.session.info.get("in a block"):
        p.session.flush()
    else:
        p.session.commit()


# --- the programs ---------------------------------------------------------------------------------

CALLERS_OWN = {"orm_update", "orm_delete", "core_insert", "core_update"}
Step = tuple[str, type[Any], int]
steps = st.tuples(st.sampled_from(sorted(STEPS)), st.sampled_from(MODELS), st.integers(0, 9))
blocks = st.tuples(
    st.sampled_from(["block", "savepoint", "failing block", "failing savepoint"]),
    st.lists(steps, min_size=1, max_size=4),
)


def run(session: Session, step: Step) -> None:
    name, model, number = step
    STEPS[name](Program(session, model, number))


class UndoneError(Exception):
    """An exception that undoes a block."""


def run_block(session: Session, how: str, steps: Sequence[Step]) -> None:
    """Run steps in a block, or in a savepoint in it; a failing one is undone."""

    def inner() -> None:
        for each in steps:
            run(session, each)
        if how.startswith("failing"):
            raise UndoneError

    session.info["in a block"] = True
    try:
        with suppress(UndoneError), transaction(session, wrap_errors=False):
            if "savepoint" not in how:
                inner()
                return
            with suppress(UndoneError), transaction(session, wrap_errors=False):
                inner()
    finally:
        session.info.pop("in a block")


@pytest.fixture(scope="module")
def engine(database: Database) -> Iterator[Engine]:
    """A plain engine."""
    made = create_engine(database.sync_url)
    prepare(made)
    yield made
    made.dispose()


@pytest.fixture
def replay(database: Database) -> Iterator[Replay]:
    """A subscriber that wants to know everything, on empty tables."""
    heard = Replay(Need.ROWS)
    events.subscribe(heard)
    yield heard
    events.unsubscribe(heard)
    database.clear()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", sorted(STEPS))
def test_each_way_tells_what_it_wrote(
    engine: Engine, replay: Replay, name: str, model: type[Any]
) -> None:
    """Replayed on a dict, the changes give the table; the library's writes report each row."""
    with Session(engine) as session:
        write_row(model(name="first", stock=2), session)
        write_row(model(name="second", stock=3), session)
        replay.compare(engine)
        run(session, (name, model, 4))
    assert not replay.unknown or name in CALLERS_OWN
    replay.compare(engine)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", sorted(STEPS))
def test_what_is_undone_is_not_told_as_committed(
    engine: Engine, replay: Replay, name: str, model: type[Any]
) -> None:
    """A savepoint that is rolled back takes its changes along, and so does a block."""
    with Session(engine) as session:
        write_row(model(name="first", stock=2), session)
        replay.compare(engine)
        run_block(session, "failing savepoint", [(name, model, 4)])
        assert not replay.unknown
        replay.compare(engine)
        run_block(session, "failing block", [(name, model, 4)])
    assert not replay.unknown
    replay.compare(engine)


def test_who_needs_the_keys_hears_them_beside_the_history(
    engine: Engine, database: Database
) -> None:
    """A set-based write that the database alone could record must then read the keys."""
    heard = Replay(Need.KEYS, {Pallet: {}})
    events.subscribe(heard)
    try:
        with Session(engine) as session:
            _, pallet = write_row(Pallet(name="a", stock=1), session, raise_on_error=True)
            key = pallet.id
            QueryBuilder(session, Pallet).where(stock=1).update(stock=2)
            assert [change.keys for change in heard.heard] == [[(key,)]] * 2
            assert len(get_change_history(key, session, Pallet)) == 2
    finally:
        events.unsubscribe(heard)
        database.clear()


@examples(60)
@given(program=st.lists(steps | blocks, max_size=8))
def test_the_changes_replayed_give_the_table(
    engine: Engine, database: Database, program: list[Any]
) -> None:
    """For any writes and rollbacks, the changes reported as committed match the tables."""
    replay = Replay(Need.ROWS)
    events.subscribe(replay)
    try:
        with Session(engine) as session:
            for each in program:
                if len(each) == 2:
                    run_block(session, *each)
                else:
                    run(session, each)
                replay.compare(engine)
    finally:
        events.unsubscribe(replay)
        database.clear()
