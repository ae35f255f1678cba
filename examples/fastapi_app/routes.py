"""The routes. None of them has to catch an error, or to commit."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, status
from sqlmodel.ext.asyncio.session import AsyncSession

from fastapi_app.database import ReadSession, WriteSession, acting_user
from fastapi_app.models import (
    Hero,
    HeroCreate,
    HeroPublic,
    HeroTag,
    HeroUpdate,
    Message,
    MessagePublic,
    Tag,
    Team,
    TeamCreate,
    TeamPublic,
)
from fastapi_app.outbox import tell
from sqlmodel_crud_utils.aio import (
    AsyncQueryBuilder,
    delete_row,
    get_one_or_create,
    get_row,
    restore_row,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.ext.fastapi import FilterParams, filter_params
from sqlmodel_crud_utils.pagination import CursorPage, Page

router = APIRouter(dependencies=[Depends(acting_user)])
teams = APIRouter(prefix="/teams", tags=["teams"])
heroes = APIRouter(prefix="/heroes", tags=["heroes"])
messages = APIRouter(prefix="/messages", tags=["messages"])

hero_params = filter_params(
    Hero,
    allow=[
        "name__icontains",
        "age__gte",
        "age__lte",
        "team__name",
        "team__is_null",
        "tags__label__in",
    ],
    sort=["name", "age", "created_at"],
)
team_params = filter_params(Team, allow=["name", "city"], sort=["name"], pages="number")


# --- Teams ---------------------------------------------------------------------------------------


@teams.post("", status_code=status.HTTP_201_CREATED, response_model=TeamPublic)
async def create_team(data: TeamCreate, session: WriteSession) -> Team:
    """Create a team; a name that is taken is answered with 409."""
    _, team = await write_row(Team.model_validate(data), session, raise_on_error=True)
    await tell(session, f"team {team.id} created")
    return team


@teams.get("", response_model=Page[TeamPublic])
async def list_teams(
    params: Annotated[FilterParams, Depends(team_params)], session: ReadSession
) -> Page[Team]:
    """List teams in pages with a total."""
    return await params.paginate(AsyncQueryBuilder(session, Team))


# --- Heroes --------------------------------------------------------------------------------------


def shown(session: AsyncSession) -> AsyncQueryBuilder[Hero]:
    """Return the query for heroes as they are shown: with their team and tags."""
    return AsyncQueryBuilder(session, Hero).joined("team").selectin("tags")


@heroes.get("", response_model=CursorPage[HeroPublic])
async def list_heroes(
    params: Annotated[FilterParams, Depends(hero_params)], session: ReadSession
) -> CursorPage[Hero]:
    """List heroes; the `next_cursor` of a page is the `after` of the next one."""
    return await params.keyset(shown(session))


@heroes.post("", status_code=status.HTTP_201_CREATED, response_model=HeroPublic)
async def create_hero(data: HeroCreate, session: WriteSession) -> Hero:
    """Create a hero; a missing team is answered with 409."""
    _, hero = await write_row(Hero.model_validate(data), session, raise_on_error=True)
    await tell(session, f"hero {hero.id} created")
    return await shown(session).where(id=hero.id).one()


@heroes.get("/{key}", response_model=HeroPublic)
async def read_hero(key: int, session: ReadSession) -> Hero:
    """Return one hero, or 404."""
    return await shown(session).where(id=key).one()


@heroes.patch("/{key}", response_model=HeroPublic)
async def update_hero(
    key: int,
    data: HeroUpdate,
    session: WriteSession,
    if_match: Annotated[int | None, Header(description="The version that was read.")] = None,
) -> Hero:
    """Change the fields that are sent, and no others.

    With `If-Match` a change that somebody else made meanwhile is not overwritten: that is 409.
    """
    await update_row(key, data, session, Hero, expected_version=if_match)
    await tell(session, f"hero {key} updated")
    return await shown(session).where(id=key).one()


@heroes.delete("/{key}", status_code=status.HTTP_204_NO_CONTENT)
async def delete_hero(key: int, session: WriteSession) -> None:
    """Delete a hero softly: nobody finds it, and it can be restored."""
    await delete_row(key, session, Hero)
    await tell(session, f"hero {key} deleted")


@heroes.post("/{key}/restore", response_model=HeroPublic)
async def restore_hero(key: int, session: WriteSession) -> Hero:
    """Bring a deleted hero back; if its name was taken meanwhile, that is 409."""
    await restore_row(key, session, Hero)
    await tell(session, f"hero {key} restored")
    return await shown(session).where(id=key).one()


@heroes.put("/{key}/tags/{label}", response_model=HeroPublic)
async def tag_hero(key: int, label: str, session: WriteSession) -> Hero:
    """Give a hero a tag, which is created if it is new; to do it twice changes nothing."""
    await get_row(key, session, Hero, raise_on_error=True)
    tag, _ = await get_one_or_create(session, Tag, label=label)
    _, existed = await get_one_or_create(session, HeroTag, hero_id=key, tag_id=tag.id)
    if not existed:
        await tell(session, f"hero {key} tagged {label}")
    return await shown(session).where(id=key).one()


# --- Messages ------------------------------------------------------------------------------------

message_params = filter_params(Message, allow=["sent"])


@messages.get("", response_model=CursorPage[MessagePublic])
async def list_messages(
    params: Annotated[FilterParams, Depends(message_params)], session: ReadSession
) -> CursorPage[Message]:
    """List what other services were told, or will be."""
    return await params.keyset(AsyncQueryBuilder(session, Message))


for part in (teams, heroes, messages):
    router.include_router(part)
