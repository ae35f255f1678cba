"""Find the row that made a flush fail because somebody else has changed it."""

from __future__ import annotations

from sqlalchemy.exc import SQLAlchemyError

from sqlmodel_crud_utils._async._running.settling import roll_back
from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.returned_rows import first_of
from sqlmodel_crud_utils._runtime_async import (
    AsyncSession,
    dialect_of,
    execute_writing,
    sync_session,
)
from sqlmodel_crud_utils._session.blocks import is_inside
from sqlmodel_crud_utils._session.claims import Claim, take_claims
from sqlmodel_crud_utils.exceptions import ConflictError

# If a flush had more rows, they are not looked up one by one.
_MOST_LOOKED_UP = 100


async def conflict_of(session: AsyncSession) -> ConflictError | None:
    """Return the error with the row's key and versions, or None if they are unknown.

    The current version is looked up if the session can still query, unlike inside a block whose
    transaction the failed flush has ended.
    """
    plain = sync_session(session)
    claims = take_claims(plain)
    if plain.is_active and len(claims) <= _MOST_LOOKED_UP:
        try:
            for claim in claims:
                found = await _current_version(session, claim)
                if found != claim.version:
                    return claim.conflict(found)
        except (SQLAlchemyError, OSError):
            # Report the conflict, not that the database became unreachable afterwards.
            await roll_back(session)
    return claims[0].conflict() if len(claims) == 1 else None


async def _current_version(session: AsyncSession, claim: Claim) -> object:
    statement = claim.current_version()
    features = features_of(dialect_of(session, facts_of(claim.model)))
    if features.keeps_snapshot and is_inside(sync_session(session)):
        # A plain SELECT would see the version as it was at the first query of the block.
        statement = statement.with_for_update(read=True)
    return first_of(await execute_writing(session, statement))
