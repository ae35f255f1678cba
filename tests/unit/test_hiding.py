"""The criteria that hide soft-deleted rows, and what they cost without any."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import aliased, registry
from sqlmodel import Field, SQLModel

from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.models.policies import USUAL
from sqlmodel_crud_utils._core.visibility.criteria import visible
from sqlmodel_crud_utils._core.visibility.hiding import (
    hide,
    hide_anywhere,
    hiding_options,
    link_criteria,
)
from sqlmodel_crud_utils._core.visibility.soft_delete import deleted, is_soft_delete
from tests.models import Hero
from tests.models_mixins import Club, Fan, Player, PlayerBadge


def test_criteria_of_models_and_aliases() -> None:
    """They name the model or the alias; a model without the mixin has no deleted rows."""
    assert str(visible(Club)) == "club.is_deleted = false"
    assert str(visible(aliased(Club, name="other"))) == "other.is_deleted = false"
    assert str(deleted(Club)) == "club.is_deleted = true"
    assert str(deleted(Fan)) == "false"
    assert visible(Fan) is None
    assert visible(aliased(Fan)) is None


def test_the_links_of_a_relationship() -> None:
    """They are hidden where the model of the link table has the mixin."""
    [criterion] = link_criteria(Player.badges, USUAL)
    assert criterion.compare(PlayerBadge.is_deleted == False)  # noqa: E712
    assert link_criteria(Hero.tags, USUAL) == []


def test_models_without_the_mixin_pay_nothing() -> None:
    """Their statements are returned unchanged."""
    statement = select(Hero)
    assert hiding_options(USUAL, Hero) == ()
    assert hide(statement, USUAL, Hero) is statement
    assert not is_soft_delete(facts_of(Hero))
    assert hide_anywhere(statement, USUAL, Hero)._with_options == ()


def test_statements_of_other_registries_pay_nothing() -> None:
    """A statement on models without a path to the mixin is returned unchanged."""

    class Base(SQLModel, registry=registry()):
        """Other models than those of the tests."""

    class Thing(Base, table=True):
        id: int | None = Field(default=None, primary_key=True)

    statement = select(Thing)
    assert hide_anywhere(statement, USUAL, Thing) is statement


def test_statements_share_their_options() -> None:
    """There is one option for all models, so that equal statements are compiled once."""
    one, other = (hide_anywhere(select(Player), USUAL, Player) for _ in range(2))
    assert one._generate_cache_key() == other._generate_cache_key()
    assert hiding_options(USUAL, Player) == hiding_options(USUAL, Fan, Club)
    assert len(hiding_options(USUAL, Player)) == 1
