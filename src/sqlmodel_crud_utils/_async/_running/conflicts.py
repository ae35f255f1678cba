"""Which row a flush found changed by somebody else."""

from __future__ import annotations

from sqlalchemy.exc import SQLAlchemyError

from sqlmodel_crud_utils._async._running.settling import roll_back
from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.rows import first_of
from sqlmodel_crud_utils._runtime_async import AsyncSession, dialect_of, execute, sync_session
from sqlmodel_crud_utils._session.blocks import is_inside
from sqlmodel_crud_utils._session.claims import Claim, take_claims
from sqlmodel_crud_utils.exceptions import ConflictError

# More rows in one flush are not looked up one by one.
_MOST_LOOKED_UP = 100


async def conflict_of(session: AsyncSession) -> ConflictError | None:
    """Return the error with the row's key and versions, None where they cannot be told.

    The current version is looked up where the session can still query: not inside a
    block whose transaction is over with the failed flush.
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
            # The conflict counts, not that the database went away after it.
            await roll_back(session)
    return claims[0].conflict() if len(claims) == 1 else None


async def _current_version(session: AsyncSession, claim: Claim) -> object:
    statement = claim.current_version()
    features = features_of(dialect_of(session, facts_of(claim.model)))
    if features.keeps_snapshot and is_inside(sync_session(session)):
        # A plain SELECT would see the version as it was at the first query of the block.
        statement = statement.with_for_update(read=True)
    return first_of(await execute(session, statement))
