"""The sync API; `sqlmodel_crud_utils.aio` has the same names for async code.

A name is loaded when it is first used.
"""

from typing import TYPE_CHECKING

from sqlmodel_crud_utils._lazy import attach

if TYPE_CHECKING:
    from sqlmodel_crud_utils._sync.bulk_by_keys import bulk_update_rows, delete_rows_within_id_list
    from sqlmodel_crud_utils._sync.bulk_inserts import bulk_insert_rows
    from sqlmodel_crud_utils._sync.caching import invalidate_cache
    from sqlmodel_crud_utils._sync.connections import (
        PoolStatus,
        create_pooled_engine,
        get_session,
        pool_status,
        session_factory,
    )
    from sqlmodel_crud_utils._sync.get_or_create import get_one_or_create
    from sqlmodel_crud_utils._sync.inserts import InsertOutcome, insert_data_rows
    from sqlmodel_crud_utils._sync.query_builder import CursorPage, Page, QueryBuilder
    from sqlmodel_crud_utils._sync.reads import (
        get_result_from_query,
        get_row,
        get_rows,
        get_rows_within_id_list,
    )
    from sqlmodel_crud_utils._sync.replicas import read_after, replication_token, use_primary
    from sqlmodel_crud_utils._sync.repository import Repository
    from sqlmodel_crud_utils._sync.retries import is_transient, run_transaction
    from sqlmodel_crud_utils._sync.soft_deletes import purge_rows, restore_row, soft_delete_row
    from sqlmodel_crud_utils._sync.strict_loading import strict_loading
    from sqlmodel_crud_utils._sync.transactions import on_commit, transaction
    from sqlmodel_crud_utils._sync.upserts import UpsertCounts, bulk_upsert_mappings
    from sqlmodel_crud_utils._sync.writes import delete_row, update_row, write_row

__all__ = [
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
        "sqlmodel_crud_utils._sync",
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
