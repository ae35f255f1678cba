"""The cost of input from outside is bounded by its size, for any content."""

from __future__ import annotations

import datetime as dt
import time
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from hypothesis import example, given, strategies as st
from pydantic import TypeAdapter, ValidationError as PydanticError

from sqlmodel_crud_utils._core.connections.positions import Position, position_in
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.queries.params import (
    alternatives_param,
    filter_param,
    key_type,
    page_params,
    search_param,
    sort_param,
)
from sqlmodel_crud_utils._core.values.coercion import coerce, is_coerced, is_storable, storable
from sqlmodel_crud_utils._core.values.columns import is_json
from sqlmodel_crud_utils._core.values.payload import changes_for
from sqlmodel_crud_utils.exceptions import ValidationError
from sqlmodel_crud_utils.ext.fastapi.filters import _alternatives_of
from sqlmodel_crud_utils.ext.fastapi.resources import is_among
from sqlmodel_crud_utils.ext.graphql.inputs import lookups
from tests.models import AllTypes
from tests.properties import examples
from tests.value_models import Configured, Typed

COLUMNS = [name for name in AllTypes.model_fields if name != "id"]
ATTRIBUTES = [
    *(getattr(AllTypes, name) for name in COLUMNS),
    *(getattr(Typed, name) for name in Typed.model_fields),
]


def nested(depth: int, kind: type[Any]) -> Any:
    """Return a list in a list in a list, or the same of dicts."""
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


def shared(depth: int) -> Any:
    """Return a list that holds another one twice, which holds another one twice, and so on."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value, value]
    return value


def cyclic() -> Any:
    """Return a list that holds itself."""
    value: list[Any] = []
    value.append(value)
    return value


EXPONENTS = st.integers(-(10**17), 10**17) | st.sampled_from((999_999, 10**9, -(10**9)))
LENGTHS = st.sampled_from((1, 5000, 100_000))
NUMBERS = st.builds("{}e{}".format, st.integers(-99, 99), EXPONENTS)
TEXTS = st.one_of(
    NUMBERS,
    NUMBERS.map("P{}D".format),
    st.builds(
        lambda text, times: text * times, st.sampled_from(("1", "9.", "P1D", "[", "a,")), LENGTHS
    ),
    st.builds("{}{}".format, st.text(max_size=5), st.sampled_from(("\0", "\ud800", "\udfff"))),
    st.text(),
    st.sampled_from(("nan", "inf", "-inf", "sNaN", "0e-999999999", "1" * 4301)),
)
VALUES = st.one_of(
    TEXTS,
    NUMBERS.map(Decimal),
    st.decimals(),
    st.floats(),
    st.integers(0, 400_000).map(lambda bits: 1 << bits),
    st.builds(nested, st.sampled_from((3, 499, 501, 100_000)), st.sampled_from((list, dict))),
    st.lists(st.floats() | st.text()),
    st.dictionaries(st.text(), TEXTS),
    st.binary(),
    st.dates() | st.datetimes() | st.timedeltas(),
)


def weighed(call: Callable[[], Any], value: Any) -> Any:
    """Call a function; what it takes is bounded by the size of the value."""
    size = len(value) if isinstance(value, str | list | dict) else 1000
    tracemalloc.start()
    began = time.process_time()
    try:
        return call()
    finally:
        spent = time.process_time() - began
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert spent < 1 + size / 50_000
        assert peak < 4_000_000 + 200 * size


@pytest.mark.filterwarnings("ignore:.*bool:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@given(st.sampled_from(ATTRIBUTES), VALUES)
@examples(800)
def test_a_value_is_coerced_at_a_bounded_cost(attribute: Any, value: Any) -> None:
    """Or refused; the result can be converted to text quickly, and is stable."""
    for convert, is_kept in ((coerce, is_coerced), (storable, is_storable)):
        try:
            made = weighed(lambda convert=convert: convert(attribute, value), value)
        except ValidationError:
            assert not is_kept(attribute, [value], {type(value)})
            continue
        if is_kept(attribute, [value], {type(value)}):
            assert repr(made) == repr(value)
        if isinstance(made, Decimal) and not is_json(attribute.type):
            assert len(f"{made:f}") <= 1200 + len(made.as_tuple().digits)
        if isinstance(made, str):
            assert "\0" not in made
            made.encode()


@pytest.mark.parametrize("value", [shared(400), cyclic()], ids=["shared", "cyclic"])
def test_values_that_hold_one_another_are_looked_at_once(value: Any) -> None:
    """No JSON has such, but a program may; what can be written, the serializer decides."""
    assert weighed(lambda: storable(AllTypes.payload, value), value) is value


FIELDS = [(model, name) for model in (Typed, Configured) for name in model.model_fields]


@given(st.sampled_from(FIELDS), VALUES)
@examples(400)
def test_an_update_is_validated_at_a_bounded_cost(field: tuple[Any, str], value: Any) -> None:
    """For any value of a field, a `ValidationError` is the only other outcome."""
    model, name = field
    try:
        changes = weighed(lambda: changes_for(facts_of(model), {name: value}), value)
    except ValidationError:
        return
    assert list(changes) == [name]


@given(
    st.sampled_from([name for name in COLUMNS if name not in {"blob", "payload"}]),
    st.sampled_from(("", "__gt", "__in", "__between", "__is_null")),
    TEXTS,
)
@examples(600)
def test_a_parameter_is_read_at_a_bounded_cost(name: str, lookup: str, text: str) -> None:
    """A filter from a query string is what the column can be compared with, or Pydantic's error."""
    param = filter_param(AllTypes, name + lookup)
    given: Any = [text] if lookup in {"__in", "__between"} else text
    try:
        found = weighed(lambda: TypeAdapter(param.type).validate_python(given), text)
    except PydanticError:
        return
    for value in found if isinstance(found, list) else [found]:
        if isinstance(value, Decimal):
            assert len(f"{value:f}") <= 1200 + len(value.as_tuple().digits)
        if isinstance(value, dt.timedelta):
            assert abs(value) <= dt.timedelta(days=700_000)


