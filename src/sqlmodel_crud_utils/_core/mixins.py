"""Mixins for table models: time stamps, audit trail, soft delete, optimistic locking.

They stand before or after `SQLModel` among the bases, together or alone, and add columns with
their types, defaults and indexes. Their fields have defaults, so that nobody needs to give them.

Example:
    >>> from sqlmodel_crud_utils._core.mixins import AuditMixin, SoftDeleteMixin, acting_as
    >>> class Note(SQLModel, AuditMixin, SoftDeleteMixin, table=True):
    ...     id: int | None = Field(default=None, primary_key=True)
    ...     text: str
    >>> note = Note(text="Buy milk")
    >>> note.created_at.tzinfo, note.updated_at, note.is_deleted
    (datetime.timezone.utc, None, False)

Alembic writes the type of the time columns as `sqlmodel_crud_utils.mixins.UTCDateTime()`; the
template of the migrations (`script.py.mako`) needs an `import sqlmodel_crud_utils.mixins` for it.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, dataclass_transform

from pydantic import AwareDatetime, BaseModel
from sqlalchemy import Column, ColumnDefault, Connection, String, event
from sqlalchemy.orm import InstanceState, InstrumentedAttribute, Mapper
from sqlalchemy.orm.attributes import flag_modified
from sqlalchemy.orm.interfaces import EXT_CONTINUE
from sqlmodel import Field

from sqlmodel_crud_utils._core.listeners import own
from sqlmodel_crud_utils._core.models.unique import MARKER, unique_when_visible
from sqlmodel_crud_utils._core.values.actors import acting_as, current_actor
from sqlmodel_crud_utils._core.values.datetimes import UTCDateTime, in_utc, utc_now
from sqlmodel_crud_utils._core.values.server_defaults import No, UTCNow

__all__ = [
    "AuditMixin",
    "SoftDeleteMixin",
    "TimestampMixin",
    "UTCDateTime",
    "VersionMixin",
    "acting_as",
    "current_actor",
    "unique_when_visible",
]

# Where documentation and migrations look for it.
UTCDateTime.__module__ = "sqlmodel_crud_utils.mixins"

_NAME_LENGTH = 100

if TYPE_CHECKING:
    # SQLModel and BaseModel declare some methods differently, which checkers would blame on the
    # models that inherit both; to them the mixins are fields and nothing else.
    @dataclass_transform(kw_only_default=True, field_specifiers=(Field,))
    class _Fields: ...

else:
    _Fields = BaseModel


class TimestampMixin(_Fields):
    """When a row was made, and when it was last changed.

    All datetimes are aware, and in UTC when they come back. A naive one is a `ValidationError`.

    Attributes:
        created_at: Set on construction; by the database for rows that are inserted past the ORM.
        updated_at: None until the first update; set by every UPDATE, ORM or Core, upserts
            included.

    Example:
        >>> from datetime import datetime
        >>> class Stamped(SQLModel, TimestampMixin, table=True):
        ...     id: int | None = Field(default=None, primary_key=True)
        >>> Stamped(created_at=datetime(2025, 1, 1))
        Traceback (most recent call last):
        sqlmodel_crud_utils.exceptions.ValidationError: Validation failed for 'created_at': ...
    """

    created_at: AwareDatetime = Field(
        default_factory=utc_now,
        sa_type=UTCDateTime,
        sa_column_kwargs={"server_default": UTCNow()},
    )
    updated_at: AwareDatetime | None = Field(
        default=None, sa_type=UTCDateTime, sa_column_kwargs={"onupdate": utc_now}
    )


class AuditMixin(TimestampMixin):
    """When a row was made and last changed, and by whom.

    The names come from `acting_as`; a value that is given explicitly wins. An update for which
    there is no name sets `updated_by` to None: the last change was nobody's that is known.

    Attributes:
        created_by: Who made the row.
        updated_by: Who changed it last.

    Example:
        >>> class Page(SQLModel, AuditMixin, table=True):
        ...     id: int | None = Field(default=None, primary_key=True)
        >>> Page.__table__.c.created_by.type
        String(length=100)
    """

    created_by: str | None = Field(
        default=None,
        max_length=_NAME_LENGTH,
        sa_type=String(_NAME_LENGTH),
        sa_column_kwargs={"default": current_actor},
    )
    updated_by: str | None = Field(
        default=None,
        max_length=_NAME_LENGTH,
        sa_type=String(_NAME_LENGTH),
        sa_column_kwargs={"onupdate": current_actor},
    )


class SoftDeleteMixin(_Fields):
    """Rows that are marked as deleted instead of being removed.

    `delete_row` marks them, and no read of the library returns them, unless it is asked to with
    `include_deleted=True`.

    Attributes:
        deleted_at: When the row was deleted, None for one that is not.
        deleted_by: Who deleted it, if known.
        is_deleted: Whether it is deleted; indexed.

    Example:
        >>> class Memo(SQLModel, SoftDeleteMixin, table=True):
        ...     id: int | None = Field(default=None, primary_key=True)
        >>> memo = Memo()
        >>> memo.soft_delete("alice")
        >>> memo.is_deleted, memo.deleted_by
        (True, 'alice')
        >>> memo.restore()
        >>> memo.is_deleted, memo.deleted_at, memo.deleted_by
        (False, None, None)
    """

    deleted_at: AwareDatetime | None = Field(default=None, sa_type=UTCDateTime)
    deleted_by: str | None = Field(
        default=None, max_length=_NAME_LENGTH, sa_type=String(_NAME_LENGTH)
    )
    is_deleted: bool = Field(default=False, index=True, sa_column_kwargs={"server_default": No()})

    def soft_delete(self, user: str | None = None) -> None:
        """Mark the row as deleted; the next flush writes it.

        Args:
            user: Who deletes it; left out, who acts according to `acting_as`.
        """
        self.is_deleted = True
        self.deleted_at = utc_now()
        self.deleted_by = current_actor() if user is None else user

    def restore(self) -> None:
        """Take the mark away; the next flush writes it."""
        self.is_deleted = False
        self.deleted_at = None
        self.deleted_by = None


class VersionMixin(_Fields):
    """Optimistic locking: a write on top of a change that one hasn't seen is refused.

    Every update counts `version` up, and an update or delete of a row whose version is not the
    one that was read is a `ConflictError`. Plain SQLAlchemy raises `StaleDataError` there.

    Attributes:
        version: 1 for a new row, counted up by every UPDATE.

    Example:
        >>> class Stock(SQLModel, VersionMixin, table=True):
        ...     id: int | None = Field(default=None, primary_key=True)
        >>> Stock().version
        1
    """

    version: int = Field(default=1, sa_column_kwargs={"server_default": "1"})


@event.listens_for(TimestampMixin, "attribute_instrument", propagate=True)
@event.listens_for(SoftDeleteMixin, "attribute_instrument", propagate=True)
def _refuse_naive_datetimes(
    _model: type[Any], key: str, attribute: InstrumentedAttribute[Any]
) -> None:
    """Refuse them when they are assigned: a table model doesn't validate its fields by itself."""
    columns = getattr(attribute.property, "columns", ())
    if columns and isinstance(columns[0].type, UTCDateTime):

        @own
        def check(_state: Any, value: Any, _old: Any, _event: Any, **_: Any) -> Any:
            if isinstance(value, datetime):
                in_utc(value, key)
            return value

        event.listen(attribute, "set", check, raw=True, retval=True, include_key=True)


