"""Engines that tell PostgreSQL the tenant in scope, once in each transaction."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from sqlalchemy import Connection, Dialect, Engine, String, bindparam, cast, func, select

from sqlmodel_crud_utils._core.values.tenants import named_tenant
from sqlmodel_crud_utils._core.visibility.row_security import SETTING, question, refusal
from sqlmodel_crud_utils._session.liveness import renew_cursor
from sqlmodel_crud_utils._session.sqlalchemy_internals import is_autocommitting
from sqlmodel_crud_utils.exceptions import TenantError

# Until the end of the transaction: behind a PgBouncer the next one is somebody else's.
_TELL = select(func.set_config(SETTING, cast(bindparam("tenant"), String), True))

_TOLD = "sqlmodel_crud_utils.told_tenant"

# What is told in a savepoint is forgotten with it, and the modes of a transaction come first.
_ENDS = r"(?i)\s*(ROLLBACK|COMMIT|END|ABORT)\b"
_SETS = r"(?i)\s*SET\b"

_secured: WeakSet[Dialect] = WeakSet()


def is_secured(engine: Engine) -> bool:
    """Return whether an engine tells its database the tenant in scope."""
    return engine.dialect in _secured


def roles_checked(dialect: Dialect) -> Callable[..., None]:
    """Return what refuses a role for which row security does not hold, with new connections."""
    _secured.add(dialect)
    is_checked = False

    def check(connection: Any, _entry: Any) -> None:
        nonlocal is_checked
        if not is_checked:
            is_checked = _check_role(dialect, connection)

    return check


def _check_role(dialect: Dialect, connection: Any) -> bool:
    """Refuse a role for which row security does not hold; return whether all tables are there."""
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
    """Note that a transaction has begun, in which nothing was told yet."""
    connection.info[_TOLD] = ""


def executing(
    connection: Connection, _cursor: Any, statement: str, _parameters: Any, context: Any, _many: Any
) -> None:
    """Tell the tenant in scope before a statement that needs it."""
    tenant = named_tenant()
    if re.match(_ENDS, statement):
        connection.info.pop(_TOLD, None)
        return
    if connection.info.get(_TOLD) == tenant or re.match(_SETS, statement):
        return
    if is_autocommitting(connection):
        if tenant:
            raise TenantError(
                "needs transactions, and AUTOCOMMIT has none; "
                "use an engine with a transactional isolation level",
                field="row_security",
            )
        return
    _tell(connection, tenant, context)


def _tell(connection: Connection, tenant: str, context: Any) -> None:
    before = connection.connection.dbapi_connection
    connection.info[_TOLD] = tenant  # it is a statement, too
    try:
        connection.execute(_TELL, {"tenant": tenant})
    except BaseException:
        connection.info.pop(_TOLD, None)
        raise
    if connection.connection.dbapi_connection is not before:
        # The connection was dead, and another one has taken its place.
        connection.info[_TOLD] = tenant
        renew_cursor(context)
