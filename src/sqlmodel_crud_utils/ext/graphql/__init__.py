"""GraphQL: load exactly what a query selects, in pages of limited size.

Needs the extra `graphql`: `pip install "sqlmodel-crud-utils[graphql]"`. It accepts the `info` of
every server that is based on graphql-core, such as Strawberry, Ariadne and Graphene. The functions
work with both APIs: with a `QueryBuilder` and with an `AsyncQueryBuilder`.
"""

try:
    import graphql as _graphql  # noqa: F401 - to say what is missing, and how to install it
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "sqlmodel_crud_utils.ext.graphql needs graphql-core: "
        'pip install "sqlmodel-crud-utils[graphql]"',
        name="graphql",
    ) from error

from sqlmodel_crud_utils.ext.graphql.inputs import lookups
from sqlmodel_crud_utils.ext.graphql.loaders import relationship_loader
from sqlmodel_crud_utils.ext.graphql.pages import Connection, Edge, PageInfo, connection
from sqlmodel_crud_utils.ext.graphql.selected_rows import for_selection

__all__ = [
    "Connection",
    "Edge",
    "PageInfo",
    "connection",
    "for_selection",
    "lookups",
    "relationship_loader",
]
