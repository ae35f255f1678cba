"""Relay connections: pages of rows."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from sqlmodel_crud_utils._core.queries.builder import session_of, whole
from sqlmodel_crud_utils._core.queries.cursors import PageAfter
from sqlmodel_crud_utils.ext.graphql.selected_rows import MAX_DEPTH
from sqlmodel_crud_utils.ext.graphql.selections import Selection, selection_of

if TYPE_CHECKING:
    from sqlmodel_crud_utils._async.query_builder import AsyncQueryBuilder
    from sqlmodel_crud_utils._sync.query_builder import QueryBuilder

__all__ = ["Connection", "Edge", "PageInfo", "connection"]

T = TypeVar("T")

_SIZE = 20


@dataclass(frozen=True, slots=True)
class PageInfo:
    """The position of a page among the others.

    Attributes:
        has_next_page: Whether there are rows after this page.
        has_previous_page: Whether the page was requested with a cursor, so that there are rows
            before it.
    """

    has_next_page: bool
    has_previous_page: bool
    _page: PageAfter[Any] | None = field(repr=False)

    @property
    def start_cursor(self) -> str | None:
        """The cursor of the first row; None if the page is empty."""
        return self._page.cursor_of(0) if self._page and self._page.found else None

    @property
    def end_cursor(self) -> str | None:
        """The cursor of the last row, to pass as `after` for the next page."""
        return self._page.cursor_of(-1) if self._page and self._page.found else None

    @property
    def hasNextPage(self) -> bool:  # noqa: N802 - what graphql-core asks for
        """An alias with GraphQL's name."""
        return self.has_next_page

    @property
    def hasPreviousPage(self) -> bool:  # noqa: N802
        """An alias with GraphQL's name."""
        return self.has_previous_page

    @property
    def startCursor(self) -> str | None:  # noqa: N802
        """An alias with GraphQL's name."""
        return self.start_cursor

    @property
    def endCursor(self) -> str | None:  # noqa: N802
        """An alias with GraphQL's name."""
        return self.end_cursor


@dataclass(frozen=True, slots=True)
class Edge(Generic[T]):
    """A row of a page, and the cursor for the rows after it.

    Attributes:
        node: The row.
    """

    node: T
    _page: PageAfter[T] = field(repr=False)
    _place: int = field(repr=False)

    @property
    def cursor(self) -> str:
        """Its cursor."""
        return self._page.cursor_of(self._place)


@dataclass(frozen=True, slots=True)
class Connection(Generic[T]):
    """A page of rows as a Relay connection, also with GraphQL's names, such as `pageInfo`.

    Attributes:
        nodes: The rows.
        edges: The rows, each with its cursor.
        page_info: The position of the page among the others.
        total_count: How many rows match on all pages; None if the query does not select it.
    """

    nodes: list[T]
    edges: list[Edge[T]]
    page_info: PageInfo
    total_count: int | None = None

    @property
    def pageInfo(self) -> PageInfo:  # noqa: N802 - what graphql-core asks for
        """An alias with GraphQL's name."""
        return self.page_info

    @property
    def totalCount(self) -> int | None:  # noqa: N802
        """An alias with GraphQL's name."""
        return self.total_count


@overload
def connection(
    builder: AsyncQueryBuilder[T],
    info: Any,
    *,
    first: int | None = None,
    after: str | None = None,
    max_size: int = 100,
    max_depth: int = MAX_DEPTH,
) -> Coroutine[Any, Any, Connection[T]]: ...
@overload
def connection(
    builder: QueryBuilder[T],
    info: Any,
    *,
    first: int | None = None,
    after: str | None = None,
    max_size: int = 100,
    max_depth: int = MAX_DEPTH,
) -> Connection[T]: ...
def connection(
    builder: Any,
    info: Any,
    *,
    first: int | None = None,
    after: str | None = None,
    max_size: int = 100,
    max_depth: int = MAX_DEPTH,
) -> Any:
    """Return the page of rows after a cursor, as a Relay connection.

    It loads what the query selects below `edges { node }` and `nodes`, as `for_selection` does, and
    counts the rows only if `totalCount` is selected. Pages stay correct while rows are written and
    deleted; see `keyset` of the query builder.

    Args:
        builder: A query builder; with one of the async API, await the result.
        info: The resolver's `info`.
        first: How many rows the page has. The default is 20, or `max_size` if that is lower.
        after: The cursor of a row. Without it, the page begins with the first row.
        max_size: The largest page that clients may ask for.
        max_depth: How deeply relationships of a row may be nested in the selection.

    Returns:
        The page. Declare its GraphQL type yourself, with the fields that you need.

    Raises:
        ValidationError: A `first` below 1 or above `max_size`; a cursor that is damaged, or of
            another query; a selection that is too deep; a query that has a limit or an offset.

    Example:
        >>> from graphql import build_schema, graphql_sync
        >>> schema = build_schema('''
        ...     type Query { heroes(first: Int, after: String): Heroes! }
        ...     type Heroes { nodes: [Hero!]! pageInfo: PageInfo! totalCount: Int! }
        ...     type PageInfo { hasNextPage: Boolean! endCursor: String }
        ...     type Hero { name: String! }
        ... ''')
        >>> def heroes(root, info, first=None, after=None):
        ...     query = QueryBuilder(session, Hero).order_by("name")
        ...     return connection(query, info, first=first, after=after)
        >>> schema.query_type.fields["heroes"].resolve = heroes
        >>> query = "{ heroes { nodes { name } pageInfo { hasNextPage } totalCount } }"
        >>> graphql_sync(schema, query).data["heroes"]
        {'nodes': [], 'pageInfo': {'hasNextPage': False}, 'totalCount': 0}
    """
    most = whole("max_size", max_size, least=1)
    size = min(_SIZE, most) if first is None else whole("first", first, least=1, most=most)
    tree = "_async" if hasattr(session_of(builder), "sync_session") else "_sync"
    # Imported here, so that neither API loads the other.
    twin: Any = import_module(f"sqlmodel_crud_utils.ext.graphql.{tree}.selected_pages")
    return twin.page(builder, Selected.by(info), size, after, max_depth)


@dataclass(frozen=True, slots=True)
class Selected:
    """The selection of a connection.

    Attributes:
        rows: The selections of its rows.
        has_rows: Whether a page of rows is needed.
        has_total: Whether their total number is needed.
    """

    rows: tuple[Selection, ...]
    has_rows: bool
    has_total: bool

    @classmethod
    def by(cls, info: Any) -> Selected:
        """Return the selection of a resolver's query."""
        selection = selection_of(info)
        names = {name for each in selection.fields.values() for name in each.names}
        return cls(
            rows=(selection.at("edges.node"), selection.at("nodes")),
            has_rows=bool({"edges", "nodes", "page_info"} & names),
            has_total="total_count" in names,
        )


def connection_of(page: PageAfter[T] | None, total: int | None, *, is_later: bool) -> Connection[T]:
    """Return a page as a Relay connection.

    Args:
        page: The rows; None if they are not selected.
        total: How many rows match; None if it is not selected.
        is_later: Whether the page follows a cursor.
    """
    if page is None:
        return Connection([], [], PageInfo(False, is_later, None), total)
    edges = [Edge(row, page, place) for place, row in enumerate(page.rows)]
    return Connection(page.rows, edges, PageInfo(page.has_more, is_later, page), total)
