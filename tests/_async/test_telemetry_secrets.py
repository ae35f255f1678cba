"""Nothing that telemetry exports holds a value: not of a row, a key, a filter, an error, a URL."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from itertools import chain
from typing import Any

import pytest
from sqlalchemy import literal, select, text

from sqlmodel_crud_utils import aio
from sqlmodel_crud_utils.aio import (
    AsyncQueryBuilder,
    AsyncRepository,
    bulk_insert_rows,
    bulk_update_rows,
    bulk_upsert_mappings,
    create_pooled_engine,
    delete_row,
    delete_rows_within_id_list,
    get_one_or_create,
    get_result_from_query,
    get_row,
    get_rows,
    get_rows_within_id_list,
    insert_data_rows,
    invalidate_cache,
    on_commit,
    purge_rows,
    restore_row,
    run_transaction,
    session_factory,
    soft_delete_row,
    strict_loading,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.ext.history import aio as history
from sqlmodel_crud_utils.ext.history.aio import get_change_history, purge_change_history
from sqlmodel_crud_utils.hooks import registered_hook
from tests._runtime_async import AsyncEngine, AsyncSession
from tests.history_models import Pallet
from tests.hook_models import hook_of
from tests.telemetry import Exported, exported
from tests.telemetry_models import Strongroom

SECRET = "canary"
NUMBER = 73_317_331
CODE, OWNER, OTHER = f"{SECRET}-code", f"{SECRET}-owner", f"{SECRET}-other"
KEPT = NUMBER  # the key of a row whose changes are kept
VALUES = {"owner": f"{SECRET}-new", "size": NUMBER}
BROKEN: list[dict[str, Any]] = [{"owner": OTHER}, {"parent": f"{SECRET}-parent"}, {"size": -NUMBER}]


def _room(code: str = f"{SECRET}-3", **values: Any) -> Strongroom:
    return Strongroom(code=code, **{"owner": code, "size": NUMBER, **values})


def _given(code: str = f"{SECRET}-4", **values: Any) -> dict[str, Any]:
    return {"code": code, "owner": code, "size": NUMBER, "parent": None, **values}


def _query(session: AsyncSession) -> AsyncQueryBuilder[Strongroom]:
    return AsyncQueryBuilder(session, Strongroom).where(
        Strongroom.size > literal(-NUMBER), owner__like=SECRET
    )


async def _in_block(session: AsyncSession) -> None:
    async with transaction(session):
        await write_row(_room(), session)
        raise ValueError(SECRET)


async def _on_commit(session: AsyncSession) -> None:
    def fail() -> None:
        raise ValueError(SECRET)

    async with transaction(session):
        on_commit(session, fail)


async def _again(session: AsyncSession) -> None:
    async def work(other: AsyncSession) -> None:
        await write_row(_room(owner=OTHER), other, raise_on_error=True)

    await run_transaction(lambda: AsyncSession(session.bind), work)


async def _connecting(_session: AsyncSession) -> None:
    url = f"postgresql://{SECRET}:{SECRET}@127.0.0.1:1/{SECRET}"
    engine = create_pooled_engine(url, pool_timeout=1)
    try:
        async with session_factory(engine)() as session:
            await get_row(CODE, session, Strongroom)
    finally:
        await engine.dispose()


async def _read(stream: Any) -> None:
    async for _ in stream:
        pass


# For each function, and for each method: calls of it that hold a secret in all that they are given.
CALLS: dict[str, list[Callable[[AsyncSession], Any]]] = {
    "bulk_insert_rows": [
        lambda s: bulk_insert_rows([_given()], s, Strongroom),
        *(lambda s, b=b: bulk_insert_rows([_given(**b)], s, Strongroom) for b in BROKEN),
    ],
    "bulk_update_rows": [
        lambda s: bulk_update_rows([CODE, OTHER], {"size": NUMBER}, s, Strongroom),
        *(lambda s, b=b: bulk_update_rows([CODE], b, s, Strongroom) for b in BROKEN),
    ],
    "bulk_upsert_mappings": [
        lambda s: bulk_upsert_mappings([_given()], s, Strongroom),
        *(lambda s, b=b: bulk_upsert_mappings([_given(**b)], s, Strongroom) for b in BROKEN),
    ],
    "create_pooled_engine": [_connecting],
    "delete_row": [
        lambda s: delete_row(CODE, s, Strongroom),
        lambda s: delete_row(OTHER, s, Strongroom, soft=False, raise_on_error=True),
        lambda s: delete_row(f"{SECRET}-9", s, Strongroom, raise_on_error=True),
    ],
    "delete_rows_within_id_list": [
        lambda s: delete_rows_within_id_list([CODE, SECRET], s, Strongroom),
        lambda s: delete_rows_within_id_list([OTHER], s, Strongroom, soft=False),
    ],
    "get_one_or_create": [
        lambda s: get_one_or_create(s, Strongroom, {"code": SECRET}, **VALUES),
        *(lambda s, b=b: get_one_or_create(s, Strongroom, {"code": SECRET}, **b) for b in BROKEN),
    ],
    "get_result_from_query": [
        lambda s: get_result_from_query(select(Strongroom).where(Strongroom.owner == SECRET), s),
        lambda s: get_result_from_query(text(f"SELECT '{SECRET}' FROM {SECRET}"), s),
        lambda s: get_result_from_query(text(f"SELECT '{SECRET}"), s),
    ],
    "get_row": [
        lambda s: get_row(CODE, s, Strongroom),
        lambda s: get_row(SECRET, s, Strongroom, raise_on_error=True),
        lambda s: get_row(SECRET, s, Strongroom, pk_field=SECRET),
    ],
    "get_rows": [
        lambda s: get_rows(s, Strongroom, owner__like=SECRET, size__gt=-NUMBER),
        lambda s: get_rows(s, Strongroom, owner__regex=f"({SECRET}"),
        lambda s: get_rows(s, Strongroom, size=SECRET),
    ],
    "get_rows_within_id_list": [lambda s: get_rows_within_id_list([CODE, SECRET], s, Strongroom)],
    "get_session": [],
    "insert_data_rows": [
        lambda s: insert_data_rows([_room(), _room(f"{SECRET}-5")], s),
        *(lambda s, b=b: insert_data_rows([_room(**b), _room("x")], s) for b in BROKEN),
    ],
    "invalidate_cache": [lambda _s: invalidate_cache(Strongroom, CODE)],
    "is_transient": [],
    "on_commit": [_on_commit],
    "pool_status": [],
    "purge_rows": [lambda s: purge_rows(s, Strongroom, older_than=timedelta(0))],
    "read_after": [],
    "replication_token": [],
    "restore_row": [
        lambda s: restore_row(CODE, s, Strongroom),
        lambda s: restore_row(SECRET, s, Strongroom, raise_on_error=True),
    ],
    "run_transaction": [_again],
    "session_factory": [],
    "soft_delete_row": [lambda s: soft_delete_row(CODE, s, Strongroom, deleted_by=SECRET)],
    "strict_loading": [lambda _s: strict_loading(False)],
    "transaction": [_in_block],
    "update_row": [
        lambda s: update_row(CODE, VALUES, s, Strongroom),
        *(lambda s, b=b: update_row(CODE, b, s, Strongroom, raise_on_error=True) for b in BROKEN),
        lambda s: update_row(CODE, {SECRET: SECRET}, s, Strongroom),
        lambda s: update_row(CODE, {"owner": SECRET * 50}, s, Strongroom),
    ],
    "use_primary": [],
    "write_row": [
        lambda s: write_row(_room(), s),
        lambda s: write_row(_room(CODE), s),
        *(lambda s, b=b: write_row(_room(**b), s, raise_on_error=True) for b in BROKEN),
        *(lambda s, b=b: write_row(_room(**b), s) for b in BROKEN),
    ],
}
METHODS: dict[str, list[Callable[[AsyncSession], Any]]] = {
    "all": [lambda s: _query(s).all()],
    "avg": [lambda s: _query(s).avg("size")],
    "count": [lambda s: _query(s).count()],
    "delete": [
        lambda s: _query(s).where(code=CODE).delete(),
        lambda s: _query(s).delete(soft=False),
    ],
    "exists": [lambda s: _query(s).exists()],
    "first": [lambda s: _query(s).first()],
    "keyset": [
        lambda s: _query(s).order_by("size").keyset(1),
        lambda s: _query(s).order_by("size").keyset(1, after=SECRET),
    ],
    "max": [lambda s: _query(s).max("owner")],
    "min": [lambda s: _query(s).min("owner")],
    "one": [lambda s: _query(s).one(), lambda s: _query(s).where(code=SECRET).one()],
    "one_or_none": [lambda s: _query(s).one_or_none()],
    "paginate": [lambda s: _query(s).paginate(1, 1)],
    "scalars": [lambda s: _query(s).scalars("owner")],
    "sql": [],
    "statement": [],
    "stream": [lambda s: _read(_query(s).stream(1))],
    "stream_values": [lambda s: _read(_query(s).stream_values("owner", batch_size=1))],
    "sum": [lambda s: _query(s).sum("size")],
    "update": [
        lambda s: _query(s).where(code=CODE).update(size=NUMBER),
        *(lambda s, b=b: _query(s).update(**b) for b in BROKEN),
    ],
    "values": [lambda s: _query(s).values("owner")],
}


def _repository(session: AsyncSession) -> AsyncRepository[Strongroom]:
    return AsyncRepository(session, Strongroom)


OF_REPOSITORIES: dict[str, list[Callable[[AsyncSession], Any]]] = {
    "all": [lambda s: _repository(s).all()],
    "any_of": [lambda s: _repository(s).any_of({"owner": SECRET}).all()],
    "count": [lambda s: _repository(s).count()],
    "create": [
        lambda s: _repository(s).create(_room()),
        *(lambda s, b=b: _repository(s).create(**_given(**b)) for b in BROKEN),
    ],
    "delete": [lambda s: _repository(s).delete(CODE), lambda s: _repository(s).delete(SECRET)],
    "delete_many": [lambda s: _repository(s).delete_many([CODE])],
    "exclude": [lambda s: _repository(s).exclude(owner=SECRET).all()],
    "get": [
        lambda s: _repository(s).get(CODE),
        lambda s: _repository(s).get(owner=SECRET),
    ],
    "get_many": [lambda s: _repository(s).get_many([CODE, SECRET])],
    "get_or_create": [lambda s: _repository(s).get_or_create({"code": SECRET}, owner=SECRET)],
    "get_or_none": [lambda s: _repository(s).get_or_none(SECRET)],
    "insert_many": [
        lambda s: _repository(s).insert_many([_given()]),
        *(lambda s, b=b: _repository(s).insert_many([_given(**b)]) for b in BROKEN),
    ],
    "joined": [],
    "keyset": [lambda s: _repository(s).keyset(1)],
    "only_deleted": [],
    "order_by": [],
    "paginate": [lambda s: _repository(s).paginate(1, 1)],
    "restore": [lambda s: _repository(s).restore(CODE)],
    "selectin": [],
    "update": [
        lambda s: _repository(s).update(CODE, VALUES),
        *(lambda s, b=b: _repository(s).update(CODE, b) for b in BROKEN),
    ],
    "update_many": [lambda s: _repository(s).update_many([CODE], {"size": NUMBER})],
    "update_or_create": [
        lambda s: _repository(s).update_or_create({"size": NUMBER}, owner=OWNER),
        *(lambda s, b=b: _repository(s).update_or_create(b, owner=OWNER) for b in BROKEN),
    ],
    "upsert_many": [lambda s: _repository(s).upsert_many([_given()])],
    "where": [lambda s: _repository(s).where(owner=SECRET).all()],
    "with_deleted": [],
}

OF_HISTORIES: dict[str, list[Callable[[AsyncSession], Any]]] = {
    "get_change_history": [
        lambda s: get_change_history(KEPT, s, Pallet),
        lambda s: get_change_history(SECRET, s, Pallet),
    ],
    "purge_change_history": [
        lambda s: purge_change_history(s, Pallet, older_than=timedelta(1)),
        lambda s: purge_change_history(s, Pallet, older_than=timedelta(-NUMBER)),
    ],
}

# All that may be exported for a call: the library's names, names of tables and classes, codes.
TOLD = {
    "code.function.name",
    "db.collection.name",
    "db.operation.batch.size",
    "db.response.returned_rows",
    "db.response.status_code",
    "error.type",
    "sqlmodel_crud.all_tenants",
    "sqlmodel_crud.attempts",
    "sqlmodel_crud.cache.result",
    "sqlmodel_crud.limits.refused",
    "sqlmodel_crud.rows_written",
    "sqlmodel_crud.transaction.outcome",
}


def _methods(cls: type[Any]) -> set[str]:
    return {
        name
        for name, each in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_")
    }


def test_nothing_is_forgotten() -> None:
    """Each public function and method has its place in the tables above."""
    assert set(CALLS) == {name for name in aio.__all__ if inspect.isfunction(getattr(aio, name))}
    read = {name for name in _methods(AsyncQueryBuilder) if _ends_a_query(name)}
    assert read == set(METHODS)
    assert _methods(AsyncRepository) == set(OF_REPOSITORIES)
    functions = {name for name in history.__all__ if inspect.isfunction(getattr(history, name))}
    assert functions == set(OF_HISTORIES)


def _ends_a_query(name: str) -> bool:
    """Return whether a method asks the database; others return a builder."""
    return inspect.signature(getattr(AsyncQueryBuilder, name)).return_annotation != "Self"


@pytest.fixture
def telemetry() -> Iterator[Exported]:
    """The exported telemetry."""
    with exported() as collected:
        yield collected


async def _called(engine: AsyncEngine) -> None:
    """Call everything, each with its own session, ignoring errors."""
    for calls in (CALLS, METHODS, OF_REPOSITORIES, OF_HISTORIES):
        for call in chain.from_iterable(calls.values()):
            async with AsyncSession(engine) as session:
                with suppress(Exception):
                    await call(session)


def _check(telemetry: Exported) -> None:
    told = telemetry.text()
    assert SECRET not in told
    assert str(NUMBER) not in told
    assert {name for span in telemetry.spans for name in span.attributes or {}} <= TOLD
    assert [span for span in telemetry.spans if span.events or span.status.description] == []
    named = {span.name.partition(" ")[2] for span in telemetry.spans}
    assert named == {"", "strongroom", "pallet"}


def _errors(telemetry: Exported) -> set[Any]:
    return {(span.attributes or {}).get("error.type") for span in telemetry.spans}


async def test_rows(session: AsyncSession, engine: AsyncEngine, telemetry: Exported) -> None:
    """Not of what is written, read, refused or not found."""
    session.add(Pallet(id=KEPT, name=SECRET, stock=NUMBER))
    session.add_all([_room(CODE, owner=OWNER), _room(OTHER)])
    await session.flush()
    session.add(_room(f"{SECRET}-child", parent=OTHER))
    await session.commit()
    await _called(engine)
    _check(telemetry)
    errors = _errors(telemetry)
    assert {"ConstraintViolationError", "TransactionError", "DatabaseConnectionError"} <= errors
    assert {"BulkOperationError", "QueryExecutionError"} <= errors


async def test_statements_that_fail(engine: AsyncEngine, telemetry: Exported) -> None:
    """Not of what the database says, where a table is missing."""
    await _called(engine.execution_options(schema_translate_map={None: f"{SECRET}_schema"}))
    _check(telemetry)
    assert "QueryExecutionError" in _errors(telemetry)


@pytest.mark.databases("sqlite")
async def test_hooks_that_fail(engine: AsyncEngine, telemetry: Exported) -> None:
    """Not of what the program itself raises."""

    def fail(*_: Any) -> None:
        raise ValueError(SECRET)

    names = ("before_create", "before_update", "before_delete")
    with registered_hook(Strongroom, hook_of(**dict.fromkeys(names, fail))):
        await _called(engine)
    _check(telemetry)
    assert "ValueError" in _errors(telemetry)
