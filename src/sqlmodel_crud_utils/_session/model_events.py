"""The mixins' listeners: to the mapping of a model, and to changes and flushes of its rows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Column, ColumnDefault, Connection, event
from sqlalchemy.orm import InstanceState, InstrumentedAttribute, Mapper, Session, object_session
from sqlalchemy.orm.attributes import flag_modified
from sqlalchemy.orm.interfaces import EXT_CONTINUE

from sqlmodel_crud_utils._core.listeners import own
from sqlmodel_crud_utils._core.memoizing import forget_all
from sqlmodel_crud_utils._core.mixins import (
    AuditMixin,
    SoftDeleteMixin,
    TenantMixin,
    TimestampMixin,
    VersionMixin,
)
from sqlmodel_crud_utils._core.models.tenant_keys import TENANT, make_targets_unique
from sqlmodel_crud_utils._core.models.unique import MARKER
from sqlmodel_crud_utils._core.values.current_tenant import tenant_of_new_row
from sqlmodel_crud_utils._core.values.datetimes import UTCDateTime, in_utc
from sqlmodel_crud_utils._core.visibility.tenancy import flush_criterion
from sqlmodel_crud_utils._session.claims import claim, settle
from sqlmodel_crud_utils._session.events import listen_where_needed
from sqlmodel_crud_utils._session.sqlalchemy_internals import keep_statements
from sqlmodel_crud_utils.exceptions import ValidationError


@event.listens_for(TimestampMixin, "attribute_instrument", propagate=True)
@event.listens_for(SoftDeleteMixin, "attribute_instrument", propagate=True)
def _refuse_naive_datetimes(
    _model: type[Any], key: str, attribute: InstrumentedAttribute[Any]
) -> None:
    """Refuse them on assignment, because a table model does not validate its fields."""
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
    """Keep an explicit `updated_by` even if it equals the previous name."""
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
    """Make `version` the mapper's version column, in addition to the model's `__mapper_args__`."""
    column = mapper.local_table.c.get("version")
    if mapper.version_id_col is None and isinstance(column, Column):
        mapper.version_id_col = column
        # For a Core UPDATE; the ORM increments the version itself.
        column.onupdate = ColumnDefault(column + 1, for_update=True)


@event.listens_for(TenantMixin, "after_mapper_constructed", propagate=True)
def _keep_to_tenant(mapper: Mapper[Any], _model: type[Any]) -> None:
    """Give new rows their tenant, and limit a flush's UPDATE and DELETE to the tenant's rows."""
    column = mapper.columns[TENANT]
    if column.table is not mapper.local_table:
        # As in joined-table inheritance: a statement on the subclass's table could not be limited.
        raise ValidationError(
            f"{mapper.class_.__name__} has no {TENANT} in the table {str(mapper.local_table)!r}; "
            "give each model of tenants a table with all of its columns",
            field=TENANT,
        )
    # Overrides any default that the model has declared for the column.
    column.default = ColumnDefault(tenant_of_new_row)
    make_targets_unique(column.table.metadata)
    if mapper.base_mapper is mapper:
        keep_statements(mapper, _keep)

    # Core statements may run before SQLAlchemy has configured any mapper.
    forget_all()
    listen_where_needed()


_BY_KEY = frozenset(("update", "post_update", "delete"))


def _keep(usual: Callable[..., Any], key: tuple[str, Any], make: Callable[[], Any]) -> Any:
    """Memoize a statement as the mapper does, adding the criterion for the tenant."""
    kind, table = key
    if kind not in _BY_KEY or TENANT not in table.c:
        return usual(key, make)
    return usual(key, lambda: make().where(flush_criterion(table.c[TENANT])))


@event.listens_for(VersionMixin, "before_update", propagate=True)
@event.listens_for(VersionMixin, "before_delete", propagate=True)
def _about_to_be_written(_mapper: Mapper[Any], _connection: Connection, row: Any) -> None:
    claim(cast("Session", object_session(row)), row)


@event.listens_for(VersionMixin, "after_update", propagate=True)
@event.listens_for(VersionMixin, "after_delete", propagate=True)
def _was_written(_mapper: Mapper[Any], _connection: Connection, row: Any) -> None:
    settle(cast("Session", object_session(row)), row)
