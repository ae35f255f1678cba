"""The async API; `sqlmodel_crud_utils.sync` has the same names for sync code.

A name is loaded when it is first used.
"""

from typing import TYPE_CHECKING

from sqlmodel_crud_utils._lazy import attach

if TYPE_CHECKING:
    from sqlmodel_crud_utils._async.bulk_by_keys import bulk_update_rows, delete_rows_within_id_list
    from sqlmodel_crud_utils._async.bulk_inserts import bulk_insert_rows
    from sqlmodel_crud_utils._async.caching import invalidate_cache
    from sqlmodel_crud_utils._async.connections import (
        PoolStatus,
        create_pooled_engine,
        get_session,
        pool_status,
        session_factory,
    )
    from sqlmodel_crud_utils._async.get_or_create import get_one_or_create
    from sqlmodel_crud_utils._async.inserts import InsertOutcome, insert_data_rows
    from sqlmodel_crud_utils._async.query_builder import (
        AsyncQueryBuilder,
        AsyncQueryBuilder as QueryBuilder,
        CursorPage,
        Page,
    )
    from sqlmodel_crud_utils._async.reads import (
        get_result_from_query,
        get_row,
        get_rows,
        get_rows_within_id_list,
    )
    from sqlmodel_crud_utils._async.replicas import read_after, replication_token, use_primary
    from sqlmodel_crud_utils._async.repository import (
        AsyncRepository,
        AsyncRepository as Repository,
    )
    from sqlmodel_crud_utils._async.retries import is_transient, run_transaction
    from sqlmodel_crud_utils._async.soft_deletes import purge_rows, restore_row, soft_delete_row
    from sqlmodel_crud_utils._async.strict_loading import strict_loading
    from sqlmodel_crud_utils._async.transactions import on_commit, transaction
    from sqlmodel_crud_utils._async.upserts import UpsertCounts, bulk_upsert_mappings
    from sqlmodel_crud_utils._async.writes import delete_row, update_row, write_row

__all__ = [
    "AsyncQueryBuilder",
    "AsyncRepository",
    "CursorPage",
    "InsertOutcome",
    "Page",
    "PoolStatus",
    "QueryBuilder",
    "Repository",
    "UpsertCounts",
    "bulk_insert_rows",
    "bulk_update_rows",
    "bulk_upsert_mappings",
    "create_pooled_engine",
    "delete_row",
    "delete_rows_within_id_list",
    "get_one_or_create",
    "get_result_from_query",
    "get_row",
    "get_rows",
    "get_rows_within_id_list",
    "get_session",
    "insert_data_rows",
    "invalidate_cache",
    "is_transient",
    "on_commit",
    "pool_status",
    "purge_rows",
    "read_after",
    "replication_token",
    "restore_row",
    "run_transaction",
    "session_factory",
    "soft_delete_row",
    "strict_loading",
    "transaction",
    "update_row",
    "use_primary",
    "write_row",
]

if not TYPE_CHECKING:  # or every name would pass for one of them
    __getattr__, __dir__ = attach(
        globals(),
        __all__,
        "sqlmodel_crud_utils._async",
        (
            *("reads", "writes", "transactions", "connections", "query_builder", "repository"),
            *(
                "inserts",
                "get_or_create",
                "soft_deletes",
                "bulk_inserts",
                "bulk_by_keys",
                "upserts",
            ),
            *("retries", "replicas", "strict_loading", "caching"),
        ),
    )
