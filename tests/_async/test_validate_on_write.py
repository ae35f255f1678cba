"""`ValidateOnWrite`: rows are validated before they are written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sqlmodel_crud_utils.aio import (
    get_one_or_create,
    get_row,
    get_rows,
    insert_data_rows,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import (
    ValidationError,
)
from sqlmodel_crud_utils.hooks import ValidateOnWrite, clear_hooks, registered_hook
from tests._async.hooking import block, inside_and_outside
from tests._runtime_async import AsyncSession
from tests.hook_models import (
    Gauge,
    Project,
)


@pytest.fixture(autouse=True)
def _no_leftovers() -> Iterator[None]:
    yield
    clear_hooks()


class TestValidateOnWrite:
    @pytest.fixture(autouse=True)
    def _registered(self) -> Iterator[None]:
        with registered_hook(Gauge, ValidateOnWrite()):
            yield

    @pytest.mark.parametrize(
        ("values", "field"),
        [
            ({"sensor": "x"}, "sensor"),
            ({"sensor": None}, "sensor"),
            ({}, "sensor"),
            ({"sensor": "two words"}, "sensor"),
            ({"sensor": "ok", "low": -1000}, "low"),
            ({"sensor": "ok", "highest": 1000}, "highest"),
            ({"sensor": "ok", "low": "\N{SNOWMAN}"}, "low"),
            ({"sensor": "ok", "low": 50, "highest": 40}, None),
        ],
    )
    @inside_and_outside
    async def test_a_new_row(
        self, session: AsyncSession, values: dict[str, Any], field: str | None, inside: bool
    ) -> None:
        """Types, limits, validators and required fields; the text says why, without the values."""
        async with block(session, inside):
            with pytest.raises(ValidationError) as caught:
                await write_row(Gauge(**values), session, raise_on_error=False)
        assert caught.value.field == field
        assert str(caught.value).startswith("Validation failed")
        assert not any(value in str(caught.value) for value in ("1000", "two words", "\N{SNOWMAN}"))
        assert await get_rows(session, Gauge) == (False, [])

    async def test_several_reasons(self, session: AsyncSession) -> None:
        """The error names all reasons."""
        with pytest.raises(ValidationError) as caught:
            await insert_data_rows([Gauge(sensor="ok"), Gauge(sensor="x", low=-1000)], session)
        assert [each["loc"] for each in caught.value.errors or ()] == [("sensor",), ("low",)]
        assert await get_rows(session, Gauge) == (False, [])

    async def test_good_rows(self, session: AsyncSession) -> None:
        """They are written unchanged, with relationships and defaults."""
        project = Project(name="p")
        written, gauge = await write_row(Gauge(sensor="ok", project=project), session)
        assert written
        assert gauge is not None
        assert gauge.project_id is not None
        _, gauge = await get_one_or_create(session, Gauge, sensor="more", low=-5)
        assert len((await get_rows(session, Gauge))[1]) == 2

    @pytest.mark.parametrize(
        "data", [{"low": 60}, {"sensor": "x"}, {"high": 1000}, {"sensor": "two words"}]
    )
    @inside_and_outside
    async def test_an_update(
        self, session: AsyncSession, data: dict[str, Any], inside: bool
    ) -> None:
        """The row is validated as it would be afterwards, so that fields are seen together."""
        _, gauge = await write_row(Gauge(sensor="ok", low=1, highest=50), session)
        assert gauge is not None
        key = gauge.id
        async with block(session, inside):
            with pytest.raises(ValidationError):
                await update_row(key, data, session, Gauge, raise_on_error=False)
        _, gauge = await get_row(key, session, Gauge)
        assert gauge is not None
        assert (gauge.sensor, gauge.low) == ("ok", 1)

    async def test_a_good_update(self, session: AsyncSession) -> None:
        """Fields that are not among the data keep their values; relationships may be."""
        _, gauge = await write_row(Gauge(sensor="ok", low=-2), session)
        assert gauge is not None
        project = Project(name="p")
        data = {"low": -1, "project": project}
        updated, row = await update_row(gauge.id, data, session, Gauge)
        assert updated
        assert row is not None
        assert (row.sensor, row.low, row.project) == ("ok", -1, project)
        await session.refresh(project, ["gauges"])
        assert project.gauges == [row]
