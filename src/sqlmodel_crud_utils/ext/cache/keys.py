"""Names in the store: of entries, and of the tokens by which writes end them.

A token is a random text. An entry holds the tokens that were there before its rows were read from
the database; a write puts new ones in their place, and with that the entry is over. Tokens belong
to tables, whatever database holds them, so that a write never has to know who reads.
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
from sqlmodel_crud_utils.ext.cache.values import encoded

# A change of what entries look like gives them other names.
_VERSION = "scu1"

_MOST_KEYS = 100
"""How many rows of a model a transaction names; more than these are "some rows"."""


def new_token() -> bytes:
    """Return a token that was never there."""
    return token_hex(8).encode("ascii")


@cached
def table_token(table: str) -> str:
    """Return the name of the token that every write to a table renews."""
    return _name("t", table)


@cached
def some_token(table: str) -> str:
    """Return the name of the token of all rows, renewed by a write that does not say which."""
    return _name("s", table)


def row_token(table: str, key: str) -> str:
    """Return the name of the token of one row."""
    return _name("r", table, key)


def entry_name(*parts: str) -> str:
    """Return the name of an entry."""
    return _name("e", *parts)


def _name(kind: str, *parts: str) -> str:
    # Hashes, as keys of memcached have at most 250 bytes and no spaces.
    text = json.dumps(parts).encode()
    return f"{_VERSION}:{kind}:{hashlib.blake2b(text, digest_size=16).hexdigest()}"


# --- rows ----------------------------------------------------------------------------------------


def home_of(facts: Facts) -> str:
    """Return the table whose primary key the rows of a model have."""
    return str(facts.mapper.base_mapper.local_table)


def key_text(facts: Facts, key: Sequence[Any]) -> str | None:
    """Return a primary key as a text that is equal where keys are, None where nobody can tell.

    Databases may take texts for equal that differ in case.
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
    """Return the tables that hold the rows of a model, those of its heirs included."""
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
    # A table of which only links were told may belong to a model as well.
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
    """Return the keys that rows have after a write that changes them."""
    if change.values is None or change.keys is None:
        return
    for key, values in zip(change.keys, change.values, strict=True):
        if not values.keys().isdisjoint(facts.key):
            yield tuple(values.get(name, old) for name, old in zip(facts.key, key, strict=True))


def model_tokens(facts: Facts, key: Sequence[Any] | None) -> list[str]:
    """Return the names of the tokens of a model's rows, or of one row and all lists."""
    keys = None if key is None else [tuple(key)]
    return written_tokens([Change(facts.model, "update", keys)])


# --- questions -----------------------------------------------------------------------------------


@cached
def fingerprint(model: type[Any]) -> str:
    """Return what tells the columns and relationships of a model, and of those around it."""
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
    """Return the parameters of a statement as a text that is equal for equal values.

    Raises:
        UncacheableError: A value of a type that has no such text.
    """
    return _write_parameters(parameters)


def _parameter(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return ["set", *sorted(map(repr, value))]
    return encoded(value)


# `json.dumps` would make an encoder for each call.
_write_parameters = json.JSONEncoder(default=_parameter).encode
