"""Mistakes of the caller: they always raise, name the thing, and execute nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel
from sqlmodel import SQLModel

from sqlmodel_crud_utils.aio import (
    bulk_insert_rows,
    bulk_update_rows,
    bulk_upsert_mappings,
    delete_row,
    delete_rows_within_id_list,
    get_one_or_create,
    get_row,
    get_rows,
    get_rows_within_id_list,
    insert_data_rows,
    purge_rows,
    restore_row,
    soft_delete_row,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import UnknownFieldError, ValidationError
from tests._runtime_async import AsyncEngine, AsyncSession
from tests.models import Document, Hero
from tests.recording import recorded


class NoTable(SQLModel):
    """A SQLModel that is not a table."""

    id: int = 1


class Plain(BaseModel):
    """No SQLModel at all."""


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"nmae": "x"}, "did you mean 'name'"),
        ({"name__lik": "x"}, "has no lookup 'lik'"),
        ({"team__nope": 1}, "Team has no field 'nope'"),
        ({"age": "old"}, "must be a 64-bit integer"),
        ({"age__in": "12"}, "'age'"),
        ({"age__between": [1]}, "'age'"),
        ({"age__is_null": "perhaps"}, "'age'"),
        ({"page": 0}, "page must be a whole number of 1 or more"),
        ({"page_size": -1}, "page_size must be a whole number of 1 or more"),
        ({"sort_field": "nmae"}, "did you mean 'name'"),
        ({"text_field": "nmae"}, "did you mean 'name'"),
        ({"selectin": True, "select_in_keys": ["nope"]}, "has no relationship 'nope'"),
        ({"stmnt": "SELECT 1"}, "must be a select"),
    ],
)
async def test_lists_refuse_mistakes(
    session: AsyncSession, engine: AsyncEngine, filters: dict[str, Any], expected: str
) -> None:
    """Regardless of the flag, and before anything is executed."""
    with recorded(engine) as words:
        for flag in (None, False, True):
            with pytest.raises(ValidationError, match=expected):
                await get_rows(session, Hero, raise_on_error=flag, **filters)
    assert words == []


@pytest.mark.parametrize("model", [NoTable, Plain, dict, "Hero", None, Hero(name="x")])
async def test_models_have_to_be_tables(
    session: AsyncSession, engine: AsyncEngine, model: Any
) -> None:
    """Every function refuses another thing, and says what would be right."""
    calls: list[Callable[[], Any]] = [
        lambda: get_row(1, session, model),
        lambda: get_rows(session, model),
        lambda: get_rows_within_id_list([1], session, model),
        lambda: update_row(1, {}, session, model),
        lambda: delete_row(1, session, model),
        lambda: get_one_or_create(session, model, id=1),
        lambda: bulk_upsert_mappings([{"id": 1}], session, model),
        lambda: bulk_insert_rows([{"id": 1}], session, model),
        lambda: bulk_update_rows([1], {"id": 1}, session, model),
        lambda: delete_rows_within_id_list([1], session, model),
        lambda: soft_delete_row(1, session, model),
        lambda: restore_row(1, session, model),
        lambda: purge_rows(session, model, older_than=timedelta(days=1)),
    ]
    with recorded(engine) as words:
        for call in calls:
            with pytest.raises(ValidationError, match="is not a table model"):
                await call()
    assert words == []


@pytest.mark.parametrize("row", [NoTable(), Plain(), {"id": 1}])
async def test_rows_have_to_be_of_tables(session: AsyncSession, row: Any) -> None:
    """Instances of other classes are refused."""
    with pytest.raises(ValidationError, match="a row must be an instance of a SQLModel class"):
        await write_row(row, session)
    with pytest.raises(ValidationError, match="a row must be an instance of a SQLModel class"):
        await insert_data_rows([row], session)


@pytest.mark.parametrize("values", [5, "age", [("age", 5)], Hero])
async def test_values_of_a_new_row_are_a_mapping(
    session: AsyncSession, engine: AsyncEngine, values: Any
) -> None:
    """It is refused before anything is searched for."""
    wrong = pytest.raises(ValidationError, match="are a mapping, not")
    with recorded(engine) as words, wrong as raised:
        await get_one_or_create(session, Hero, values, name="Rusty")
    assert words == []
    assert raised.value.field == "create_method_kwargs"


@pytest.mark.parametrize("flag", [None, False, True])
async def test_keys_have_to_fit_their_columns(
    session: AsyncSession, engine: AsyncEngine, flag: bool | None
) -> None:
    """A text that is not a number and no UUID; the value is not in the error's text."""
    with recorded(engine) as words:
        for model, key in ((Hero, "s3cret"), (Document, "s3cret"), (Hero, 2**64), (Hero, 1.5)):
            calls: list[Callable[[], Any]] = [
                lambda model=model, key=key: get_row(key, session, model, raise_on_error=flag),
                lambda model=model, key=key: update_row(
                    key, {}, session, model, raise_on_error=flag
                ),
                lambda model=model, key=key: delete_row(key, session, model, raise_on_error=flag),
            ]
            for call in calls:
                with pytest.raises(ValidationError) as raised:
                    await call()
                assert raised.value.field == "id"
                assert "s3cret" not in str(raised.value)
    assert words == []


async def test_unknown_fields_are_attribute_errors_too(session: AsyncSession) -> None:
    """v0.1.0's programs catch that."""
    with pytest.raises(AttributeError) as raised:
        await get_rows(session, Hero, nmae="x")
    assert isinstance(raised.value, UnknownFieldError)
    assert raised.value.choices[:2] == ("id", "name")
