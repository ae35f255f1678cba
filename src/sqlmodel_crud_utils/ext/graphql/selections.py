"""What a GraphQL query selects: fields of objects, as they will be executed."""

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
    """Return graphql-core's info; Strawberry has one of its own around it.

    Raises:
        ValidationError: Something that is not the info of a resolver.
    """
    found: Any = getattr(info, "_raw_info", info)
    # Servers have classes of their own, which are not derived from graphql-core's.
    if all(hasattr(found, name) for name in ("field_nodes", "fragments", "return_type", "schema")):
        resolved: GraphQLResolveInfo[Any] = found
        return resolved
    raise ValidationError(
        f"must be the info of a GraphQL resolver, not {type(info).__name__}", field="info"
    )


def snake_case(name: str) -> str:
    """Return a name of GraphQL as Python has it.

    Example:
        >>> snake_case("secretName"), snake_case("hasHTTPAddress"), snake_case("age__gte")
        ('secret_name', 'has_http_address', 'age__gte')
    """
    words = re.sub(r"([^_])([A-Z][a-z])", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", words).lower()


@dataclass(frozen=True)
class Selection:
    """What is selected of the objects that a field gives.

    Attributes:
        info: The query that is executed.
        sets: The selections, of all fields of this name.
        type: The type that the schema says the objects have.
        types: The names of the object types that they may have in fact.
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
        """Return what is selected of a field.

        Args:
            info: The query that is executed.
            output: The type of the field.
            nodes: The field, as often as the query names it.
            types: The object types that its objects have; without any, all that the schema allows.
        """
        named = get_named_type(output)
        sets = tuple(node.selection_set for node in nodes if node.selection_set is not None)
        possible = _object_types(info, named)
        return cls(info, sets, named, possible & frozenset(types) if types else possible)

    @cached_property
    def fields(self) -> Mapping[tuple[str, int], SelectedField]:
        """The fields that are selected, by their names and definitions."""
        found: dict[tuple[str, int], SelectedField] = {}
        visited: set[str] = set()
        for each in self.sets:
            for definition, node in self._collected(each, self.type, visited):
                key = (node.name.value, id(definition))
                earlier = found[key].nodes if key in found else ()
                found[key] = SelectedField(self.info, definition, (*earlier, node))
        return found

    def at(self, path: str) -> Selection:
        """Return what is selected of objects that are found by names with dots between them."""
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
        """Return a fragment, None for one that was met before."""
        if isinstance(node, InlineFragmentNode):
            return node
        name = node.name.value if isinstance(node, FragmentSpreadNode) else None
        if name is None or name in visited:
            return None
        visited.add(name)
        return self.info.fragments.get(name)


@dataclass(frozen=True)
class SelectedField:
    """A field that is selected.

    Attributes:
        info: The query that is executed.
        definition: What the schema says of it.
        nodes: The field, as often as the query names it.
    """

    info: GraphQLResolveInfo[Any]
    definition: GraphQLField
    nodes: tuple[FieldNode, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What an attribute of Python may be called that the field stands for."""
        name = self.nodes[0].name.value
        # Strawberry notes what it has made a field of; others keep names, or change their case.
        noted = (self.definition.extensions or {}).get("strawberry-definition")
        return (getattr(noted, "python_name", None) or name, name, snake_case(name))

    @property
    def takes_arguments(self) -> bool:
        """Whether more than an attribute is needed to answer it."""
        return bool(self.definition.args)

    @cached_property
    def selection(self) -> Selection:
        """What is selected of its objects."""
        return Selection.of(self.info, self.definition.type, self.nodes)


def selection_of(info: Any, at: str | None = None, types: Collection[str] = ()) -> Selection:
    """Return what is selected of the objects that a resolver returns.

    Args:
        info: The resolver's info.
        at: Where in its object they are, if it does not return them themselves.
        types: The object types that they have; without any, all that the schema allows.
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
    """Return a field of a type; unions have none, and `__typename` belongs to no type."""
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
    # graphql-core 3.3 tells how a value came there; Strawberry, and 3.2, the values alone.
    return bool(getattr(variables, "coerced", variables)[value.name.value])
