"""The history table, and the mixin for models whose changes are recorded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ColumnElement,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    String,
    cast,
    event,
    literal,
)
from sqlalchemy.orm import Mapped, Mapper
from sqlmodel import Field, SQLModel, col

from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.models.tenant_keys import ROWS_OF_TENANTS, TENANT
from sqlmodel_crud_utils._core.values.current_tenant import all_in_scope, tenant_of_new_row
from sqlmodel_crud_utils._core.values.datetimes import utc_now
from sqlmodel_crud_utils._core.visibility.tenancy import belongs_to_tenants
from sqlmodel_crud_utils._session import changes, events
from sqlmodel_crud_utils.exceptions import UnknownFieldError, ValidationError
from sqlmodel_crud_utils.ext.history.json_values import key_text, stored_type
from sqlmodel_crud_utils.ext.history.recording import HISTORY, table_name
from sqlmodel_crud_utils.mixins import UTCDateTime


class ChangeHistory(SQLModel, table=True):
    """One change: a row that was created, updated or deleted, with its changed fields.

    Attributes:
        id: An increasing number; the order of the changes.
        table_name: The table of the row.
        row_key: The row's primary key before the change, as text; a JSON list if it has several
            columns.
        operation: "create", "update" or "delete". A soft deletion is an update.
        changes: The old and the new value of each field that changed, by the field's name.
        changed_by: Who changed it, as set by `acting_as`; None if it was not set.
        changed_at: When it was changed.
        transaction_key: The same value for all changes of a transaction.
        tenant_id: The tenant of the row, None for a model without tenants.
    """

    __tablename__: ClassVar[Any] = "change_history"
    __table_args__ = (
        Index("ix_change_history_row", "table_name", "row_key", "id"),
        Index("ix_change_history_age", "table_name", "changed_at"),
        {"info": {ROWS_OF_TENANTS: True}},
    )

    id: int | None = Field(
        default=None,
        sa_column=Column(BigInteger().with_variant(Integer(), "sqlite"), primary_key=True),
    )
    table_name: str = Field(max_length=127)
    row_key: str = Field(max_length=255)
    operation: Literal["create", "update", "delete"] = Field(sa_type=String(6))
    changes: dict[str, list[Any]] = Field(sa_type=JSON)
    changed_by: str | None = Field(default=None, max_length=100)
    changed_at: datetime = Field(default_factory=utc_now, sa_type=UTCDateTime)
    transaction_key: UUID
    tenant_id: str | None = Field(default=None, max_length=255)


HISTORY.table = SQLModel.metadata.tables["change_history"]

_EXCLUDED, _REDACTED = "__track_exclude__", "__track_redact__"

if TYPE_CHECKING:
    # SQLModel and BaseModel declare some methods differently, which type checkers would report
    # for models that inherit both.
    class _Base: ...

else:
    _Base = BaseModel


class TrackChangesMixin(_Base):
    """Rows whose changes are recorded, in the same transaction.

    All writes through a session are recorded: flushes, the functions of this library, and any
    `insert()`, `update()` or `delete()` that a session executes.

    Attributes:
        __track_exclude__: Fields that are not recorded. A write that changes only these is not
            recorded at all.
        __track_redact__: Fields of which the history records that they changed, but not their
            values.

    Raises:
        UnknownFieldError: When the class is defined: a name is not a field of the model.
        ValidationError: When the class is defined: a name is a field of the primary key.

    Example:
        >>> class Sketch(SQLModel, TrackChangesMixin, table=True):
        ...     __track_exclude__ = ("last_seen",)
        ...     id: int | None = Field(default=None, primary_key=True)
        ...     title: str
        ...     last_seen: str = ""
    """

    __track_exclude__: ClassVar[tuple[str, ...]] = ()
    __track_redact__: ClassVar[tuple[str, ...]] = ()

    if not TYPE_CHECKING:

        @classmethod
        def __pydantic_init_subclass__(cls, **kwargs):
            """Refuse wrong names when the class is defined."""
            super().__pydantic_init_subclass__(**kwargs)
            _check_names(cls)


def _check_names(model: type[BaseModel]) -> None:
    """Refuse excluded and redacted names that are not fields, or are part of the key."""
    for name in (*model.__dict__.get(_EXCLUDED, ()), *model.__dict__.get(_REDACTED, ())):
        field = model.model_fields.get(name)
        if field is None:
            raise UnknownFieldError(model, name, model.model_fields)
        column = getattr(field, "sa_column", None)
        is_key = getattr(field, "primary_key", False) is True
        if is_key or getattr(column, "primary_key", False) or _is_tenant(model, name):
            raise ValidationError(
                f"changes of {model.__name__} are recorded by {name}; "
                "it can be neither excluded nor redacted",
                field=name,
            )


def _is_tenant(model: type[BaseModel], name: str) -> bool:
    return name == TENANT and belongs_to_tenants(model)


@event.listens_for(TrackChangesMixin, "instrument_class", propagate=True)
def _track(_mapper: Mapper[Any], _model: type[Any]) -> None:
    """Start recording changes."""
    if HISTORY not in changes.subscribers:
        events.subscribe(HISTORY)


def recorded_of(model: type[Any], dialect: Dialect) -> list[ColumnElement[bool]]:
    """Return the criteria for a model's changes, limited to the tenant in scope.

    Raises:
        ValidationError: Changes of the model are not recorded.
        TenantError: The rows belong to tenants, and none is in scope.
    """
    facts = facts_of(model)
    if not issubclass(model, TrackChangesMixin):
        raise ValidationError(
            f"changes of {model.__name__} are not recorded; inherit TrackChangesMixin",
            field="model",
        )
    criteria = [col(ChangeHistory.table_name) == table_name(facts)]
    if belongs_to_tenants(model) and not all_in_scope():
        tenant, columns = str(tenant_of_new_row()), [facts.columns[TENANT]]
        criteria += _equals(col(ChangeHistory.tenant_id), tenant, columns, dialect)
    return criteria


def recorded_of_row(
    model: type[Any], dialect: Dialect, key: Sequence[Any]
) -> list[ColumnElement[bool]]:
    """Return the criteria for a row's changes; it raises what `recorded_of` does."""
    criteria, facts = recorded_of(model, dialect), facts_of(model)
    columns = [facts.columns[name] for name in facts.key]
    criteria += _equals(col(ChangeHistory.row_key), key_text(facts, key), columns, dialect)
    return criteria


def _equals(
    column: Mapped[Any], text: str, recorded: Iterable[Column[Any]], dialect: Dialect
) -> Iterator[ColumnElement[bool]]:
    """Yield the criteria for a text of the history, which equals others when its columns do."""
    yield column == text
    minds_case = any(_minds_case(each, dialect) for each in recorded)
    if minds_case and features_of(dialect).text == "BINARY":  # the history's collation does not
        yield cast(column, LargeBinary) == cast(literal(text), LargeBinary)


def _minds_case(column: Column[Any], dialect: Dialect) -> bool:
    """Return whether texts of the history differ that differ in case."""
    type_ = stored_type(column.type, dialect).dialect_impl(dialect)
    if isinstance(type_, String):
        return not (type_.collation or "_ci").endswith("_ci")
    return isinstance(type_, LargeBinary)
