"""Text criteria that mean the same on every database, case and accents included.

SQLite's LIKE and lower() handle the case of ASCII letters only, and its LIKE always ignores it. On
MySQL the column's collation decides whether LIKE ignores case and accents. So SQLite gets a GLOB
pattern, whose character classes name both cases of a letter, and MySQL a binary collation. Two
letters are the same but for their case when `str.lower()` makes one character of them.
"""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import ColumnElement, Dialect, String, cast, collate, func, literal
from sqlalchemy.orm import InstrumentedAttribute

from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.memoizing import cached

_Text = ColumnElement[Any] | InstrumentedAttribute[Any]

_ESCAPE = "/"  # Not a backslash: MySQL can be configured not to treat it as an escape.
_LIKE_SPECIAL = "([%_/])"
_GLOB_SPECIAL = "*?["
# Letters that lower() maps to the given ones, but that upper() does not map back to.
_FURTHER_CAPITALS = {
    "k": "\N{KELVIN SIGN}",
    "\N{LATIN SMALL LETTER A WITH RING ABOVE}": "\N{ANGSTROM SIGN}",
    "\N{LATIN SMALL LETTER SHARP S}": "\N{LATIN CAPITAL LETTER SHARP S}",
    "\N{GREEK SMALL LETTER OMEGA}": "\N{OHM SIGN}",
    "\N{GREEK SMALL LETTER THETA}": "\N{GREEK CAPITAL THETA SYMBOL}",
}


def text_criterion(
    column: _Text,
    text: str,
    dialect: Dialect,
    *,
    at_start: bool = False,
    at_end: bool = False,
    ignore_case: bool = False,
) -> ColumnElement[bool]:
    """Return the criterion that a column contains a text, taken literally.

    Args:
        column: The column or expression.
        text: The text.
        dialect: The dialect of the database that runs the statement.
        at_start: The column begins with the text.
        at_end: The column ends with the text; with `at_start` too, it is nothing but the text.
        ignore_case: Take capital and small letters as the same.
    """
    kind = features_of(dialect).text
    if kind == "GLOB":
        inner = "".join(map(_glob_class if ignore_case else _glob_escaped, text))
        return _glob(column, f"{'' if at_start else '*'}{inner}{'' if at_end else '*'}")
    if kind == "ILIKE" and at_start and at_end and ignore_case:
        # Written so that it can use an index on lower(column).
        return func.lower(column) == func.lower(literal(text, String()))
    inner = re.sub(_LIKE_SPECIAL, rf"{_ESCAPE}\1", text)
    pattern = f"{'' if at_start else '%'}{inner}{'' if at_end else '%'}"
    return _like(column, pattern, dialect, escape=_ESCAPE, ignore_case=ignore_case)


def like_ignoring_case(column: _Text, pattern: str, dialect: Dialect) -> ColumnElement[bool]:
    """Return the criterion of a LIKE pattern that ignores case."""
    if features_of(dialect).text == "GLOB":
        wildcards = {"%": "*", "_": "?"}
        return _glob(column, "".join(wildcards.get(c) or _glob_class(c) for c in pattern))
    return _like(column, pattern, dialect, escape=None, ignore_case=True)


def regex_criterion(column: _Text, pattern: str, dialect: Dialect) -> ColumnElement[bool]:
    """Return the criterion of a case-sensitive regular expression in the database's dialect."""
    bound = literal(pattern, String())
    if features_of(dialect).text == "BINARY":
        return column.regexp_match(_binary(_utf8(bound)))
    return column.regexp_match(bound)


def _like(
    column: _Text,
    pattern: str,
    dialect: Dialect,
    *,
    escape: str | None,
    ignore_case: bool,
) -> ColumnElement[bool]:
    bound = literal(pattern, String())
    if features_of(dialect).text != "BINARY":
        return (column.ilike if ignore_case else column.like)(bound, escape=escape)
    if ignore_case:
        return _binary(_lower(column)).like(_binary(_lower(bound)), escape=escape)
    return column.like(_binary(_utf8(bound)), escape=escape)


def _glob(column: _Text, pattern: str) -> ColumnElement[bool]:
    return column.bool_op("GLOB")(literal(pattern, String()))


def _glob_escaped(character: str) -> str:
    return f"[{character}]" if character in _GLOB_SPECIAL else character


@cached
def _glob_class(character: str) -> str:
    lower = character.lower()
    same = {lower, lower.upper(), lower.title(), _FURTHER_CAPITALS.get(lower, lower), character}
    # A capital that is written as two letters makes a different text, on every database.
    same = {other for other in same if len(other) == 1 and other.lower() == lower}
    return f"[{''.join(sorted(same))}]" if len(same) > 1 else _glob_escaped(character)


# These collations fail if the connection or the column uses another character set.
def _utf8(text: _Text) -> ColumnElement[str]:
    from sqlalchemy.dialects.mysql import CHAR  # slow to import

    return cast(text, CHAR(charset="utf8mb4"))


def _lower(text: _Text) -> ColumnElement[str]:
    # Of the collations in every MySQL and MariaDB, this one covers the most letters.
    return func.lower(collate(_utf8(text), "utf8mb4_unicode_520_ci"))


def _binary(text: _Text) -> ColumnElement[str]:
    return collate(text, "utf8mb4_bin")
