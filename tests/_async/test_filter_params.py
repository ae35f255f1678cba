"""Query strings of clients, on real tables."""

from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI

from sqlmodel_crud_utils.aio import (
    AsyncQueryBuilder,
    create_pooled_engine,
    get_rows,
    insert_data_rows,
)
from sqlmodel_crud_utils.exceptions import ValidationError
from sqlmodel_crud_utils.ext.fastapi import (
    FilterParams,
    filter_params,
    install_error_handlers,
    session_dependency,
)
from sqlmodel_crud_utils.pagination import CursorPage, Page
from tests._runtime_async import AsyncSession
from tests.databases import Database
from tests.models import AllTypes, Hero, Team
from tests.servers import served

COLUMNS = [name for name in AllTypes.model_fields if name not in {"blob", "payload"}]
RUBBISH = [
    "",
    " ",
    "0",
    "-1",
    "1.5",
    "99999999999",
    "9223372036854775807",
    "9223372036854775808",
    "1e400",
    "nan",
    "infinity",
    "%00",
    "%ff%fe",
    "%F0%9F%A6%B8",
    "'; DROP TABLE hero; --",
    "%25%5f%5c",
    "null",
    "true",
    "red",
    "RED",
    "0001-01-01",
    "9999-12-31T23:59:59.999999",
    "2026-02-30",
    "24:00:00",
    "P9999999D",
    "00000000-0000-0000-0000-000000000000",
    "1,2",
    '"',
    ",",
]


async def some_heroes(session: AsyncSession) -> None:
    """Five heroes, three of them in a team."""
    team = Team(name="Preventers", city="Oslo")
    heroes = [
        Hero(name=f"Hero {n}", secret_name="?", age=30 + n, team=team if n < 3 else None)
        for n in range(5)
    ]
    await insert_data_rows(heroes, session, raise_on_error=True)


async def test_pages_by_cursor_are_laid_end_to_end(session: AsyncSession) -> None:
    """Each page has what the filters and the order say, up to the last one."""
    await some_heroes(session)
    found: list[str] = []
    after = None
    while True:
        params = FilterParams({"age__gte": 31}, ("-age",), size=2, max_size=2, after=after)
        page = await params.keyset(AsyncQueryBuilder(session, Hero))
        found += [hero.name for hero in page.items]
        after = page.next_cursor
        if after is None:
            break
    assert found == ["Hero 4", "Hero 3", "Hero 2", "Hero 1"]


async def test_a_page_by_number_has_a_total(session: AsyncSession) -> None:
    """The size may be as large as the route allows, beyond what the query builder allows alone."""
    await some_heroes(session)
    params = FilterParams({"team__city": "Oslo"}, ("name",), size=2000, max_size=2000, page=1)
    page = await params.paginate(AsyncQueryBuilder(session, Hero))
    assert (page.total, [hero.name for hero in page.items]) == (3, ["Hero 0", "Hero 1", "Hero 2"])


async def test_get_rows_takes_the_filters_too(session: AsyncSession) -> None:
    """The filters are those of every function of the library."""
    await some_heroes(session)
    params = FilterParams({"age__in": [30, 34]}, (), size=50, max_size=100)
    _, rows = await get_rows(session, Hero, **params.filters)
    assert {hero.age for hero in rows} == {30, 34}


async def test_a_damaged_cursor_is_a_mistake_of_the_client(session: AsyncSession) -> None:
    """It is found out when the page is asked for."""
    params = FilterParams({}, (), size=50, max_size=100, after="abc")
    with pytest.raises(ValidationError, match="cursor"):
        await params.keyset(AsyncQueryBuilder(session, Hero))


def test_no_query_string_is_an_error_of_the_server(database: Database) -> None:
    """For any text and any type of column, the response is rows or 422."""
    engine = create_pooled_engine(database.async_url)
    app = FastAPI()
    install_error_handlers(app)
    names = [f"{column}__{lookup}" for column in COLUMNS for lookup in ("gte", "ne", "in")]
    names += [f"text__{lookup}" for lookup in ("like", "icontains", "istartswith", "iexact")]
    of_types = filter_params(AllTypes, allow=names, sort=["id", "text"], pages="number")
    of_heroes = filter_params(Hero, allow=["team__heroes__age__gte"], sort=["age"])
    request_session = Annotated[AsyncSession, Depends(session_dependency(engine))]

    @app.get("/types", response_model=Page[Any])
    async def list_types(
        params: Annotated[FilterParams, Depends(of_types)],
        session: request_session,  # type: ignore[valid-type]
    ) -> Page[AllTypes]:
        return await params.paginate(AsyncQueryBuilder(session, AllTypes))

    @app.get("/heroes", response_model=CursorPage[Any])
    async def list_heroes(
        params: Annotated[FilterParams, Depends(of_heroes)],
        session: request_session,  # type: ignore[valid-type]
    ) -> CursorPage[Hero]:
        return await params.keyset(AsyncQueryBuilder(session, Hero))

    statuses: dict[str, int] = {}
    with served(app, engine) as client:
        for rubbish in RUBBISH:
            refused = client.get("/types?" + "&".join(f"{name}={rubbish}" for name in names))
            # An empty parameter is as good as none.
            assert refused.status_code == (422 if rubbish else 200)
            wrong = {each["loc"][1] for each in refused.json().get("detail", [])}
            query = "&".join(f"{name}={rubbish}" for name in names if name not in wrong)
            statuses[query] = client.get(f"/types?{query}").status_code
        for query in ("page=1000000000", "sort=-id,text&page=2", "size=0", "page=0", "nothing=1"):
            statuses[query] = client.get(f"/types?{query}").status_code
        for query in ("after=", "after=%00", "after=WzFd", "team__heroes__age__gte=9", "sort=,"):
            statuses[query] = client.get(f"/heroes?{query}").status_code
    assert {url: status for url, status in statuses.items() if status not in {200, 422}} == {}
    assert set(statuses.values()) == {200, 422}
