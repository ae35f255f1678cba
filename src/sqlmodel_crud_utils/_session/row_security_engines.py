"""Engines that tell PostgreSQL the tenant in scope, once in each transaction."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from sqlalchemy import Connection, Dialect, Engine, String, bindparam, cast, func, select

from sqlmodel_crud_utils._core.values.current_tenant import named_tenant
from sqlmodel_crud_utils._core.visibility.row_security import SETTING, question, refusal
from sqlmodel_crud_utils._session.liveness import renew_cursor
from sqlmodel_crud_utils._session.sqlalchemy_internals import is_autocommitting
from sqlmodel_crud_utils.exceptions import TenantError

# True: until the end of the transaction. Behind PgBouncer, the next one may be another client's.
_SET_CONFIG = select(func.set_config(SETTING, cast(bindparam("tenant"), String), True))

_TENANT = "sqlmodel_crud_utils.tenant"

# A rollback to a savepoint also undoes the setting; a transaction's modes must be set before it.
_ENDS = r"(?i)\s*(ROLLBACK|COMMIT|END|ABORT)\b"
_SETS = r"(?i)\s*SET\b"

_secured: WeakSet[Dialect] = WeakSet()


def is_secured(engine: Engine) -> bool:
    """Return whether an engine tells its database the tenant in scope."""
    return engine.dialect in _secured


def roles_checked(dialect: Dialect) -> Callable[..., None]:
    """Return a listener to new connections that refuses a role that bypasses row security."""
    _secured.add(dialect)
    is_checked = False

    def check(connection: Any, _entry: Any) -> None:
        nonlocal is_checked
        if not is_checked:
            is_checked = _check_role(dialect, connection)

    return check


def _check_role(dialect: Dialect, connection: Any) -> bool:
    """Refuse a role that bypasses row security; return whether all tables exist."""
    cursor = connection.cursor()
    try:
        cursor.execute(question(dialect))
        role, passes, open_tables, is_incomplete = cursor.fetchone()
    finally:
        cursor.close()
        connection.rollback()
    reason = refusal(role, passes, open_tables)
    if reason is not None:
        raise TenantError(reason, field="row_security")
    return not is_incomplete


def begun(connection: Connection, *_: Any) -> None:
    """Note that a transaction has begun, whose tenant is not set yet."""
    connection.info[_TENANT] = ""


def executing(
    connection: Connection, _cursor: Any, statement: str, _parameters: Any, context: Any, _many: Any
) -> None:
    """Set the tenant in scope before a statement, unless it is already set."""
    tenant = named_tenant()
    if re.match(_ENDS, statement):
        connection.info.pop(_TENANT, None)
        return
    if connection.info.get(_TENANT) == tenant or re.match(_SETS, statement):
        return
    if is_autocommitting(connection):
        if tenant:
            raise TenantError(
                "needs transactions, and AUTOCOMMIT has none; "
                "use an engine with a transactional isolation level",
                field="row_security",
            )
        return
    _set_tenant(connection, tenant, context)


def _set_tenant(connection: Connection, tenant: str, context: Any) -> None:
    before = connection.connection.dbapi_connection
    connection.info[_TENANT] = tenant  # first: the statement calls this listener, too
    try:
        connection.execute(_SET_CONFIG, {"tenant": tenant})
    except BaseException:
        connection.info.pop(_TENANT, None)
        raise
    if connection.connection.dbapi_connection is not before:
        # The connection was dead and has been replaced.
        connection.info[_TENANT] = tenant
        renew_cursor(context)
