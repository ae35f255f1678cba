"""The rows that a flush is about to write, each with the version in which it was read."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Select, select
from sqlalchemy.orm import InstanceState, Session
from sqlalchemy.orm.attributes import instance_state

from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.values.versions import held_version, require_version, shown_key
from sqlmodel_crud_utils._session.state import forget, noted, state_of
from sqlmodel_crud_utils.exceptions import ConflictError


class Claim(NamedTuple):
    """A row that a flush is about to write, and the version in which it was read."""

    model: type[Any]
    identity: tuple[Any, ...]
    version: Any

    def current_version(self) -> Select[Any]:
        """Return the SELECT of the current version."""
        facts = facts_of(self.model)
        keys = zip(facts.mapper.primary_key, self.identity, strict=True)
        criteria = [column == key for column, key in keys]
        return select(facts.attributes[require_version(facts)]).where(*criteria)

    def conflict(self, found: Any = None) -> ConflictError:
        """Return the error for this row."""
        return ConflictError(self.model, shown_key(self.identity), self.version, found)


def claim(session: Session, row: Any) -> None:
    """Note a row that the current flush writes; if the flush fails, the row loses its version."""
    state = instance_state(row)
    version = held_version(facts_of(type(row)), row)
    _claims(session)[state] = Claim(type(row), state.identity or (), version)


def settle(session: Session, row: Any) -> None:
    """Note that the row was written."""
    _claims(session).pop(instance_state(row), None)


def take_claims(session: Session) -> list[Claim]:
    """Remove and return the rows that the last flush failed to write, whether or not to blame."""
    claims = noted(session).claims or {}
    forget(session, "claims")
    return list(claims.values())


def _claims(session: Session) -> dict[InstanceState[Any], Claim]:
    state = state_of(session)
    if state.claims is None:
        state.claims = {}
    return state.claims
