"""A session serves one tenant: from its first statement on rows of tenants until it is closed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy.orm import InstanceState, LoaderCallableStatus, ORMExecuteState, Session
from sqlalchemy.orm.attributes import instance_state, set_attribute
from sqlalchemy.orm.exc import ObjectDeletedError

from sqlmodel_crud_utils._core.models.tenant_keys import TENANT
from sqlmodel_crud_utils._core.values.coercion import is_sql
from sqlmodel_crud_utils._core.values.current_tenant import ALL, NO_TENANT, all_in_scope, in_scope
from sqlmodel_crud_utils._core.visibility.hiding import Hiding, is_callers
from sqlmodel_crud_utils._core.visibility.tenancy import (
    FIXED,
    FOREIGN,
    belongs_to_tenants,
    check_parameters,
    check_tenant,
    check_value,
    leads_to_tenants,
    reach_of,
    refusal_of_model,
)
from sqlmodel_crud_utils._session.changes import is_reported
from sqlmodel_crud_utils._session.state import noted, state_of
from sqlmodel_crud_utils.exceptions import TenantError


def serve(session: Session) -> None:
    """Bind a session to the scope.

    Raises:
        TenantError: The session already serves another scope.
    """
    scope = in_scope()
    if scope is None:
        return
    # A session that was closed, or has expunged all objects, has a new identity map.
    bound = noted(session).tenant
    if bound is None or bound[1] is not session.identity_map:
        state_of(session).tenant = scope, session.identity_map
    elif bound[0] != scope:
        raise TenantError(
            "this session already serves a different tenant, or all of them; "
            "close it first, or use another session"
        )


def serve_model(session: Session, model: type[Any] | None) -> None:
    """Bind a session to the scope before a library function works on a model with it.

    Raises:
        TenantError: The session already serves another scope, or no tenant is in scope and the
            model's rows belong to tenants.
    """
    if model is None or not leads_to_tenants(model):
        return
    if in_scope() is None and belongs_to_tenants(model):
        raise TenantError(NO_TENANT)
    serve(session)
    refusal = refusal_of_model(model)
    if refusal is not None and not all_in_scope():
        raise TenantError(refusal)


# --- statements ----------------------------------------------------------------------------------


def check_statement(execution: ORMExecuteState, hiding: Hiding | None) -> None:
    """Refuse a statement that cannot be limited to the rows of the tenant in scope.

    Args:
        execution: The statement that is about to run.
        hiding: The rows that it already leaves out, if it is the library's or loads more of a row.

    Raises:
        TenantError: The statement is refused; nothing was sent.
    """
    session, statement = execution.session, execution.statement
    if hiding is not None:
        mapper = execution.bind_mapper
        serve_model(session, None if mapper is None else mapper.class_)
        if not is_callers(execution.execution_options):
            return
    reach = reach_of(statement)
    if reach.names and in_scope() is None:
        raise TenantError(NO_TENANT)
    if reach.leads or (reach.raw and _is_bound(session)):
        serve(session)
    if all_in_scope():
        check_parameters(statement, execution.parameters)
        if reach.refusal == FIXED:
            raise TenantError(FIXED, field=TENANT)
        return
    is_any = execution.execution_options.get("any_tenant", False)
    if reach.raw and not is_any and (in_scope() is not None or _is_bound(session)):
        raise TenantError(
            "SQL text and DDL cannot be limited to the rows of one tenant; use models, or add "
            "execution_options(any_tenant=True) if it may reach the rows of all"
        )
    if is_reported(execution):  # its caller has checked the rows
        return
    refusal = reach.refusal or (reach.links if hiding is None else None)
    if refusal is not None:
        raise TenantError(refusal)
    check_parameters(statement, execution.parameters)


def _is_bound(session: Session) -> bool:
    bound = noted(session).tenant
    return bound is not None and bound[0] is not ALL and bound[1] is session.identity_map


# --- flushes -------------------------------------------------------------------------------------


def check_flush(session: Session) -> None:
    """Give new rows their tenant, and refuse to write another tenant's rows.

    Raises:
        TenantError: A row, or a row newly related to it, belongs to another tenant or would do
            so; nothing was written.
    """
    for row in (*session.new, *session.dirty, *session.deleted):
        _check_values(instance_state(row))
        if leads_to_tenants(type(row)):
            serve_model(session, type(row))
            check_row(row)


def _check_values(state: InstanceState[Any]) -> None:
    if all_in_scope():
        return
    for name in state.committed_state:
        value = state.dict.get(name)
        if is_sql(value):
            check_value(value)


def check_rows(rows: Iterable[Any]) -> None:
    """Check rows that are not in the session yet, as `check_row` does."""
    for row in rows:
        check_row(row)


def check_row(row: Any) -> None:
    """Give a new row its tenant, and refuse a row that belongs, or would belong, to another.

    Raises:
        TenantError: The row, or a row newly related to it, belongs to another tenant.
    """
    state = instance_state(row)
    if not leads_to_tenants(state.class_):
        return
    if belongs_to_tenants(state.class_):
        _check_own_tenant(state)
    _check_related(state)


def _check_own_tenant(state: InstanceState[Any]) -> None:
    given = state.dict.get(TENANT)
    if given is None and (state.key is None or TENANT in state.committed_state):
        # A new row without a tenant, perhaps copied onto an existing row by `merge`.
        given = check_tenant(None)
        set_attribute(state.obj(), TENANT, given)
    if state.key is None:
        check_tenant(given)
        return
    before = state.committed_state.get(TENANT, given)
    # The old tenant of an expired row is unknown; the flush only reaches rows of this tenant.
    if (in_scope() if before is LoaderCallableStatus.NO_VALUE else before) != given:
        raise TenantError(FIXED, field=TENANT)
    if given is not None and not all_in_scope():
        _check_own(given)


def _check_own(given: Any) -> None:
    if given != in_scope():
        raise TenantError(FOREIGN)


def _loaded_tenant(state: InstanceState[Any]) -> Any:
    """Return the tenant of a row of which the session knows only the key."""
    row, session = state.obj(), state.session
    if session is None:
        raise TenantError(FOREIGN)
    session.expire(row, [TENANT])
    try:
        # A flush would warn about the new row that refers to this one and is not in the session.
        with session.no_autoflush:
            return getattr(row, TENANT)
    except ObjectDeletedError:
        raise TenantError(FOREIGN) from None


def _check_related(state: InstanceState[Any]) -> None:
    own = state.dict.get(TENANT) if all_in_scope() else in_scope()
    for relationship in state.mapper.relationships:
        name = relationship.key
        if relationship.viewonly or not belongs_to_tenants(relationship.mapper.class_):
            continue
        if name not in state.committed_state and (state.key is not None or name not in state.dict):
            continue
        for related in state.attrs[name].history.added:
            if related is not None and own is not None:
                _check_same(own, instance_state(related), name)


def _check_same(own: Any, related: InstanceState[Any], name: str) -> None:
    given = related.dict.get(TENANT)
    if given is None and related.key is not None:
        given = _loaded_tenant(related)
    if given is not None and given != own:
        raise TenantError("a row cannot refer to a row of another tenant", field=name)
