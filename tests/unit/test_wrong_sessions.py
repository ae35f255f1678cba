"""The errors for arguments that are not sessions."""

from __future__ import annotations

import inspect
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlmodel import Session as SQLModelSession, select

from sqlmodel_crud_utils import aio, sync
from sqlmodel_crud_utils.exceptions import ValidationError
from tests.models import Team

_NAMES = {"session", "session_inst"}
# What a function looks at before its session.
_OTHERS = {"query": select(Team), "older_than": timedelta(days=1)}


@pytest.mark.parametrize(
    "other", [AsyncSession(), async_scoped_session(async_sessionmaker(), scopefunc=int)]
)
def test_the_sync_api_names_aio(other: Any) -> None:
    """A session of the async API belongs there."""
    with pytest.raises(ValidationError, match=r"sync API takes a Session, not .*use .*utils\.aio"):
        sync.get_row(1, other, Team)


@pytest.mark.parametrize("other", [Session(), SQLModelSession(), scoped_session(sessionmaker())])
async def test_the_async_api_names_sync(other: Any) -> None:
    """A session of the sync API belongs there."""
    with pytest.raises(ValidationError, match=r"async API takes an AsyncSession, .*utils\.sync"):
        await aio.get_row(1, other, Team)


@pytest.mark.parametrize("api", [aio, sync], ids=["aio", "sync"])
async def test_every_function_shows_its_own_call(api: Any) -> None:
    """Classes and context managers, too."""
    names = [name for name in api.__all__ if _takes_session(getattr(api, name))]
    assert len(names) > 15
    for name in names:
        with pytest.raises(ValidationError, match=rf"must be .*, not float; call \w*{name}\("):
            await _called(getattr(api, name))


def _takes_session(function: Any) -> bool:
    is_ours = getattr(function, "__module__", "").startswith("sqlmodel_crud_utils.")
    is_dict = isinstance(function, type) and issubclass(function, dict)
    if not is_ours or is_dict:
        return False
    return not _NAMES.isdisjoint(inspect.signature(function).parameters)


async def _called(function: Any) -> None:
    given = {
        each.name: 1.5 if each.name in _NAMES else _OTHERS.get(each.name, Team)
        for each in inspect.signature(function).parameters.values()
        if each.default is each.empty and each.kind is not each.VAR_KEYWORD
    }
    made = function(**given)
    if hasattr(made, "__aenter__"):
        await made.__aenter__()
    elif hasattr(made, "__enter__"):
        made.__enter__()
    elif inspect.isawaitable(made):
        await made
