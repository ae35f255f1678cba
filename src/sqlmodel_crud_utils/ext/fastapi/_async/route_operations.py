"""The operations behind the routes of `crud_router`, in the transaction of the request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Signature
from typing import Any

from fastapi import HTTPException, Request, Response
from pydantic import BaseModel
from sqlalchemy import ColumnElement

from sqlmodel_crud_utils._async.inserts import insert_data_rows
from sqlmodel_crud_utils._async.query_builder import AsyncQueryBuilder
from sqlmodel_crud_utils._async.repository import AsyncRepository
from sqlmodel_crud_utils._async.soft_deletes import restore_row
from sqlmodel_crud_utils._async.writes import delete_row, update_row
from sqlmodel_crud_utils._core.queries.keys import among_keys
from sqlmodel_crud_utils._runtime_async import dialect_of, require_session
from sqlmodel_crud_utils.ext.fastapi.filters import FilterParams
from sqlmodel_crud_utils.ext.fastapi.resources import (
    Resource,
    Restriction,
    changes_of,
    is_among,
    outside,
    page_links,
    tags_sent,
    values_of,
)

Key = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Operations:
    """The operations on the rows of one model; `endpoint` makes a route of each."""

    resource: Resource

    async def list(
        self,
        request: Request,
        response: Response,
        session: Any,
        params: FilterParams,
        restriction: Restriction = None,
    ) -> Any:
        """Return one page of the rows that the filters let through."""
        query = self._shown(self._within(session, restriction))
        if params.page is None:
            page: Any = await params.keyset(query)
        else:
            page = await params.paginate(query)
        if links := page_links(request, page):
            response.headers["Link"] = links
        return page

    async def get(
        self,
        request: Request,
        response: Response,
        session: Any,
        key: Key,
        restriction: Restriction = None,
    ) -> Any:
        """Return one row, or only that it has not changed."""
        row = await self._shown(self._within(session, restriction)).where(**key).one()
        tag, known = self._tag(response, row), tags_sent(request, "if-none-match")
        if tag and known is not None and is_among(tag, known, weakly=True):
            return Response(status_code=304, headers={"ETag": tag})
        return row

    async def create(
        self,
        request: Request,
        response: Response,
        session: Any,
        data: BaseModel,
        restriction: Restriction = None,
    ) -> Any:
        """Create a row."""
        rows = AsyncRepository(session, self.resource.model)
        row = await rows.create(**values_of(self.resource.facts, data, restriction))
        await self._refuse_outside(session, row, data, restriction)
        row = await self._read_again(session, row)
        response.headers["Location"] = self.resource.where_it_is(request, row)
        self._tag(response, row)
        return row

    async def update(
        self,
        request: Request,
        response: Response,
        session: Any,
        data: BaseModel,
        key: Key,
        restriction: Restriction = None,
    ) -> Any:
        """Change the fields that are sent, and no others."""
        version = await self._check(request, session, key, restriction)
        model, names = self.resource.model, self.resource.facts.key
        _, row = await update_row(
            tuple(key.values()),
            changes_of(data),
            session,
            model,
            names,
            raise_on_error=True,
            expected_version=version,
        )
        await self._refuse_outside(session, row, data, restriction)
        row = await self._read_again(session, row)
        self._tag(response, row)
        return row

    async def delete(
        self, request: Request, session: Any, key: Key, restriction: Restriction = None
    ) -> None:
        """Delete a row; it can be restored where it is only marked."""
        version = await self._check(request, session, key, restriction)
        model, names = self.resource.model, self.resource.facts.key
        await delete_row(
            tuple(key.values()),
            session,
            model,
            names,
            raise_on_error=True,
            expected_version=version,
        )

    async def restore(
        self, response: Response, session: Any, key: Key, restriction: Restriction = None
    ) -> Any:
        """Bring a deleted row back."""
        if restriction is not None:
            await self._within(session, restriction).only_deleted().where(**key).one()
        model, names = self.resource.model, self.resource.facts.key
        _, row = await restore_row(tuple(key.values()), session, model, names, raise_on_error=True)
        row = await self._read_again(session, row)
        self._tag(response, row)
        return row

    async def bulk(self, session: Any, data: Any, restriction: Restriction = None) -> Any:
        """Create all rows of a list, or none."""
        model, facts = self.resource.model, self.resource.facts
        rows = [model(**values_of(facts, each, restriction)) for each in data]
        _, written = await insert_data_rows(rows, session, raise_on_error=True)
        if restriction is not None and not await self._are_within(session, written, restriction):
            for place, row in enumerate(written):
                await self._refuse_outside(session, row, data[place], restriction, place)
        if self.resource.shows_related:
            query = AsyncQueryBuilder(session, model).where(self._are(session, written))
            await self._shown(query).all()
        return written

    def _within(self, session: Any, restriction: Restriction) -> AsyncQueryBuilder[Any]:
        query = AsyncQueryBuilder(session, self.resource.model)
        if restriction is None:
            return query
        if isinstance(restriction, Mapping):
            return query.where(**restriction)
        return query.where(restriction)

    def _shown(self, query: AsyncQueryBuilder[Any]) -> AsyncQueryBuilder[Any]:
        return query.joined(*self.resource.to_one).selectin(*self.resource.to_many)

    async def _check(
        self, request: Request, session: Any, key: Key, restriction: Restriction
    ) -> int | None:
        """Refuse a write to a row that is not visible, or has changed since the client read it."""
        seen = tags_sent(request, "if-match") if self.resource.facts.version else None
        if seen is None and restriction is None:
            return None
        query = self._within(session, restriction).where(**key)
        row = await query.for_update().one()
        if seen is None:
            return None
        if self.resource.shows_related:
            row = await self._shown(query).one()
        if not is_among(self.resource.tag_of(row) or "", seen):
            raise HTTPException(412, "It has changed since it was read")
        version: int = getattr(row, self.resource.facts.version or "")
        return version

    async def _refuse_outside(
        self,
        session: Any,
        row: Any,
        data: BaseModel,
        restriction: Restriction,
        *place: int,
    ) -> None:
        """Refuse a written row that no longer matches the restriction."""
        if restriction is None:
            return
        within = self._within(session, restriction).where(**self._key(row))
        if not await within.exists():
            raise outside(self.resource.facts, restriction, data, place)

    async def _are_within(
        self, session: Any, rows: Sequence[Any], restriction: Restriction
    ) -> bool:
        """Return whether all rows match the restriction."""
        query = self._within(session, restriction).where(self._are(session, rows))
        return await query.count() == len(rows)

    def _are(self, session: Any, rows: Sequence[Any]) -> ColumnElement[bool]:
        """Return the criterion for these rows; a body's limit keeps their number low enough."""
        keys = [self.resource.key_of(row) for row in rows]
        dialect = dialect_of(require_session(session), self.resource.facts)
        return among_keys(self.resource.model, self.resource.facts.key, keys, dialect)

    async def _read_again(self, session: Any, row: Any) -> Any:
        if not self.resource.shows_related:
            return row
        query = self._shown(AsyncQueryBuilder(session, self.resource.model)).where(**self._key(row))
        # Read it as stored, because the tag is a hash of the response, and "1.5" may become "1.50".
        session.expire(row)
        return await query.one()

    def _key(self, row: Any) -> Key:
        names, values = self.resource.facts.key, self.resource.key_of(row)
        return {f"{name}__eq": value for name, value in zip(names, values, strict=True)}

    def _tag(self, response: Response, row: Any) -> str | None:
        tag = self.resource.tag_of(row)
        if tag is not None:
            response.headers["ETag"] = tag
        return tag


def endpoint(operation: Callable[..., Any], signature: Signature, keys: Mapping[str, str]) -> Any:
    """Return an operation as an endpoint for FastAPI.

    Args:
        operation: One of `Operations`.
        signature: The parameters that FastAPI passes.
        keys: The filters of the key, by the parameters that contain its values.
    """

    async def run(**given: Any) -> Any:
        key = {name: given.pop(parameter) for parameter, name in keys.items()}
        return await operation(**given, **({"key": key} if keys else {}))

    run.__name__ = operation.__name__  # for logs
    run.__signature__ = signature  # type: ignore[attr-defined]
    return run
