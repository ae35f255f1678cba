"""Whether a write may go past the unit of work, and what it then owes to the session."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from pydantic import BaseModel
from sqlalchemy import Column, Integer, Table, Uuid
from sqlalchemy.orm import Session
from sqlalchemy.orm.interfaces import MANYTOONE, ONETOMANY
from sqlmodel import SQLModel

from sqlmodel_crud_utils._core.caching import cached
from sqlmodel_crud_utils._core.listeners import is_heard
from sqlmodel_crud_utils._core.models.mapping import mapper_of
from sqlmodel_crud_utils._core.queries.loading import EAGER

_switched_off = False


def are_allowed() -> bool:
    """Return whether writes may take a shortcut at all."""
    return not _switched_off


@contextmanager
def switched_off() -> Iterator[None]:
    """Let every write of the program go through the unit of work, and through SQLAlchemy, inside.

    The outcome is the same; the tests of behaviour run both ways to show it.
    """
    global _switched_off  # noqa: PLW0603 - one switch for all threads
    before, _switched_off = _switched_off, True
    try:
        yield
    finally:
        _switched_off = before


def is_unheard(session: Session, *events: str) -> bool:
    """Tell whether nobody wants to know, or to decide, how a session writes."""
    # A session that routes statements to several databases goes by the kind of statement.
    return type(session).get_bind is Session.get_bind and not listens_to_session(session, *events)


@contextmanager
def as_in_a_flush(session: Session) -> Iterator[None]:
    """Let a refusal inside end the transaction of the session as the one of a flush does."""
    transaction = session._autobegin_t()._begin()
    try:
        yield
        transaction.commit()
    except BaseException:
        transaction.rollback(_capture_exception=True)
        raise


@cached
def is_simple(model: type[Any]) -> bool:
    """Tell whether a row of the model is one row of one table, of plain columns."""
    mapper = mapper_of(model)
    table = mapper.persist_selectable
    return (
        isinstance(table, Table)
        and table.implicit_returning
        and len(list(mapper.self_and_descendants)) == 1
        and mapper.inherits is None
        and mapper.version_id_col is None
        and not mapper.composites
        and all(_is_plain(attribute, table) for attribute in mapper.column_attrs)
    )


def _is_plain(attribute: Any, table: Table) -> bool:
    column = attribute.columns[0]
    return (
        len(attribute.columns) == 1
        and isinstance(column, Column)
        and column.table is table
        and not attribute.deferred
    )


@cached
def sets_plainly(model: type[Any], names: tuple[str, ...]) -> bool:
    """Tell whether to set fields of an instance is all that its class does then."""
    if not issubclass(model, BaseModel):
        plain: Any = object.__setattr__
        return model.__setattr__ is plain
    config = model.model_config
    return (
        model.__setattr__ is SQLModel.__setattr__
        and not (config.get("frozen") or config.get("validate_assignment"))
        and all(
            name in model.model_fields and not model.model_fields[name].frozen for name in names
        )
    )


@cached
def has_stamps(model: type[Any]) -> bool:
    """Tell whether an UPDATE changes more than it names; one that changes nothing must not."""
    columns = mapper_of(model).persist_selectable.columns
    return any(column.onupdate is not None or column.server_onupdate for column in columns)


@cached
def loads_alone(model: type[Any]) -> bool:
    """Tell whether no related row is loaded with a row."""
    return all(relationship.lazy not in EAGER for relationship in mapper_of(model).relationships)


@cached
def leaves_alone(model: type[Any]) -> bool:
    """Tell whether the related rows stay as they are when a row is deleted."""
    return all(
        relationship.viewonly
        or (relationship.direction is MANYTOONE and not relationship.cascade.delete)
        or (relationship.direction is ONETOMANY and bool(relationship.passive_deletes))
        for relationship in mapper_of(model).relationships
    )


@cached
def has_exact_key(model: type[Any]) -> bool:
    """Tell whether equal keys are equal in the database too; texts may not be."""
    types = [column.type for column in mapper_of(model).primary_key]
    return all(isinstance(type_, Integer | Uuid) for type_ in types)


@cached
def columns_of(model: type[Any]) -> Mapping[str, Column[Any]]:
    return {
        attribute.key: cast("Column[Any]", attribute.columns[0])
        for attribute in mapper_of(model).column_attrs
    }


def table_of(model: type[Any]) -> Table:
    return cast("Table", mapper_of(model).persist_selectable)


FLUSH = ("before_flush", "after_flush", "after_flush_postexec")


def listens_to_session(session: Session, *names: str) -> bool:
    """Tell whether somebody listens to one of these events of a session."""
    return is_heard(session.dispatch, names)
