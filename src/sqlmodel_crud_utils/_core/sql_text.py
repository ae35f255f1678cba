"""A statement as a text for logs: the SQL of its database, the parameters apart."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Dialect, Select


def readable(statement: Select[Any], dialect: Dialect) -> str:
    """Return the SQL of a statement, and below it a line for each of its parameters.

    Example:
        >>> from sqlalchemy.dialects import sqlite
        >>> print(readable(select(Team.id).where(Team.city == "Oslo"), sqlite.dialect()))
        SELECT team.id
        FROM team
        WHERE team.city = ?
        -- city_1 = 'Oslo'
    """
    compiled: Any = statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    parameters = compiled.construct_params(escape_names=False)
    names = compiled.positiontup if compiled.positional else list(parameters)
    lines = [line.rstrip() for line in str(compiled).splitlines()]
    shown = (f"{name} = {parameters[name]!r}".replace("\n", " ") for name in names)
    return "\n".join([*filter(None, lines), *(f"-- {line}" for line in shown)])
