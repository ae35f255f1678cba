"""Chunks: how many rows a statement takes, and how an input is cut."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, strategies as st
from sqlalchemy.dialects import mssql, mysql, postgresql, sqlite

from sqlmodel_crud_utils._core.chunks import (
    bind_limit,
    check_chunk_size,
    chunked,
    chunked_by_weight,
    rows_per_chunk,
)
from sqlmodel_crud_utils.exceptions import ValidationError


@pytest.mark.parametrize(
    ("dialect", "limit"),
    [
        (sqlite.dialect(), 32_766),
        (postgresql.dialect(), 32_767),
        (mysql.dialect(), 65_535),
        (mssql.dialect(), 999),
    ],
)
def test_bind_limit_is_that_of_the_backend(dialect: Any, limit: int) -> None:
    """Each database has its limit; for one that we do not know it is a low one."""
    assert bind_limit(dialect) == limit


def test_bind_limit_of_an_old_sqlite_is_lower() -> None:
    """SQLite before 3.32 takes 999 parameters; SQLAlchemy knows its version."""
    dialect = sqlite.dialect()
    dialect.insertmanyvalues_max_parameters = 999
    assert bind_limit(dialect) == 999


def test_rows_per_chunk_stays_under_the_limit() -> None:
    """The rows and the statement's other parameters fit together."""
    assert rows_per_chunk(sqlite.dialect(), 5) == 6_553
    assert rows_per_chunk(sqlite.dialect(), 5, extra_binds=2) == 6_552
    assert rows_per_chunk(mysql.dialect(), 1) == 65_535


def test_rows_per_chunk_heeds_the_caller_as_far_as_the_limit_allows() -> None:
    """A smaller wish counts; a larger one is cut to the limit."""
    assert rows_per_chunk(sqlite.dialect(), 5, 100) == 100
    assert rows_per_chunk(sqlite.dialect(), 5, 1_000_000) == 6_553


def test_rows_per_chunk_is_never_below_one() -> None:
    """A row is written even where the table has more columns than the limit, or none given."""
    assert rows_per_chunk(sqlite.dialect(), 40_000) == 1
    assert rows_per_chunk(sqlite.dialect(), 0) == 32_766


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "10", True])
def test_wrong_chunk_sizes_are_refused(wrong: Any) -> None:
    """A chunk size is a whole number of 1 or more."""
    with pytest.raises(ValidationError, match="chunk_size"):
        check_chunk_size(wrong)


@pytest.mark.parametrize("right", [None, 1, 5_000])
def test_right_chunk_sizes_are_accepted(right: Any) -> None:
    """None leaves the size to the library."""
    check_chunk_size(right)


@given(items=st.lists(st.integers()), size=st.integers(1, 10))
def test_chunks_laid_end_to_end_are_the_input(items: list[int], size: int) -> None:
    """Nothing is lost or moved, and every chunk but the last is full."""
    chunks = list(chunked(iter(items), size))
    assert list(itertools.chain.from_iterable(chunks)) == items
    assert all(len(chunk) == size for chunk in chunks[:-1])
    assert all(1 <= len(chunk) <= size for chunk in chunks)


def test_chunks_are_drawn_as_they_are_needed() -> None:
    """A generator is read no further than the chunk that is asked for."""
    numbers = itertools.count()
    assert next(chunked(numbers, 3)) == [0, 1, 2]
    assert next(numbers) == 3


def test_chunks_of_nothing_are_none() -> None:
    """An empty input has no chunk, for any size."""
    assert list(chunked([], 0)) == []


def test_chunks_are_cut_by_weight_too() -> None:
    """An item too large for any chunk gets its own."""
    chunks = chunked_by_weight([1, 2, 3, 9, 1, 1, 1], 2, lambda item: item, 4)
    assert list(chunks) == [[1, 2], [3], [9], [1, 1], [1]]
    assert list(chunked_by_weight([], 2, lambda item: item, 4)) == []
