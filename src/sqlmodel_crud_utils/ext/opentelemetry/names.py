"""The names of attributes and metrics: OpenTelemetry's where it defines one, or else our own."""

from typing import Final

import sqlmodel_crud_utils

SCOPE: Final = "sqlmodel_crud_utils"
VERSION: Final = sqlmodel_crud_utils.__version__

# Attributes, of spans and of metrics.
FUNCTION: Final = "code.function.name"
COLLECTION: Final = "db.collection.name"
BATCH_SIZE: Final = "db.operation.batch.size"
RETURNED_ROWS: Final = "db.response.returned_rows"
STATUS_CODE: Final = "db.response.status_code"
ERROR_TYPE: Final = "error.type"
ALL_TENANTS: Final = "sqlmodel_crud.all_tenants"
WRITTEN_ROWS: Final = "sqlmodel_crud.rows_written"
ATTEMPTS: Final = "sqlmodel_crud.attempts"
CACHE_RESULT: Final = "sqlmodel_crud.cache.result"
REFUSED: Final = "sqlmodel_crud.limits.refused"
OUTCOME: Final = "sqlmodel_crud.transaction.outcome"

# Metrics, and their attributes.
DURATION: Final = "sqlmodel_crud.operation.duration"
RETRIES: Final = "sqlmodel_crud.retries"
CACHE_REQUESTS: Final = "sqlmodel_crud.cache.requests"
REFUSALS: Final = "sqlmodel_crud.limits.refused"
TRANSACTIONS: Final = "sqlmodel_crud.transactions"
RESULT: Final = "result"

# Of pools; OpenTelemetry calls these names experimental.
CONNECTIONS: Final = "db.client.connection.count"
MOST_CONNECTIONS: Final = "db.client.connection.max"
PENDING: Final = "db.client.connection.pending_requests"
TIMEOUTS: Final = "db.client.connection.timeouts"
POOL: Final = "db.client.connection.pool.name"
STATE: Final = "db.client.connection.state"