@event.listens_for(AuditMixin, "before_update", propagate=True, raw=True, retval=True)
@own
def _keep_named_updater(
    _mapper: Mapper[Any], _connection: Connection, state: InstanceState[Any]
) -> Any:
    """Let an explicit `updated_by` win although it is the name that was there before."""
    row, session = state.obj(), state.session
    attribute = state.attrs.updated_by
    if (
        "updated_by" in state.committed_state
        and not attribute.history.has_changes()
        and session is not None
        and session.is_modified(row, include_collections=False)
    ):
        flag_modified(row, "updated_by")
    return EXT_CONTINUE


@event.listens_for(SoftDeleteMixin, "instrument_class", propagate=True)
def _leave_marker_unmapped(mapper: Mapper[Any], _model: type[Any]) -> None:
    mapper.exclude_properties = {*(mapper.exclude_properties or ()), MARKER}


@event.listens_for(VersionMixin, "instrument_class", propagate=True)
def _count_versions(mapper: Mapper[Any], _model: type[Any]) -> None:
    """Make `version` the mapper's version, beside whatever `__mapper_args__` the model has."""
    column = mapper.local_table.c.get("version")
    if mapper.version_id_col is None and isinstance(column, Column):
        mapper.version_id_col = column
        # For a Core UPDATE; the ORM counts by itself.
        column.onupdate = ColumnDefault(column + 1, for_update=True)
