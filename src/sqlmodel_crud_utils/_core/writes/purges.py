"""The statements that permanently remove soft-deleted rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, cast

from sqlalchemy import ColumnElement, Delete, Dialect, Select, TableClause, delete, select, tuple_

from sqlmodel_crud_utils._core.chunks import COMPOSITE_KEYS_PER_QUERY, rows_per_chunk
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.queries.keys import Key
from sqlmodel_crud_utils._core.values.datetimes import in_utc, utc_now
from sqlmodel_crud_utils._core.visibility.soft_delete import deleted
from sqlmodel_crud_utils.exceptions import ValidationError

_ROWS_PER_CHUNK = 1_000


def deleted_before(older_than: Any) -> datetime:
    """Return the moment before which a row must have been deleted."""
    if not isinstance(older_than, timedelta):
        return in_utc(older_than, "older_than")
    if older_than < timedelta(0):
        raise ValidationError("must not be negative", field="older_than", value=older_than)
    try:
        return utc_now() - older_than
    except OverflowError as error:
        raise ValidationError(
            "reaches back beyond the year 1",
            field="older_than",
            value=older_than,
        ) from error


class Purge(NamedTuple):
    """The removal of a model's rows that were soft-deleted before a moment, chunk by chunk."""

    model: type[Any]
    before: datetime
    dialect: Dialect
    chunk_size: int | None

    def keys(self) -> Select[Any]:
        """Return the SELECT of the next chunk's keys, which locks the rows against a restore."""
        key = facts_of(self.model).key_attributes
        statement: Any = select(*key).where(*self._criteria()).order_by(*key).limit(self._size())
        locked: Select[Any] = statement.with_for_update()
        return locked

    def without_links(self, keys: Sequence[Key]) -> list[Delete]:
        """Return the DELETEs of the rows in link tables that belong to the keys."""
        facts = facts_of(self.model)
        key = [column.key for column in facts.mapper.primary_key]
        found = [
            (each.secondary, {own.key: link for own, link in each.synchronize_pairs})
            for each in facts.relationships.values()
            if each.secondary is not None and not each.viewonly
        ]
        return [
            delete(cast("TableClause", table)).where(_among([links[name] for name in key], keys))
            for table, links in found
            if links.keys() == set(key)
        ]

    def without_rows(self, keys: Sequence[Key]) -> Delete:
        """Return the DELETE of the rows, which also removes them from the session."""
        criterion = _among(facts_of(self.model).key_attributes, keys)
        statement = delete(self.model).where(criterion, *self._criteria())
        return statement.execution_options(synchronize_session="fetch")

    def _criteria(self) -> list[ColumnElement[bool]]:
        model: Any = self.model
        return [deleted(model), model.deleted_at < self.before]

    def _size(self) -> int:
        columns = len(facts_of(self.model).key)
        # The criteria and the limit have parameters too.
        fitting = rows_per_chunk(self.dialect, columns, self.chunk_size, extra_binds=3)
        most = COMPOSITE_KEYS_PER_QUERY if columns > 1 else fitting
        return min(fitting, most, self.chunk_size or _ROWS_PER_CHUNK)


def _among(columns: Sequence[Any], keys: Sequence[Key]) -> ColumnElement[bool]:
    if len(columns) == 1:
        found: ColumnElement[bool] = columns[0].in_([key[0] for key in keys])
        return found
    return tuple_(*columns).in_(keys)
