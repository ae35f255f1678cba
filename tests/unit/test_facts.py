"""The facts of a model, which are determined once."""

from typing import Any

import pytest
from sqlalchemy import Column, Computed, Integer
from sqlalchemy.orm import column_property, query_expression
from sqlmodel import Field, Relationship, SQLModel

from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.visibility.soft_delete import SOFT_DELETION, WITH_DELETED
from sqlmodel_crud_utils.exceptions import UnknownFieldError, ValidationError
from sqlmodel_crud_utils.mixins import SoftDeleteMixin, TimestampMixin, VersionMixin
from tests.bulk_models import Truck, Vehicle
from tests.models import Hero, HeroTag, Seat, Setting, Team


class Ledger(SQLModel, SoftDeleteMixin, TimestampMixin, VersionMixin, table=True):
    """It has all that the mixins add."""

    id: int | None = Field(default=None, primary_key=True)
    lines: list["LedgerLine"] = Relationship(
        back_populates="ledger", sa_relationship_kwargs={"lazy": "selectin"}
    )


class LedgerLine(SQLModel, table=True):
    """It has a column that the database computes, and one of another name than its field."""

    id: int | None = Field(default=None, primary_key=True)
    net: int = Field(sa_column=Column("net_amount", Integer))
    gross: int | None = Field(
        default=None, sa_column=Column(Integer, Computed("net_amount + 1", persisted=True))
    )
    ledger_id: int | None = Field(default=None, foreign_key="ledger.id")
    ledger: Ledger | None = Relationship(back_populates="lines")


def test_there_is_one_object_for_each_model() -> None:
    """It is forgotten when a model is declared, which may add relationships to others."""
    facts = facts_of(Hero)
    assert facts_of(Hero) is facts

    class Later(SQLModel, table=True):
        id: int | None = Field(default=None, primary_key=True)

    assert list(facts_of(Later).columns) == ["id"]
    assert facts_of(Hero) is not facts


def test_names_of_fields() -> None:
    """Columns and relationships by the names that the model has for them."""
    facts = facts_of(LedgerLine)
    assert list(facts.columns) == ["id", "net", "gross", "ledger_id"]
    assert facts.attribute("net") is LedgerLine.net
    assert list(facts.relationships) == ["ledger"]
    assert facts.relationship("ledger") is LedgerLine.ledger
    assert facts.names_of(["gross", "net_amount"]) == ("net", "gross")
    assert facts.written == {"id", "net", "ledger_id"}
    with pytest.raises(UnknownFieldError, match="LedgerLine has no field 'ledger'"):
        facts.attribute("ledger")
    with pytest.raises(UnknownFieldError, match="LedgerLine has no relationship 'net'"):
        facts.relationship("net")
    facts.check_written("net", 5)
    with pytest.raises(ValidationError, match=r"LedgerLine\.gross is computed by the database"):
        facts.check_written("gross", 5)


def test_expressions_are_columns_that_nobody_writes() -> None:
    """Those that every query works out, and those that one has to ask for."""

    class Measured(SQLModel, table=True):
        id: int | None = Field(default=None, primary_key=True)
        width: int

    mapper = facts_of(Measured).mapper
    mapper.add_property("double", column_property(mapper.local_table.c.width * 2))
    mapper.add_property("asked", query_expression())

    class Another(SQLModel, table=True):
        id: int | None = Field(default=None, primary_key=True)

    facts_of(Another)
    facts = facts_of(Measured)
    assert set(facts.columns) == {"id", "width", "double", "asked"}
    assert facts.written == {"id", "width"}
    assert facts.queried == {"asked"}
    assert not facts.is_plain


@pytest.mark.parametrize(
    ("model", "key", "version"),
    [(Hero, ("id",), None), (Seat, ("row", "number"), None), (Ledger, ("id",), "version")],
)
def test_key_and_version(model: type[Any], key: tuple[str, ...], version: str | None) -> None:
    """By the names of the fields."""
    facts = facts_of(model)
    assert (facts.key, facts.version) == (key, version)
    assert facts.key_attributes == tuple(getattr(model, name) for name in key)


def test_what_every_update_sets() -> None:
    """The version, and what has an on-update value."""
    assert set(facts_of(Ledger).updated_always) == {"updated_at", "version"}
    assert facts_of(Ledger).has_on_update_values
    assert not facts_of(Hero).updated_always
    assert not facts_of(Hero).has_on_update_values


def test_policies() -> None:
    """Those whose base the model inherits, without those that a call lifts."""
    assert SOFT_DELETION in facts_of(Ledger).policies
    assert SOFT_DELETION not in facts_of(Ledger).policies_in(WITH_DELETED)
    assert SOFT_DELETION not in facts_of(Hero).policies


@pytest.mark.parametrize(
    ("model", "one_table", "plain", "simple"),
    [
        (Hero, True, True, True),
        (Ledger, True, True, False),  # it has a version
        (Vehicle, True, False, False),
        (Truck, False, False, False),
    ],
)
def test_how_rows_are_stored(model: type[Any], one_table: bool, plain: bool, simple: bool) -> None:
    """In one table, and how much there is to a row."""
    facts = facts_of(model)
    assert (facts.is_one_table, facts.is_plain, facts.is_simple) == (one_table, plain, simple)


def test_related_rows() -> None:
    """Which rows are loaded with a row, and what a deletion does to them."""
    ledger, line = facts_of(Ledger), facts_of(LedgerLine)
    assert (ledger.loads_alone, line.loads_alone) == (False, True)
    assert line.loads_eagerly  # the ledger of a line brings in its lines
    assert not facts_of(Seat).loads_eagerly
    assert line.leaves_alone
    assert not ledger.leaves_alone  # the flush clears the references
    assert line.reachable() == {ledger.mapper, line.mapper}
    assert facts_of(Team).mapper in facts_of(Hero).reachable()


def test_keys_that_are_equal_where_python_says_so() -> None:
    """Numbers are; texts depend on the collation."""
    assert facts_of(HeroTag).has_exact_key
    assert not facts_of(Seat).has_exact_key
    assert facts_of(Setting).table.name == "setting"
