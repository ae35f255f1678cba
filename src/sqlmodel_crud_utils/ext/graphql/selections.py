"""The selection of a GraphQL query: the fields of objects that will be executed."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from graphql import (
    DirectiveNode,
    FieldNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLResolveInfo,
    InlineFragmentNode,
    SelectionSetNode,
    VariableNode,
    get_named_type,
    is_abstract_type,
    is_object_type,
)

from sqlmodel_crud_utils.exceptions import ValidationError


def resolve_info(info: Any) -> GraphQLResolveInfo[Any]:
    """Return graphql-core's info, which Strawberry wraps in its own.

    Raises:
        ValidationError: The argument is not a resolver's info.
    """
    found: Any = getattr(info, "_raw_info", info)
    # Some servers have their own classes, not derived from graphql-core's.
    if all(hasattr(found, name) for name in ("field_nodes", "fragments", "return_type", "schema")):
        resolved: GraphQLResolveInfo[Any] = found
        return resolved
    raise ValidationError(
        f"must be the info of a GraphQL resolver, not {type(info).__name__}", field="info"
    )


def snake_case(name: str) -> str:
    """Return a GraphQL name in Python's snake case.

    Example:
        >>> snake_case("secretName"), snake_case("hasHTTPAddress"), snake_case("age__gte")
        ('secret_name', 'has_http_address', 'age__gte')
    """
    words = re.sub(r"([^_])([A-Z][a-z])", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", words).lower()


@dataclass(frozen=True)
class Selection:
    """The selection of a field's objects.

    Attributes:
        info: The query that is executed.
        sets: The selection sets of all occurrences of the field.
        type: The objects' type in the schema.
        types: The names of the object types that they may actually have.
    """

    info: GraphQLResolveInfo[Any]
    sets: tuple[SelectionSetNode, ...]
    type: Any
    types: frozenset[str]

    @classmethod
    def of(
        cls,
        info: GraphQLResolveInfo[Any],
        output: Any,
        nodes: Iterable[FieldNode],
        types: Collection[str] = (),
    ) -> Selection:
        """Return the selection of a field.

        Args:
            info: The query that is executed.
            output: The type of the field.
            nodes: All occurrences of the field in the query.
            types: The object types of its objects; by default, all that the schema allows.
        """
        named = get_named_type(output)
        sets = tuple(node.selection_set for node in nodes if node.selection_set is not None)
        possible = _object_types(info, named)
        return cls(info, sets, named, possible & frozenset(types) if types else possible)

    @cached_property
    def fields(self) -> Mapping[tuple[str, int], SelectedField]:
        """The selected fields, by name and definition."""
        found: dict[tuple[str, int], SelectedField] = {}
        visited: set[str] = set()
        for each in self.sets:
            for definition, node in self._collected(each, self.type, visited):
                key = (node.name.value, id(definition))
                earlier = found[key].nodes if key in found else ()
                found[key] = SelectedField(self.info, definition, (*earlier, node))
        return found

    def at(self, path: str) -> Selection:
        """Return the selection of objects at a dotted path."""
        found = self
        for name in path.split("."):
            below = [each for each in found.fields.values() if name in each.names]
            if not below:
                return Selection(self.info, (), None, frozenset())
            nodes = [node for each in below for node in each.nodes]
            found = Selection.of(self.info, below[0].definition.type, nodes)
        return found

    def _collected(
        self, selections: SelectionSetNode, static: Any, visited: set[str]
    ) -> Iterator[tuple[GraphQLField, FieldNode]]:
        for node in selections.selections:
            if not _is_included(self.info, node.directives or ()):
                continue
            if isinstance(node, FieldNode):
                definition = _definition(static, node.name.value)
                if definition is not None:
                    yield definition, node
                continue
            part = self._part(node, visited)
            if part is None:
                continue
            condition = part.type_condition
            target = static
            if condition is not None:
                target = self.info.schema.get_type(condition.name.value)
            if not self.types.isdisjoint(_object_types(self.info, target)):
                yield from self._collected(part.selection_set, target, visited)

    def _part(self, node: Any, visited: set[str]) -> Any:
        """Return a fragment, or None if it was already visited."""
        if isinstance(node, InlineFragmentNode):
            return node
        name = node.name.value if isinstance(node, FragmentSpreadNode) else None
        if name is None or name in visited:
            return None
        visited.add(name)
        return self.info.fragments.get(name)


@dataclass(frozen=True)
class SelectedField:
    """A selected field.

    Attributes:
        info: The query that is executed.
        definition: Its definition in the schema.
        nodes: All its occurrences in the query.
    """

    info: GraphQLResolveInfo[Any]
    definition: GraphQLField
    nodes: tuple[FieldNode, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The possible names of the Python attribute behind the field."""
        name = self.nodes[0].name.value
        # Strawberry notes the attribute's name; other servers keep the name or change its case.
        noted = (self.definition.extensions or {}).get("strawberry-definition")
        return (getattr(noted, "python_name", None) or name, name, snake_case(name))

    @property
    def takes_arguments(self) -> bool:
        """Whether the field has arguments, so that an attribute alone cannot answer it."""
        return bool(self.definition.args)

    @cached_property
    def selection(self) -> Selection:
        """The selection of its objects."""
        return Selection.of(self.info, self.definition.type, self.nodes)


def selection_of(info: Any, at: str | None = None, types: Collection[str] = ()) -> Selection:
    """Return the selection of the objects that a resolver returns.

    Args:
        info: The resolver's info.
        at: The path of the objects in the resolver's result, if they are not the result itself.
        types: Their object types; by default, all that the schema allows.
    """
    found = resolve_info(info)
    whole = Selection.of(found, found.return_type, found.field_nodes, () if at else types)
    if at is None:
        return whole
    part = whole.at(at)
    return Selection(found, part.sets, part.type, part.types & frozenset(types or part.types))


def _object_types(info: GraphQLResolveInfo[Any], named: Any) -> frozenset[str]:
    if is_object_type(named):
        return frozenset((named.name,))
    if is_abstract_type(named):
        return frozenset(each.name for each in info.schema.get_possible_types(named))
    return frozenset()


def _definition(static: Any, name: str) -> GraphQLField | None:
    """Return a field of a type; unions have no fields, and `__typename` belongs to no type."""
    if isinstance(static, GraphQLObjectType | GraphQLInterfaceType):
        found: GraphQLField | None = static.fields.get(name)
        return found
    return None


def _is_included(info: GraphQLResolveInfo[Any], directives: Iterable[DirectiveNode]) -> bool:
    wanted = {"include": True, "skip": False}
    return all(
        _condition(info, each) is wanted[each.name.value]
        for each in directives
        if each.name.value in wanted
    )


def _condition(info: GraphQLResolveInfo[Any], directive: DirectiveNode) -> bool:
    value: Any = next(each.value for each in directive.arguments or () if each.name.value == "if")
    if not isinstance(value, VariableNode):
        return bool(value.value)
    variables: Any = info.variable_values
    # graphql-core 3.3 wraps the values with their sources; Strawberry and 3.2 have plain values.
    return bool(getattr(variables, "coerced", variables)[value.name.value])
