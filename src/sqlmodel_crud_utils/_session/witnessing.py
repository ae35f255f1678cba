"""The caller's own statements on models with a witness, which reads rows before the write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Delete, Insert, Result, Update, select
from sqlalchemy.orm import ORMExecuteState, Session

from sqlmodel_crud_utils._core.models.facts import Facts
from sqlmodel_crud_utils._core.models.policies import elsewhere
from sqlmodel_crud_utils._core.queries.keys import Key, among_keys, key_chunks
from sqlmodel_crud_utils._core.sqlalchemy_internals import (
    conflict_clause_of,
    criteria_of,
    returns_rows,
    rows_of,
    values_of,
)
from sqlmodel_crud_utils._core.visibility.criteria import visible
from sqlmodel_crud_utils._session.routing import as_writing
from sqlmodel_crud_utils.exceptions import ValidationError

_UPSERTS = frozenset(("on_conflict_do_update", "on_duplicate_key_update"))


def keys_to_write(execution: ORMExecuteState, facts: Facts) -> list[Key]:
    """Return the keys of the rows that an UPDATE or DELETE reaches, and lock these rows.

    Raises:
        ValidationError: The statement sets primary keys, so the rows could not be found afterwards.
    """
    statement: Any = execution.statement
    if isinstance(statement, Update):
        _check_assignments(execution, statement, facts)
    parameters = execution.parameters
    if isinstance(parameters, list) and not criteria_of(statement):
        return [tuple(row[name] for name in facts.key) for row in parameters]
    key = [facts.columns[name] for name in facts.key]
    found = select(*key).where(*criteria_of(statement)).with_for_update(of=statement.table)
    within = visible(facts.model, elsewhere())
    if within is not None:
        found = found.where(within)
    sets = parameters if isinstance(parameters, list) else [parameters]
    session = execution.session
    return list(dict.fromkeys(row for each in sets for row in _rows(session, facts, found, each)))


def _check_assignments(execution: ORMExecuteState, statement: Update, facts: Facts) -> None:
    named = {getattr(each, "key", each) for each in values_of(statement)}
    if isinstance(execution.parameters, dict):
        named |= execution.parameters.keys()
    if not named.isdisjoint(facts.key):
        raise ValidationError(
            f"an update() of {facts.model.__name__} cannot set {', '.join(facts.key)}: its changes "
            "are recorded by that key; assign it to a row and flush",
            field="statement",
        )


def keys_among(session: Session, facts: Facts, keys: list[Key]) -> list[Key]:
    """Return the keys that still have a row."""
    found: list[Key] = []
    dialect = session.get_bind(facts.mapper).dialect
    own = [facts.columns[name] for name in facts.key]
    for chunk in key_chunks(facts.model, facts.key, keys, dialect):
        statement = select(*own).where(among_keys(facts.model, facts.key, chunk, dialect))
        found += _rows(session, facts, statement, None)
    return found


def _rows(session: Session, facts: Facts, statement: Any, parameters: Any) -> list[Key]:
    # On the connection, because the session would add criteria.
    with as_writing(session):
        connection = session.connection(bind_arguments={"mapper": facts.mapper})
    return [tuple(row) for row in connection.execute(statement, parameters)]


def narrowed(execution: ORMExecuteState, facts: Facts, keys: list[Key]) -> Update | Delete:
    """Return the statement limited to these rows, which are locked."""
    statement: Any = execution.statement
    dialect = execution.session.get_bind(facts.mapper).dialect
    fits = len(next(key_chunks(facts.model, facts.key, keys, dialect), ())) == len(keys)
    if not fits or isinstance(execution.parameters, list):
        return statement  # type: ignore[no-any-return]
    return statement.where(  # type: ignore[no-any-return]
        among_keys(facts.model, facts.key, keys, dialect)
    )


def inserted(execution: ORMExecuteState, facts: Facts) -> tuple[Result[Any], list[Key]]:
    """Execute an INSERT; return its result, and the keys of the new rows.

    Raises:
        ValidationError: The statement may update rows, or the database returns no keys for it.
    """
    statement: Any = execution.statement
    if conflict_clause_of(statement) in _UPSERTS:
        raise ValidationError(
            f"an insert() that may update rows of {facts.model.__name__} does not say which "
            "ones; use bulk_upsert_mappings",
            field="statement",
        )
    if _is_one_row(execution, statement):
        result: Any = execution.invoke_statement()
        # If nothing was inserted, SQLite still reports the last key, and PostgreSQL reports none.
        key = result.inserted_primary_key if result.rowcount else None
        return result, [] if key is None else [tuple(key)]
    if not execution.session.get_bind(facts.mapper).dialect.insert_returning:
        raise ValidationError(
            f"the database returns no keys for an insert() of many rows of "
            f"{facts.model.__name__}; use bulk_insert_rows",
            field="statement",
        )
    return _with_keys(execution, facts, statement)


def _is_one_row(execution: ORMExecuteState, statement: Insert) -> bool:
    many = rows_of(statement) or statement.select is not None
    return not (many or returns_rows(statement) or isinstance(execution.parameters, list))


def _with_keys(
    execution: ORMExecuteState, facts: Facts, statement: Insert
) -> tuple[Result[Any], list[Key]]:
    key: Sequence[Any] = [facts.columns[name] for name in facts.key]
    frozen = execution.invoke_statement(statement=statement.returning(*key)).freeze()
    keys = [tuple(row[-len(key) :]) for row in frozen()]
    wanted = len(frozen().keys()) - len(key)
    return frozen().columns(*range(wanted)) if wanted else frozen(), keys
