"""Names of entries for reads, and the format of entries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Dialect
from sqlalchemy.orm import Session

from sqlmodel_crud_utils._core.cached_reads import Question
from sqlmodel_crud_utils._core.models.facts import Facts, facts_of
from sqlmodel_crud_utils._core.values.current_tenant import current_tenant, in_scope
from sqlmodel_crud_utils.ext.cache.database_identity import database_of
from sqlmodel_crud_utils.ext.cache.outlines import (
    Outline,
    are_columns_cacheable,
    computes,
    loaded_tables,
    outline_of,
)
from sqlmodel_crud_utils.ext.cache.store_names import (
    entry_name,
    fingerprint,
    home_of,
    key_text,
    parameters_text,
    row_token,
    some_token,
    table_token,
    tables_of,
)
from sqlmodel_crud_utils.ext.cache.store_outages import Outages
from sqlmodel_crud_utils.ext.cache.stored_values import DamagedError, UncacheableError


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings that both APIs share.

    Attributes:
        ttl: For how many seconds an entry is kept by default.
        outages: The known failures of the store.
    """

    ttl: float
    outages: Outages = field(default_factory=Outages)

    def __post_init__(self) -> None:
        self.outages.keep_for(self.ttl)

    @property
    def token_ttl(self) -> float:
        """For how long a token is kept; a missing token invalidates entries early."""
        return max(86_400.0, 2 * self.ttl)


@dataclass(frozen=True, slots=True)
class Asked:
    """A lookup in the store.

    Attributes:
        question: The question.
        dialect: The dialect of its database.
        name: The name of its entry.
        tokens: The names of the tokens that its validity depends on.
        types: The types of the result's columns; None for a model.
    """

    question: Question
    dialect: Dialect
    name: str
    tokens: list[str]
    types: Sequence[Any]


def asked_of(session: Session, question: Question, dialect: Dialect) -> Asked | None:
    """Return the lookup for a question, or None if only the database can answer it."""
    outline = outline_of(question, dialect)
    if not outline.is_known or not are_columns_cacheable(question):
        return None
    try:
        parameters = parameters_text(outline.values(question.parameters))
    except (UncacheableError, TypeError, ValueError):
        return None
    facts = facts_of(question.model)
    name = entry_name(
        database_of(session, facts),
        repr(in_scope() if current_tenant() is None else current_tenant()),
        fingerprint(question.model),
        outline.digest,
        question.form,
        parameters,
        str([(list(map(str, path)), way) for path, way in question.loading]),
        str(sorted(question.visibility.lifted)),
    )
    return Asked(question, dialect, name, _tokens(question, facts, outline), outline.types)


def _tokens(question: Question, facts: Facts, outline: Outline) -> list[str]:
    related = loaded_tables(question)
    is_alone = question.key is not None and not computes(facts)
    key = key_text(facts, question.key or ()) if is_alone else None
    if key is None:
        return [table_token(table) for table in sorted(outline.tables | related)]
    home = home_of(facts)
    others = (outline.tables - tables_of(facts.mapper) - {home}) | related
    return [row_token(home, key), some_token(home), *map(table_token, sorted(others))]


# --- entries -------------------------------------------------------------------------------------


def made_entry(name: str, tokens: Sequence[bytes], answer: Any) -> bytes:
    """Return an entry: an answer, and the tokens from before its rows were read."""
    return json.dumps([name, [token.decode() for token in tokens], answer]).encode()


def entry_of(entry: bytes, name: str, tokens: Sequence[bytes | None]) -> Any:
    """Return the answer of an entry, or None if one of its tokens has changed.

    Raises:
        DamagedError: The bytes are not an entry.
    """
    try:
        own_name, found, answer = json.loads(entry.decode())  # quicker than from bytes
    except (RecursionError, TypeError, ValueError) as error:
        raise DamagedError from error
    if own_name != name:
        raise DamagedError
    now = [None if token is None else token.decode(errors="replace") for token in tokens]
    return answer if None not in now and found == now else None
