"""What the mixins do when a model is mapped, and when its rows are changed or flushed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Column, ColumnDefault, Connection, event
from sqlalchemy.orm import InstanceState, InstrumentedAttribute, Mapper
from sqlalchemy.orm.attributes import flag_modified
from sqlalchemy.orm.interfaces import EXT_CONTINUE

from sqlmodel_crud_utils._core.listeners import own
from sqlmodel_crud_utils._core.mixins import (
    AuditMixin,
    SoftDeleteMixin,
    TimestampMixin,
    VersionMixin,
)
from sqlmodel_crud_utils._core.models.unique import MARKER
from sqlmodel_crud_utils._core.values.datetimes import UTCDateTime, in_utc


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
