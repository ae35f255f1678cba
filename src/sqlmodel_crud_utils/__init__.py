"""CRUD, transactions, hooks and queries for SQLModel, for sync and async code alike.

Sync functions have their plain names here, async ones the prefix `a_`; `sqlmodel_crud_utils.sync`
and `sqlmodel_crud_utils.aio` hold them under the same names. A name is loaded when it is first
used, so that importing the package needs none of the optional packages and loads neither API.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlmodel_crud_utils.aio import (
        AsyncQueryBuilder,
        AsyncRepository,
        bulk_insert_rows as a_bulk_insert_rows,
        bulk_update_rows as a_bulk_update_rows,
        bulk_upsert_mappings as a_bulk_upsert_mappings,
        create_pooled_engine as a_create_pooled_engine,
        delete_row as a_delete_row,
        delete_rows_within_id_list as a_delete_rows_within_id_list,
        get_one_or_create as a_get_one_or_create,
        get_result_from_query as a_get_result_from_query,
        get_row as a_get_row,
        get_rows as a_get_rows,
        get_rows_within_id_list as a_get_rows_within_id_list,
        get_session as a_get_session,
        insert_data_rows as a_insert_data_rows,
        on_commit as a_on_commit,
        pool_status as a_pool_status,
        purge_rows as a_purge_rows,
        restore_row as a_restore_row,
        session_factory as a_session_factory,
        soft_delete_row as a_soft_delete_row,
        transaction as a_transaction,
        update_row as a_update_row,
        write_row as a_write_row,
    )
    from sqlmodel_crud_utils.exceptions import (
        BulkOperationError,
        ConflictError,
        ConstraintKind,
        ConstraintViolationError,
        DatabaseConnectionError,
        MultipleRecordsError,
        QueryExecutionError,
        RecordNotFoundError,
        SQLModelCRUDError,
        TransactionError,
        UnknownFieldError,
        ValidationError,
        multiple_found,
        not_found,
        validation_error,
    )
    from sqlmodel_crud_utils.hooks import (
        AfterCreate,
        AfterDelete,
        AfterUpdate,
        BeforeCreate,
        BeforeDelete,
        BeforeUpdate,
        OperationHook,
        ValidateOnWrite,
        clear_hooks,
        get_hooks,
        register_hook,
        registered_hook,
        unregister_hook,
    )
    from sqlmodel_crud_utils.mixins import (
        AuditMixin,
        SoftDeleteMixin,
        TimestampMixin,
        UTCDateTime,
        VersionMixin,
        acting_as,
        current_actor,
        unique_when_visible,
    )
    from sqlmodel_crud_utils.sync import (
        CursorPage,
        InsertOutcome,
        Page,
        PoolStatus,
        QueryBuilder,
        Repository,
        UpsertCounts,
        bulk_insert_rows,
        bulk_update_rows,
        bulk_upsert_mappings,
        create_pooled_engine,
        delete_row,
        delete_rows_within_id_list,
        get_one_or_create,
        get_result_from_query,
        get_row,
        get_rows,
        get_rows_within_id_list,
        get_session,
        insert_data_rows,
        on_commit,
        pool_status,
        purge_rows,
        restore_row,
        session_factory,
        soft_delete_row,
        transaction,
        update_row,
        write_row,
    )

__all__ = [
    "AfterCreate",
    "AfterDelete",
    "AfterUpdate",
    "AsyncQueryBuilder",
    "AsyncRepository",
    "AuditMixin",
    "BeforeCreate",
    "BeforeDelete",
    "BeforeUpdate",
    "BulkOperationError",
    "ConflictError",
    "ConstraintKind",
    "ConstraintViolationError",
    "CursorPage",
    "DatabaseConnectionError",
    "InsertOutcome",
    "MultipleRecordsError",
    "OperationHook",
    "Page",
    "PoolStatus",
    "QueryBuilder",
    "QueryExecutionError",
    "RecordNotFoundError",
    "Repository",
    "SQLModelCRUDError",
    "SoftDeleteMixin",
    "TimestampMixin",
    "TransactionError",
    "UTCDateTime",
    "UnknownFieldError",
    "UpsertCounts",
    "ValidateOnWrite",
    "ValidationError",
    "VersionMixin",
    "__version__",
    "a_bulk_insert_rows",
    "a_bulk_update_rows",
    "a_bulk_upsert_mappings",
    "a_create_pooled_engine",
    "a_delete_row",
    "a_delete_rows_within_id_list",
    "a_get_one_or_create",
    "a_get_result_from_query",
    "a_get_row",
    "a_get_rows",
    "a_get_rows_within_id_list",
    "a_get_session",
    "a_insert_data_rows",
    "a_on_commit",
    "a_pool_status",
    "a_purge_rows",
    "a_restore_row",
    "a_session_factory",
    "a_soft_delete_row",
    "a_transaction",
    "a_update_row",
    "a_write_row",
    "acting_as",
    "bulk_insert_rows",
    "bulk_update_rows",
    "bulk_upsert_mappings",
    "clear_hooks",
    "create_pooled_engine",
    "current_actor",
    "delete_row",
    "delete_rows_within_id_list",
    "get_hooks",
    "get_one_or_create",
    "get_result_from_query",
    "get_row",
    "get_rows",
    "get_rows_within_id_list",
    "get_session",
    "insert_data_rows",
    "multiple_found",
    "not_found",
    "on_commit",
    "pool_status",
    "purge_rows",
    "register_hook",
    "registered_hook",
    "restore_row",
    "session_factory",
    "soft_delete_row",
    "transaction",
    "unique_when_visible",
    "unregister_hook",
    "update_row",
    "validation_error",
    "write_row",
]

__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """Load a public name from the module that has it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    plain = name.removeprefix("a_")
    is_shared = plain == name and not name.startswith("Async")
    homes = ("exceptions", "hooks", "mixins", "sync") if is_shared else ("aio",)
    modules = (import_module(f"{__name__}.{home}") for home in homes)
    home = next(module for module in modules if plain in module.__all__)
    # From now on the name is found without this function.
    return globals().setdefault(name, getattr(home, plain))


def __dir__() -> list[str]:
    """Show the public names, loaded or not."""
    return sorted({*globals(), *__all__})
