"""Names in the store: of entries, and of the tokens by which writes invalidate them.

A token is a random text. An entry contains the tokens from before its rows were read; a write
replaces them, which invalidates the entry. Tokens are named after tables, regardless of the
database, so that a write need not know which reads there are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from secrets import token_hex
from typing import Any
from uuid import UUID

from sqlalchemy import FromClause, Integer
from sqlalchemy.orm import Mapper

from sqlmodel_crud_utils._core.memoizing import cached
from sqlmodel_crud_utils._core.models.facts import Facts, facts_of
from sqlmodel_crud_utils._core.queries.keys import Key
from sqlmodel_crud_utils._session.changes import Change, TableChange
from sqlmodel_crud_utils.ext.cache.stored_values import encoded

# Changed whenever the format of entries changes.
_VERSION = "scu1"

_MOST_KEYS = 100
"""The most rows of a model that a transaction names; more count as "some rows"."""


def new_token() -> bytes:
    """Return a token that was never used."""
    return token_hex(8).encode("ascii")


@cached
def table_token(table: str) -> str:
    """Return the name of the token that every write to a table renews."""
    return _name("t", table)


@cached
def some_token(table: str) -> str:
    """Return the name of the token that a write to unknown rows of a table renews."""
    return _name("s", table)


def row_token(table: str, key: str) -> str:
    """Return the name of the token of one row."""
    return _name("r", table, key)


def entry_name(*parts: str) -> str:
    """Return the name of an entry."""
    return _name("e", *parts)


def _name(kind: str, *parts: str) -> str:
    # Hashed, because memcached's keys have at most 250 bytes and no spaces. No part contains NUL.
    text = "\0".join(parts).encode()
    return f"{_VERSION}:{kind}:{hashlib.blake2b(text, digest_size=16).hexdigest()}"


# --- rows ----------------------------------------------------------------------------------------


@cached
def home_of(facts: Facts) -> str:
    """Return the table that defines the primary key of a model's rows."""
    return str(facts.mapper.base_mapper.local_table)


def key_text(facts: Facts, key: Sequence[Any]) -> str | None:
    """Return a primary key as a text that is equal for equal keys, or None if that is unknown.

    Databases may treat texts that differ in case as equal.
    """
    if not facts.has_exact_key:
        return None
    try:
        parts = [
            str(int(value)) if isinstance(column.type, Integer) else str(UUID(str(value)))
            for column, value in zip(facts.mapper.primary_key, key, strict=True)
        ]
    except (TypeError, ValueError):
        return None
    return ",".join(parts)


@cached
def tables_of(mapper: Mapper[Any]) -> frozenset[str]:
    """Return the tables of a model's rows, including those of its subclasses."""
    return frozenset(str(table) for each in mapper.self_and_descendants for table in each.tables)


# --- writes --------------------------------------------------------------------------------------


def written_tokens(changes: Iterable[Change | TableChange]) -> list[str]:
    """Return the names of the tokens that a transaction renews."""
    rows: dict[str, set[str] | None] = {}
    tables: set[str] = set()
    for change in changes:
        if isinstance(change, TableChange):
            tables |= _name_of_table(change.table)
            continue
        facts = facts_of(change.model)
        tables |= {str(table) for table in facts.mapper.tables}
        home = home_of(facts)
        rows[home] = _more(rows.get(home, set()), _keys_of(facts, change))
    names = [table_token(table) for table in tables]
    for home, keys in rows.items():
        names += [some_token(home)] if keys is None else [row_token(home, key) for key in keys]
    # A table that was only reported as a link table may have a model as well.
    return [*names, *(some_token(table) for table in tables - rows.keys())]


def _name_of_table(table: FromClause | None) -> set[str]:
    return set() if table is None else {str(table)}


def _more(known: set[str] | None, keys: set[str] | None) -> set[str] | None:
    found = None if known is None or keys is None else known | keys
    return None if found is not None and len(found) > _MOST_KEYS else found


def _keys_of(facts: Facts, change: Change) -> set[str] | None:
    if change.keys is None or len(change.keys) > _MOST_KEYS:
        return None
    keys = {key_text(facts, key) for key in (*change.keys, *_keys_after(facts, change))}
    return None if None in keys else {key for key in keys if key is not None}


def _keys_after(facts: Facts, change: Change) -> Iterable[Key]:
    """Yield the new keys of rows whose keys a write changes."""
    if change.values is None or change.keys is None:
        return
    for key, values in zip(change.keys, change.values, strict=True):
        if not values.keys().isdisjoint(facts.key):
            yield tuple(values.get(name, old) for name, old in zip(facts.key, key, strict=True))


def model_tokens(facts: Facts, key: Sequence[Any] | None) -> list[str]:
    """Return the names of the tokens of all rows of a model, or of one row and all lists."""
    keys = None if key is None else [tuple(key)]
    return written_tokens([Change(facts.model, "update", keys)])


# --- questions -----------------------------------------------------------------------------------


@cached
def fingerprint(model: type[Any]) -> str:
    """Return a hash of the columns and relationships of a model and of the models it reaches."""
    found = [
        (
            mapper.class_.__qualname__,
            str(mapper.persist_selectable),
            [
                (name, _described(column))
                for name, column in facts_of(mapper.class_).columns.items()
            ],
            sorted((each.key, str(each.lazy)) for each in mapper.relationships),
        )
        for mapper in facts_of(model).reachable()
    ]
    return hashlib.blake2b(repr(sorted(found)).encode(), digest_size=8).hexdigest()


def _described(column: Any) -> str:
    kind = type(column.type)
    return f"{kind.__module__}.{kind.__qualname__} {column.type!r}"


def parameters_text(parameters: Mapping[str, Any]) -> str:
    """Return a statement's parameters as a text that is equal for equal values.

    Raises:
        UncacheableError: A value's type has no such text.
    """
    return _write_parameters(parameters)


def _parameter(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return ["set", *sorted(map(repr, value))]
    return encoded(value)


# `json.dumps` would create an encoder on each call.
_write_parameters = json.JSONEncoder(default=_parameter).encode
