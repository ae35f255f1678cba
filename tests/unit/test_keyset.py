"""The SQL for the rows after a row."""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects import mysql, postgresql, sqlite

from sqlmodel_crud_utils._core.queries.keyset import rows_after
from sqlmodel_crud_utils._core.queries.ordering import key_terms, term_of
from tests.models import Hero


def test_what_comes_after_a_row_is_told_term_by_term() -> None:
    """Nullable terms consider the place of NULLs; a key is compared directly."""

    def after(*terms: Any, values: list[Any], dialect: Any = mysql) -> str:
        order = key_terms(Hero, [term_of(Hero, term, desc=False) for term in terms])
        return " ".join(str(rows_after(order, values, dialect.dialect())).split())

    assert after("-name", values=["x", 5]) == (
        "hero.name <= :param_1 AND "
        "(hero.name < :param_2 OR hero.name = :param_3 AND hero.id > :param_4)"
    )
    for dialect in (sqlite, postgresql):
        row = after("name", values=["x", 5], dialect=dialect)
        assert row == "(hero.name, hero.id) > (:param_1, :param_2)"
        downwards = after("-name", "-id", values=["x", 5], dialect=dialect)
        assert downwards == "(hero.name, hero.id) < (:param_1, :param_2)"
        assert " OR " in after("-name", values=["x", 5], dialect=dialect)
        assert " OR " in after("age", values=[1, 5], dialect=dialect)
    assert "hero.age > :param_1 OR hero.age IS NULL OR hero.age = " in after("age", values=[1, 5])
    assert after("age", values=[None, 5]) == "hero.age IS NULL AND hero.id > :param_1"
    first = after(Hero.age.nulls_first(), values=[None, 5])
    assert first.startswith("hero.age IS NOT NULL OR hero.age IS NULL AND")
    assert "IS NULL" not in after(Hero.age.nulls_first(), values=[1, 5])
