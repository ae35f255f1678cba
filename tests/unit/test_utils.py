"""v0.1.0's helpers."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.dialects import mysql, postgresql, sqlite

from sqlmodel_crud_utils import utils
from sqlmodel_crud_utils._core import logs
from sqlmodel_crud_utils.exceptions import ValidationError


def test_get_val_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A set variable is returned, an empty one too; one that is not set is None."""
    monkeypatch.setenv("CRUD_TEST_VARIABLE", "x")
    assert utils.get_val("CRUD_TEST_VARIABLE") == "x"
    monkeypatch.setenv("CRUD_TEST_VARIABLE", "")
    assert utils.get_val("CRUD_TEST_VARIABLE") == ""
    monkeypatch.delenv("CRUD_TEST_VARIABLE")
    assert utils.get_val("CRUD_TEST_VARIABLE") is None


@pytest.mark.parametrize(
    ("dialect", "module"),
    [("sqlite", sqlite), ("postgresql", postgresql), ("mysql", mysql), ("mariadb", mysql)],
)
def test_the_insert_of_a_dialect(dialect: str, module: Any) -> None:
    """Each supported database has its own; MariaDB has MySQL's."""
    assert utils.get_sql_dialect_import(dialect) is module.insert


@pytest.mark.parametrize("dialect", ["oracle", "postgres", "", None, "os"])
def test_an_unknown_dialect(dialect: Any) -> None:
    """The error names the dialects that there are; nothing is imported by a foreign name."""
    with pytest.raises(ValidationError, match="mysql, postgresql, sqlite") as caught:
        utils.get_sql_dialect_import(dialect)
    assert caught.value.field == "dialect"


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("2024-02-29", True),
        ("2023-02-29", False),
        ("2024-02-29T10:00:00+02:00", True),
        ("1 May 2024", True),
        ("due on 1 May 2024", False),
        ("", False),
        ("hero", False),
        ("9" * 40, False),
        (20240229, False),
        (None, False),
        (b"2024-02-29", False),
    ],
)
def test_is_date(value: Any, answer: bool) -> None:
    """Anything that is not a date is False, never an error."""
    assert utils.is_date(value) is answer


def test_is_date_finds_a_date_among_words() -> None:
    """With fuzzy the words around a date do not matter."""
    assert utils.is_date("due on 1 May 2024", fuzzy=True)


def test_logger_is_the_one_that_the_library_uses() -> None:
    """Its configuration applies to the library."""
    assert utils.logger is logs.get_logger()
