"""Lists of keys whose rows are written together: checked, cut into chunks, made criteria."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Dialect

from sqlmodel_crud_utils._core.chunks import COMPOSITE_KEYS_PER_QUERY, rows_per_chunk
from sqlmodel_crud_utils._core.models.facts import Facts
from sqlmodel_crud_utils._core.models.policies import Visibility
from sqlmodel_crud_utils._core.queries.keys import Key, among_keys, key_chunks, key_list
from sqlmodel_crud_utils._core.visibility.criteria import visible


class KeyList(NamedTuple):
    """The rows of a model that a list of keys stands for.

    Attributes:
        facts: What the model is.
        names: The fields of the key.
        keys: The keys, each once and coerced to the columns' types.
        dialect: The dialect of the database.
        visibility: Which rows can be among them.
    """

    facts: Facts
    names: tuple[str, ...]
    keys: list[Key]
    dialect: Dialect
    visibility: Visibility

    @property
    def model(self) -> type[Any]:
        """The table model."""
        return self.facts.model

    def chunks(self, size: int | None) -> Iterator[list[Key]]:
        """Cut the keys so that each chunk fits into one statement beside the columns' values."""
        return key_chunks(self.model, self.names, self.keys, self.dialect, self._fitting(size))

    def is_one_chunk(self, size: int | None) -> bool:
        """Return whether one statement takes all keys."""
        return len(next(self.chunks(size), ())) == len(self.keys)

    def _fitting(self, size: int | None) -> int:
        columns = sum(len(table.columns) for table in self.facts.mapper.tables)
        fitting = rows_per_chunk(self.dialect, len(self.names), size, extra_binds=columns)
        return min(fitting, COMPOSITE_KEYS_PER_QUERY) if len(self.names) > 1 else fitting

    def criteria(self, keys: Sequence[Key]) -> list[ColumnElement[bool]]:
        """Return the criteria for rows with these keys."""
        criterion = visible(self.model, self.visibility)
        listed = among_keys(self.model, self.names, keys, self.dialect)
        return [listed] if criterion is None else [listed, criterion]

    def in_order(self, keys: Sequence[Key], rows: Iterable[Any]) -> list[Any]:
        """Sort rows in the order of their keys; keys equal only for the database come last."""
        places = {key: place for place, key in enumerate(keys)}
        return sorted(
            rows,
            key=lambda row: places.get(
                tuple(getattr(row, name) for name in self.names), len(places)
            ),
        )


def key_list_of(
    facts: Facts,
    pk_field: str | Sequence[str] | None,
    keys: Iterable[Any],
    dialect: Dialect,
    visibility: Visibility,
) -> KeyList:
    """Return the rows that a caller's list of keys stands for.

    Raises:
        UnknownFieldError: `pk_field` is not a column of the model.
        ValidationError: A key of a wrong type, or no list of keys.
    """
    names, listed = key_list(facts, pk_field, keys)
    return KeyList(facts, names, listed, dialect, visibility)
