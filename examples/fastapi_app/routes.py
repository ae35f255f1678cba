"""The routes. None of them needs to catch errors or commit."""

from fastapi import APIRouter, Depends
from sqlmodel.ext.asyncio.session import AsyncSession

from fastapi_app.database import ReadSession, WriteSession, acting_user, reading, writing
from fastapi_app.models import (
    ChangePublic,
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
from sqlmodel_crud_utils.aio import AsyncQueryBuilder, Repository
from sqlmodel_crud_utils.ext.fastapi import crud_router, error_responses
from sqlmodel_crud_utils.ext.history.aio import ChangeHistory, get_change_history
from sqlmodel_crud_utils.hooks import register_hook

router = APIRouter(dependencies=[Depends(acting_user)])

teams = crud_router(
    Team,
    writing,
    reading=reading,
    public=TeamPublic,
    create=TeamCreate,
    operations=("list", "create"),
    filters=("name", "city"),
    sort=("name",),
    search=("name", "city"),
)
heroes = crud_router(
    Hero,
    writing,
    reading=reading,
    public=HeroPublic,
    create=HeroCreate,
    update=HeroUpdate,
    operations=("list", "get", "create", "update", "delete", "restore"),
    filters=("age__gte", "age__lte", "team__name", "team__is_null", "tags__label__in"),
    sort=("name", "age", "created_at", "team__name"),
    search=("name", "team__name"),
    pagination="cursor",
)
messages = crud_router(
    Message,
    reading,
    public=MessagePublic,
    operations=("list",),
    filters=("sent",),
    pagination="cursor",
)


@heroes.put("/{key}/tags/{label}", responses=error_responses(404))
async def tag_hero(key: int, label: str, session: WriteSession) -> HeroPublic:
    """Give a hero a tag, created if it is new; a second time changes nothing."""
    rows = Repository(session, Hero)
    await rows.get(key)
    tag, _ = await Repository(session, Tag).get_or_create(label=label)
    links = Repository(session, HeroTag)
    _, created = await links.get_or_create(hero_id=key, tag_id=tag.id)
    if created:
        await tell(session, f"hero {key} tagged {label}")
    shown = await rows.joined("team").selectin("tags").where(id=key).one()
    return HeroPublic.model_validate(shown)


@router.get("/tags", tags=["heroes"])
async def list_tags(session: ReadSession) -> list[str]:
    """Return all tags, from the cache until one is written."""
    return await AsyncQueryBuilder(session, Tag).order_by("label").cached().scalars("label")


@heroes.get("/{key}/history", response_model=list[ChangePublic])
async def read_history(key: int, session: WriteSession) -> list[ChangeHistory]:
    """Return the changes of a hero, oldest first; those of a deleted hero are kept."""
    return await get_change_history(key, session, Hero)


class Announced:
    """A hook that writes a message for each change, in its transaction."""

    async def after_create(self, instance: Team | Hero, session: AsyncSession) -> None:
        """Announce a new row."""
        await tell(session, f"{type(instance).__name__.lower()} {instance.id} created")

    async def after_update(self, instance: Hero, session: AsyncSession) -> None:
        """Announce a change, including a restored hero."""
        await tell(session, f"hero {instance.id} updated")

    async def after_delete(self, instance: Hero, session: AsyncSession) -> None:
        """Announce a deleted hero."""
        await tell(session, f"hero {instance.id} deleted")


register_hook(Team, Announced())
register_hook(Hero, Announced())

for name, part in (("teams", teams), ("heroes", heroes), ("messages", messages)):
    router.include_router(part, prefix=f"/{name}", tags=[name])
