"""Names of filters are parsed correctly, and errors say where a mistake is."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.dialects import sqlite
from sqlmodel import Field, SQLModel

from sqlmodel_crud_utils._core.filters.paths import Path, path_of, where_clauses
from sqlmodel_crud_utils._core.visibility.soft_delete import visibility_with
from sqlmodel_crud_utils.exceptions import UnknownFieldError, ValidationError
from tests.filter_models import Author, Folder
from tests.models import Hero, OddName, Team

DIALECT = sqlite.dialect(dbapi=sqlite3)


class Odd(SQLModel, table=True):
    """Names that need a careful reader."""

    id: int | None = Field(default=None, primary_key=True)
    a: int | None = None
    a_: int | None = None
    a__gt: int | None = None
    eq: int | None = None


@pytest.mark.parametrize(
    ("model", "name", "path"),
    [
        (Hero, "age", Path((), "age", "eq")),
        (Hero, "age__gt", Path((), "age", "gt")),
        (Hero, "age.gt", Path((), "age", "gt")),
        (Hero, "team_id__in", Path((), "team_id", "in")),
        (Hero, "team__name", Path(("team",), "name", "eq")),
        (Hero, "team.name__like", Path(("team",), "name", "like")),
        (Hero, "team__heroes__tags__label__in", Path(("team", "heroes", "tags"), "label", "in")),
        (Hero, "team", Path((), "team", "eq")),
        (Hero, "team__is_null", Path((), "team", "is_null")),
        (Hero, "team__heroes__ne", Path(("team",), "heroes", "ne")),
        (OddName, "name__like", Path((), "name__like", "eq")),
        (OddName, "name__like__like", Path((), "name__like", "like")),
        (OddName, "team__name", Path((), "team__name", "eq")),
        (Odd, "a__gt", Path((), "a__gt", "eq")),
        (Odd, "a__gt__gt", Path((), "a__gt", "gt")),
        (Odd, "a___gt", Path((), "a_", "gt")),
        (Odd, "a__lt", Path((), "a", "lt")),
        (Odd, "eq__eq", Path((), "eq", "eq")),
    ],
)
def test_a_name_is_a_path_a_field_and_a_lookup(model: Any, name: str, path: Path) -> None:
    """The longest name that is a field or relationship is that, on every step."""
    assert path_of(model, name) == path


@pytest.mark.parametrize(
    ("name", "model", "unknown"),
    [
        ("nam", "Hero", "nam"),
        ("nam__like", "Hero", "nam"),
        ("", "Hero", ""),
        ("__name", "Hero", ""),
        ("team__nam", "Team", "nam"),
        ("team.nam.like", "Team", "nam"),
        ("team__heroes__nam", "Hero", "nam"),
        ("team__", "Team", ""),
    ],
)
def test_an_unknown_name_is_reported_with_those_there_are(
    name: str, model: str, unknown: str
) -> None:
    """By the model that the path had reached; relationships are named too."""
    with pytest.raises(UnknownFieldError) as caught:
        path_of(Hero, name)
    assert f"{model} has no field {unknown!r}" in str(caught.value)
    assert ("heroes" if model == "Team" else "tags") in str(caught.value)


@pytest.mark.parametrize("name", ["age__", "age__foo", "age__foo__gt", "age__gt__lt", "age.5"])
def test_an_unknown_lookup_is_reported_with_those_there_are(name: str) -> None:
    """As a mistake in the lookup, for the field is known."""
    with pytest.raises(
        ValidationError, match=r"Hero\.age has no lookup .* are eq, ne, gt"
    ) as caught:
        path_of(Hero, name)
    assert not isinstance(caught.value, UnknownFieldError)
    assert caught.value.field == "age"


def test_a_name_that_is_no_string_is_refused() -> None:
    """Filters come from mappings too."""
    with pytest.raises(ValidationError, match="names of filters must be strings, not int"):
        where_clauses(Hero, {5: 5}, DIALECT)  # type: ignore[dict-item]


def test_a_path_has_an_end() -> None:
    """Long paths work; the longest ones are refused before they exhaust Python's stack."""
    long = {"parent__" * 40 + "name": "x"}
    statement = select(Folder.id).where(*where_clauses(Folder, long, DIALECT))
    assert str(statement.compile(dialect=DIALECT)).count("EXISTS") == 40
    with pytest.raises(ValidationError, match="at most 40 names"):
        path_of(Folder, "parent__" * 10_000 + "name")


@pytest.mark.parametrize(
    ("name", "value"),
    [("team", 5), ("team__gt", 5), ("team__in", [1]), ("team__gt", None), ("team__like", "x")],
)
def test_a_relationship_is_compared_with_none_only(name: str, value: Any) -> None:
    """The error names the fields that the path can go on to."""
    with pytest.raises(ValidationError, match=r"Hero\.team is a relationship") as caught:
        where_clauses(Hero, {name: value}, DIALECT)
    assert "(team__id, team__name, team__city), or by team__is_null=True" in str(caught.value)
    assert caught.value.field == "team"


def test_is_null_of_a_relationship_takes_a_bool() -> None:
    """As that of a field does."""
    with pytest.raises(ValidationError, match=r"Hero\.team__is_null takes True or False"):
        where_clauses(Hero, {"team__is_null": "perhaps"}, DIALECT)


def test_a_model_that_is_no_table_is_refused() -> None:
    """With a message that says what is needed."""
    with pytest.raises(ValidationError, match="not a table model"):
        where_clauses(SQLModel, {"id": 1}, DIALECT)


def test_a_mistake_behind_a_path_names_the_related_model() -> None:
    """The value is coerced to the type of the related column."""
    with pytest.raises(ValidationError, match=r"Hero\.age must be a 64-bit integer"):
        where_clauses(Team, {"heroes__age__gt": "old"}, DIALECT)


@pytest.mark.parametrize("include_deleted", [True, False])
def test_statements_with_the_same_filters_are_compiled_once(include_deleted: bool) -> None:
    """The values are parameters, and the aliases are the same ones."""
    keys = set()
    for title in ("a", "b"):
        filters = {"books__title": title, "publisher__name__icontains": title, "publisher": None}
        clauses = where_clauses(
            Author, filters, DIALECT, visibility_with(include_deleted=include_deleted)
        )
        statement = select(Author).where(*clauses)
        keys.add(statement._generate_cache_key().key)  # type: ignore[union-attr]
    assert len(keys) == 1


def test_no_filters_are_no_criteria() -> None:
    """A statement without filters is unchanged."""
    assert where_clauses(Hero, {}, DIALECT) == []