@given(st.lists(TEXTS, max_size=3))
@examples(400)
def test_what_to_sort_by_is_read_at_a_bounded_cost(given: list[str]) -> None:
    """Names that are offered, or Pydantic's error."""
    param = sort_param(AllTypes, ["integer", "text"], by_cursor=False)
    try:
        found = weighed(lambda: TypeAdapter(param.type).validate_python(given), "".join(given))
    except PydanticError:
        return
    assert {name.lstrip("-") for name in found} <= {"integer", "text"}


OFFERED = ["integer", "amount__gt", "text__in", "flag__is_null"]


@given(st.lists(st.one_of(TEXTS, st.builds("{}={}".format, st.sampled_from(OFFERED), TEXTS))))
@examples(400)
def test_alternatives_are_read_at_a_bounded_cost(given: list[str]) -> None:
    """Each is a set of filters that are offered, or the request's error."""
    read = _alternatives_of([filter_param(AllTypes, name) for name in OFFERED])
    try:
        checked = TypeAdapter(alternatives_param().type).validate_python(given)
        found = weighed(lambda: list(read(checked)), "".join(given))
    except (PydanticError, RequestValidationError):
        return
    assert all(set(filters) <= set(OFFERED) for filters in found)


@given(TEXTS)
@examples(400)
def test_what_to_search_for_and_which_page_is_read_at_a_bounded_cost(text: str) -> None:
    """Words, a cursor that is not read yet, a number in its bounds, or Pydantic's error."""
    pages = (
        each for by in (True, False) for each in page_params(by_cursor=by, size=5, max_size=50)
    )
    for param in (search_param(AllTypes, ["text"]), *pages):
        try:
            found = weighed(lambda param=param: TypeAdapter(param.type).validate_python(text), text)
        except PydanticError:
            continue
        assert found in (None, text) or 1 <= found <= 2**63


@given(st.sampled_from([name for name in COLUMNS if name not in {"blob", "payload"}]), TEXTS)
@examples(400)
def test_a_key_in_a_path_is_read_at_a_bounded_cost(name: str, text: str) -> None:
    """The result is a value for the column, or Pydantic's error."""
    attribute = getattr(AllTypes, name)
    try:
        found = weighed(lambda: TypeAdapter(key_type(attribute)).validate_python(text), text)
    except PydanticError:
        return
    assert coerce(attribute, found) == found


NAMES = st.one_of(
    st.sampled_from(("integer", "amount", "text", "eq", "gt", "in", "__", "regex")),
    TEXTS,
    st.builds(lambda text, times: text * times, st.sampled_from(("a__", "_", "aB")), LENGTHS),
)


@given(
    st.dictionaries(
        NAMES,
        st.recursive(VALUES | st.none(), lambda each: st.dictionaries(NAMES, each, max_size=2)),
        max_size=3,
    )
)
@example({"integer": nested(5000, dict)})
@example({"integer": nested(100_000, list)})
@examples(400)
def test_an_input_of_graphql_is_read_at_a_bounded_cost(given: dict[str, Any]) -> None:
    """Filters that are allowed, or one error; how deep it is does not matter."""
    allowed = {"integer", "amount", "text__in"}
    try:
        found = weighed(lambda: lookups(given, AllTypes, allow=allowed), "x" * 100_000)
    except ValidationError:
        return
    assert {name.partition("__")[0] for name in found} <= {"integer", "amount", "text"}


HEADERS = st.lists(
    st.one_of(
        TEXTS,
        st.sampled_from(('"1"', 'W/"1"', '"', "W/", "*", ",", '""', "\t")),
        st.builds(lambda text, times: text * times, st.sampled_from(('"', "W/", '"",')), LENGTHS),
    ),
    max_size=4,
).map("".join)


@given(HEADERS, st.booleans())
@examples(400)
def test_a_precondition_is_read_at_a_bounded_cost(header: str, weakly: bool) -> None:
    """A header matches only with the exact tag or `*`."""
    if weighed(lambda: is_among('"1"', header, weakly=weakly), header):
        assert '"1"' in header or header.strip() == "*"


DIGITS = st.text("0123456789abcdefABCDEF_+-. x", max_size=20)


@given(TEXTS | VALUES | st.builds("{}.{}.{}".format, DIGITS, DIGITS, DIGITS))
@examples(400)
def test_a_token_is_read_at_a_bounded_cost(token: Any) -> None:
    """One that was not made here is refused."""
    with pytest.raises(ValidationError, match="token"):
        weighed(lambda: position_in(token), token)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 33), st.characters())
@examples(400)
def test_a_token_is_what_was_made_and_nothing_beside_it(
    cluster: int, offset: int, place: int, other: str
) -> None:
    """Any modification is refused."""
    token = Position(cluster, offset).token()
    assert position_in(token) == (cluster, offset)
    place %= len(token) + 1
    with pytest.raises(ValidationError, match="token"):
        position_in(token[:place] + other + token[place:])
