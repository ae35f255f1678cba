"""The tenant in scope, and the parameter that statements have for it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BindParameter, String, bindparam
from sqlalchemy.types import TypeEngine

from sqlmodel_crud_utils._core.logs import log_line
from sqlmodel_crud_utils._core.memoizing import cached
from sqlmodel_crud_utils._core.scopes import Scope
from sqlmodel_crud_utils.exceptions import TenantError, ValidationError

Tenant = str | int | UUID

NO_TENANT = "no tenant is in scope; enter tenant_scope(...) or all_tenants()"

_MAX_LENGTH = 100


class _All:
    """The scope of `all_tenants`: the rows of all tenants."""


ALL: Final = _All()

_scope = Scope[Tenant | _All | None]("tenant", default=None)


def current_tenant() -> Tenant | None:
    """Return the tenant that `tenant_scope` has set here; None without one and in `all_tenants`.

    Example:
        >>> from sqlmodel_crud_utils._core.mixins import current_tenant, tenant_scope
        >>> with tenant_scope("acme"):
        ...     current_tenant()
        'acme'
    """
    found = _scope.get()
    return None if isinstance(found, _All) else found


def tenant_scope(tenant: Tenant) -> AbstractContextManager[None]:
    """Limit every statement inside the block to the rows of one tenant.

    The tenant applies to this task or thread, and to the tasks and `asyncio.to_thread` calls
    started from it; a bare thread has no tenant. Of nested blocks, the innermost counts. A session
    serves one tenant: its first statement on rows of tenants binds it to the tenant until it is
    closed; using it in the scope of another tenant raises a `TenantError`.

    Args:
        tenant: The `tenant_id` of the rows: an int, a UUID, or a string of at most 100 characters
            without surrounding spaces.

    Returns:
        A context manager for `with`, in async code too.

    Raises:
        ValidationError: None, an empty string, or any other value that cannot name a tenant.

    Example:
        >>> from sqlmodel_crud_utils._core.mixins import current_tenant, tenant_scope
        >>> with tenant_scope("acme"):
        ...     with tenant_scope("globex"):
        ...         inner = current_tenant()
        ...     outer = current_tenant()
        >>> inner, outer, current_tenant()
        ('globex', 'acme', None)
    """
    if not isinstance(tenant, str | int | UUID) or isinstance(tenant, bool):
        raise ValidationError(
            f"must be a str, an int or a UUID, not {type(tenant).__name__}", field="tenant"
        )
    # Some databases ignore trailing spaces when they compare texts.
    if isinstance(tenant, str) and (not tenant or tenant != tenant.strip()):
        raise ValidationError("must not be empty, and have no spaces around it", field="tenant")
    if isinstance(tenant, str) and len(tenant) > _MAX_LENGTH:
        raise ValidationError(f"must have at most {_MAX_LENGTH} characters", field="tenant")
    return _scope.holding(tenant)


def all_tenants() -> AbstractContextManager[None]:
    """Inside the block, reach the rows of all tenants.

    It is meant for admin pages, migrations and maintenance, and is logged at debug level. Inside, a
    new row must set its `tenant_id`. A session that serves a tenant cannot be used inside; a
    session that was used inside cannot serve a tenant until it is closed.

    Returns:
        A context manager for `with`, in async code too.

    Example:
        >>> from sqlmodel_crud_utils._core.mixins import all_tenants, current_tenant
        >>> with all_tenants():
        ...     current_tenant() is None
        True
    """
    log_line("all_tenants: statements reach the rows of all tenants", "debug")
    return _scope.holding(ALL)


def in_scope() -> Tenant | _All | None:
    """Return the tenant in scope, `ALL`, or None."""
    return _scope.get()


def all_in_scope() -> bool:
    """Return whether the rows of all tenants are in scope."""
    return _scope.get() is ALL


def named_tenant() -> str:
    """Return the tenant in scope as text; "" without a tenant, or with all of them."""
    tenant = current_tenant()
    return "" if tenant is None else str(tenant)


def nobody() -> AbstractContextManager[None]:
    """Clear the tenant scope inside the block, for code that has nothing to do with rows."""
    return _scope.holding(None)


def tenant_of_new_row() -> Tenant:
    """Return the tenant for a new row that names none.

    Raises:
        TenantError: There is no tenant, or there are all.
    """
    found = _scope.get()
    if isinstance(found, _All):
        raise TenantError("inside all_tenants() a new row must set its tenant_id", "tenant_id")
    if found is None:
        raise TenantError(NO_TENANT)
    return found


# --- in statements -------------------------------------------------------------------------------


TENANT_NAME = String(_MAX_LENGTH).with_variant(
    String(_MAX_LENGTH, collation="utf8mb4_bin"), "mysql", "mariadb"
)
"""The type of `tenant_id`; MySQL takes texts for equal that differ in case, unless told not to."""


@cached
def tenant_parameter(type_: TypeEngine[Any]) -> BindParameter[Any]:
    """Return the parameter for the tenant in scope, which is read when a statement runs.

    So one compiled statement serves all tenants, and without a tenant it is never sent.
    """
    kind: type[Tenant] = type_.python_type

    def value() -> Tenant:
        return _fitting(tenant_of_new_row(), kind)

    return bindparam(f"tenant_in_scope_{kind.__name__}", callable_=value, type_=type_)


@cached
def tenant_or_any(type_: TypeEngine[Any]) -> BindParameter[Any]:
    """Return the parameter for the tenant in scope; NULL in `all_tenants`."""
    kind: type[Tenant] = type_.python_type

    def value() -> Tenant | None:
        return None if all_in_scope() else _fitting(tenant_of_new_row(), kind)

    return bindparam(f"tenant_in_scope_or_any_{kind.__name__}", callable_=value, type_=type_)


def _fitting(tenant: Tenant, kind: type[Tenant]) -> Tenant:
    # MySQL finds most texts equal to 0.
    if isinstance(tenant, kind):
        return tenant
    raise TenantError(
        f"the tenant in scope must be of the type of tenant_id, {kind.__name__}", "tenant_id"
    )
