"""How databases differ: one entry for each."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.dialects import mssql, mysql, postgresql, sqlite
from sqlalchemy.engine import make_url

import sqlmodel_crud_utils
from sqlmodel_crud_utils._core.dialects import (
    FEATURES,
    Features,
    features_of,
    insert_of,
    own_insert,
)
from sqlmodel_crud_utils.utils import get_sql_dialect_import
from tests.models import Hero

PACKAGE = Path(sqlmodel_crud_utils.__file__).parent
DIALECTS = {"postgresql": postgresql, "sqlite": sqlite, "mysql": mysql, "mariadb": mysql}


@pytest.mark.parametrize("name", FEATURES)
def test_an_entry_names_a_dialect_an_insert_and_an_extra(name: str) -> None:
    """For URLs, for writes, and for installation hints."""
    features = FEATURES[name]
    assert make_url(f"{name}://").get_dialect().name == name
    assert insert_of(features) is DIALECTS[name].insert
    assert get_sql_dialect_import(name) is DIALECTS[name].insert
    pyproject = tomllib.loads((PACKAGE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    assert features.extra in pyproject["project"]["optional-dependencies"]


@pytest.mark.parametrize("module", [postgresql, sqlite, mysql])
def test_the_own_insert_is_that_of_the_dialect(module: Any) -> None:
    """It knows the clause that the entry names."""
    dialect = module.dialect()
    statement = own_insert(dialect, Hero)
    assert type(statement) is module.Insert
    clause = {
        "ON CONFLICT": "on_conflict_do_nothing",
        "ON DUPLICATE KEY": "on_duplicate_key_update",
    }
    assert hasattr(statement, clause[features_of(dialect).conflict or ""])


def test_an_unknown_database_is_taken_for_a_plain_one() -> None:
    """Few parameters, no upsert, nothing that only some databases have."""
    features = features_of(mssql.dialect())
    assert (features.bind_limit, features.conflict, features.package) == (999, None, None)
    assert features.has_server
    assert not any((features.has_copy, features.has_arrays, features.has_json_each))


def test_mysql_and_mariadb_differ_in_name_only() -> None:
    """Other differences depend on the server's version, and are queried."""
    ours, theirs = FEATURES["mysql"], FEATURES["mariadb"]
    names = Features.__annotations__
    assert [name for name in names if getattr(ours, name) != getattr(theirs, name)] == ["title"]


@pytest.mark.parametrize("name", FEATURES)
def test_an_entry_says_what_is_asked(name: str) -> None:
    """A feature with its name misspelled would be without effect."""
    said = {each for each in vars(type(FEATURES[name])) if not each.startswith("__")}
    assert said <= set(Features.__annotations__)


COMPARED = re.compile(r"(dialect\.name|get_backend_name\(\)) *(==|!=|in|not in) *[\"'{(\[A-Z_]")


def test_no_module_tells_databases_apart_by_name() -> None:
    """It asks for the feature that matters, so that another database is one entry more."""
    texts = {str(file): file.read_text(encoding="utf-8") for file in PACKAGE.rglob("*.py")}
    assert [file for file, text in texts.items() if COMPARED.search(text)] == []
