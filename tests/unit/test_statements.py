"""Statements, payloads, loaders, rows and models, without a database."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import Select, create_engine, select
from sqlalchemy.orm import aliased

from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.models.policies import USUAL
from sqlmodel_crud_utils._core.queries.keys import (
    by_key,
    by_key_list,
    key_list,
    key_names,
    key_values,
)
from sqlmodel_crud_utils._core.queries.loading import loading_for
from sqlmodel_crud_utils._core.queries.query import Query
from sqlmodel_crud_utils._core.queries.select_statements import check_page, paginated
from sqlmodel_crud_utils._core.returned_rows import (
    RowList,
    expired_columns,
    states_of,
    with_related,
)
from sqlmodel_crud_utils._core.values.payload import changes_for, values_for, without_key
from sqlmodel_crud_utils._session.pending_rows import taking_back_keys
from sqlmodel_crud_utils.exceptions import UnknownFieldError, ValidationError
from tests.crud_models import Cabinet, Product, Ticket
from tests.models import Hero, Seat, Tag, Team

POSTGRESQL = create_engine("postgresql+psycopg://").dialect
SQLITE = create_engine("sqlite://").dialect


def test_the_statement_of_a_key_is_made_once() -> None:
    """It is the same object for each call, so that SQLAlchemy compiles it once."""
    assert by_key(Hero, ("id",), USUAL) is by_key(Hero, ("id",), USUAL)


def test_a_key_without_pk_field() -> None:
    """The column "id" if it exists; otherwise, and for tuples, the primary key."""
    assert key_names(facts_of(Hero), None, 1) == ("id",)
    assert key_names(facts_of(Seat), None, ("A", 1)) == ("row", "number")
    assert key_names(facts_of(Ticket), None, 1) == ("id",)
    assert key_names(facts_of(Ticket), None, ("A", 1)) == ("venue", "number")
    assert [column.key for column in facts_of(Seat).key_attributes] == ["row", "number"]


def test_keys_of_a_list_are_taken_once() -> None:
    """Each is coerced; a key with None belongs to no row."""
    assert key_list(facts_of(Hero), None, ["1", 1, None, 2.0]) == (("id",), [(1,), (2,)])
    assert key_list(facts_of(Seat), None, [("A", "1"), ("A", None)]) == (
        ("row", "number"),
        [("A", 1)],
    )
    assert key_list(facts_of(Hero), None, []) == (("id",), [])
    assert key_values(facts_of(Hero), ("id",), (1,)) == (1,)


def test_impossible_composite_keys_are_left_out_for_postgresql() -> None:
    """SQLite may hold them, regardless of the column's type."""
    keys = [("A", 1), ("A", 2**40)]
    counts = [
        len(by_key_list(Seat, ("row", "number"), keys, dialect).compile().params["param_1"])
        for dialect in (POSTGRESQL, SQLITE)
    ]
    assert counts == [1, 2]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (select(Hero), ["hero.id"]),
        (select(Hero).order_by(Hero.age), ["hero.age", "hero.id"]),
        (select(Seat), ["seat.row", "seat.number"]),
        (select(Hero.name), ["hero.id"]),
        (select(Hero.name).distinct(), []),
        (select(Hero, Team), ["hero.id", "team.id"]),
        (select(aliased(Hero, name="h")), ["h.id"]),
    ],
)
def test_pages_are_sorted_by_key_at_last(statement: Select[Any], expected: list[str]) -> None:
    """If the rows still have a key."""
    page = paginated(statement, 2, 10)
    assert isinstance(page, Select)
    assert [str(term) for term in page._order_by_clauses] == expected


def test_one_row_is_enough_to_tell_whether_any_matches() -> None:
    """The database need not look for more."""
    assert str(Query(Hero, SQLITE).first_key()).endswith("LIMIT :param_1")


def test_pages_of_the_largest_numbers() -> None:
    """Up to what a database can count."""
    check_page(1, 2**63 - 1)
    with pytest.raises(ValidationError):
        check_page(2, 2**63 - 1)


def test_changes_are_checked_and_coerced() -> None:
    """All of them before the first is written."""
    assert changes_for(facts_of(Product), {"stock": "5", "shelf": "1"}) == {"stock": 5, "shelf": 1}
    assert changes_for(facts_of(Hero), Hero(name="x")) == {"name": "x"}
    assert values_for(facts_of(Hero), {"age": "5"}) == {"age": 5}
    with pytest.raises(UnknownFieldError) as raised:
        changes_for(facts_of(Hero), {"nope": 1})
    assert {"team", "age"} <= set(raised.value.choices)
    with pytest.raises(ValidationError, match="less than or equal to 1000"):
        changes_for(facts_of(Product), {"stock": 1001})


def test_relationships_take_rows_of_their_model() -> None:
    """A row, a list of rows, or None if it is optional."""
    team, tag = Team(name="t"), Tag(label="x")
    assert values_for(facts_of(Hero), {"team": team, "tags": [tag]}) == {
        "team": team,
        "tags": [tag],
    }
    for wrong in ({"team": tag}, {"tags": tag}, {"tags": [team]}, {"tags": "x"}):
        with pytest.raises(ValidationError, match="takes a"):
            values_for(facts_of(Hero), wrong)


def test_the_own_key_is_no_change() -> None:
    """Another one is refused."""
    hero = Hero(id=5, name="x", secret_name="?")
    assert without_key(facts_of(Hero), hero, {"id": 5, "age": 1}) == {"age": 1}
    with pytest.raises(ValidationError, match="cannot be changed"):
        without_key(facts_of(Hero), hero, {"id": 6})


def test_loader_options_follow_paths() -> None:
    """With dots or underscores; names without their flag are nothing."""
    for path in ("team.heroes", "team__heroes"):
        heroes, _team = loading_for(Hero, True, path, False, None).options()
        assert "heroes" in str(heroes.path)
    assert loading_for(Hero, False, "team", False, "team").options() == []
    assert len(loading_for(Hero, True, ["team", "tags"], True, "tags").options()) == 2
    with pytest.raises(UnknownFieldError, match="Team has no relationship 'city'"):
        loading_for(Hero, True, "team.city", False, None).options()


def test_keys_are_taken_back_from_new_rows() -> None:
    """Also from those that come along through relationships; given keys stay."""
    team = Team(name="t")
    rows = [Hero(name="a", secret_name="?", team=team), Hero(id=5, name="b", secret_name="?")]
    with suppress(KeyError), taking_back_keys(rows):
        team.id, rows[0].id = 7, 8
        raise KeyError
    assert (team.id, rows[0].id, rows[1].id) == (None, None, 5)
    with taking_back_keys(rows):
        team.id = 7
    assert team.id == 7


def test_states_of_rows_and_values() -> None:
    """Plain values have none; related rows are found through what is loaded."""
    cabinet = Cabinet(label="c")
    assert len(states_of([cabinet, 5, None, "x"])) == 1
    team = Team(name="t")
    hero = Hero(name="a", secret_name="?", team=team)
    assert len(with_related(states_of([hero]))) == 2
    assert expired_columns(facts_of(Hero), states_of([hero])[0]) == []
    assert RowList([1]).all() == [1]


@pytest.mark.parametrize("model", [None, 5, "Hero", int, Hero(name="x", secret_name="?"), []])
def test_what_is_no_table_is_refused(model: Any) -> None:
    """Unhashable things too."""
    with pytest.raises(ValidationError, match="is not a table model"):
        facts_of(model)
