"""Load the columns and relationships of a selection, level by level."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeVar

from sqlmodel_crud_utils._core.models.facts import Facts, facts_of
from sqlmodel_crud_utils._core.queries.builder import QueryShape, query_of, session_of, whole
from sqlmodel_crud_utils._session.events import listen_to_loads, listen_to_shared_reads
from sqlmodel_crud_utils._session.lazy_loads import KEY, Strictness
from sqlmodel_crud_utils._session.sharing import share
from sqlmodel_crud_utils.exceptions import ValidationError
from sqlmodel_crud_utils.ext.graphql.selections import SelectedField, Selection, selection_of

__all__ = ["for_selection"]

B = TypeVar("B", bound=QueryShape[Any])

MAX_DEPTH = 5
_Path = tuple[str, ...]
# These strategies never load related rows with their row.
_NEVER_WITH_ROWS = frozenset(("dynamic", "write_only", "noload"))


def for_selection(
    builder: B,
    info: Any,
    *,
    max_depth: int = MAX_DEPTH,
    at: str | None = None,
    types: Collection[str] = (),
) -> B:
    """Return a builder that loads exactly what a GraphQL query selects of its rows.

    For rows and related rows, the selected columns, keys and foreign keys are loaded. Each level of
    relationships takes one more query (`selectin`), unless the builder already loads it in another
    way. A field that is not an attribute of the model is left to its resolver, and so is a
    relationship that takes arguments. If a resolver reads more fields of a row, add them with
    `load_only`, before or after: `for_selection(builder.load_only("age"), info)`.

    Reads of an `AsyncSession` used this way wait for each other, so that resolvers may run
    concurrently.

    Args:
        builder: A `QueryBuilder` or an `AsyncQueryBuilder`.
        info: The resolver's `info`: Strawberry's, or graphql-core's, as Ariadne and Graphene have.
        max_depth: How deeply relationships may be nested in the selection.
        at: Where the rows are in the resolver's result, such as "hero" of a payload or
            "page.items". By default, the result is the rows themselves.
        types: For rows of a union or an interface: the GraphQL types of the rows. The default is
            all of its types.

    Raises:
        ValidationError: The selection is deeper than `max_depth`; `info` is not a resolver's info.

    Example:
        >>> from graphql import build_schema, graphql_sync
        >>> schema = build_schema("type Query { heroes: [Hero!]! } type Hero { name: String! }")
        >>> def heroes(root, info):
        ...     return for_selection(QueryBuilder(session, Hero), info).all()
        >>> schema.query_type.fields["heroes"].resolve = heroes
        >>> graphql_sync(schema, "{ heroes { name } }").data
        {'heroes': []}
    """
    return selecting(builder, [selection_of(info, at, types)], max_depth)


def selecting(builder: B, selections: Collection[Selection], max_depth: int) -> B:
    """Return a builder that loads the selections of several places.

    Raises:
        ValidationError: A selection is too deep.
    """
    whole("max_depth", max_depth)
    plan: dict[_Path, dict[str, None]] = {}
    for selection in selections:
        _add(plan, (), facts_of(query_of(builder).model), selection, max_depth)
    _share_session(builder)
    names = [".".join((*path, name)) for path, fields in plan.items() for name in fields]
    return builder.load_only(*names)


def _add(
    plan: dict[_Path, dict[str, None]],
    path: _Path,
    facts: Facts,
    selection: Selection,
    max_depth: int,
) -> None:
    if len(path) > max_depth:
        raise ValidationError(
            f"the selection is too deep; it may go through {max_depth} relationships"
        )
    fields = plan.setdefault(path, dict.fromkeys(_keys(facts)))
    for selected in selection.fields.values():
        name = _attribute(facts, selected)
        if name is None:
            continue
        relationship = facts.relationships.get(name)
        if relationship is None:
            fields[name] = None
        elif not selected.takes_arguments and relationship.lazy not in _NEVER_WITH_ROWS:
            local = relationship.local_columns
            fields |= {key: None for key, column in facts.columns.items() if column in local}
            related = facts_of(relationship.mapper.class_)
            _add(plan, (*path, name), related, selected.selection, max_depth)


def _keys(facts: Facts) -> list[str]:
    foreign = [name for name, column in facts.columns.items() if column.foreign_keys]
    return [*facts.key, *foreign]


def _attribute(facts: Facts, selected: SelectedField) -> str | None:
    known = (
        name for name in selected.names if name in facts.columns or name in facts.relationships
    )
    name = next(known, None)
    return None if name in facts.queried else name


def _share_session(builder: Any) -> None:
    session = session_of(builder)
    listen_to_shared_reads()
    if hasattr(session, "sync_session"):
        from sqlmodel_crud_utils._runtime_async import CAN_LOAD

        session = session.sync_session
        # A lazy load raises an error that names the relationship; SQLAlchemy's shows the SQL.
        listen_to_loads()
        session.info.setdefault(KEY, Strictness(True, CAN_LOAD))
    share(session)
