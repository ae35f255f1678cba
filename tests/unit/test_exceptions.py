"""The public errors: their texts, their attributes, and that they survive pickle and copy."""

from __future__ import annotations

import copy
import pickle
import sqlite3
import traceback
from collections.abc import Callable
from typing import Any

import asyncpg
import psycopg
import pytest
from hypothesis import example, given, strategies as st
from sqlalchemy import exc
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, MultipleResultsFound

from sqlmodel_crud_utils import exceptions
from sqlmodel_crud_utils.exceptions import (
    BulkOperationError,
    ConflictError,
    ConstraintViolationError,
    DatabaseConnectionError,
    MigrationLockError,
    MultipleRecordsError,
    QueryExecutionError,
    RateLimitExceededError,
    RateLimitUnavailableError,
    RecordNotFoundError,
    RelationshipNotLoadedError,
    SchemaMismatchError,
    SQLModelCRUDError,
    TenantError,
    TransactionError,
    UnknownFieldError,
    ValidationError,
    hide_password,
    multiple_found,
    not_found,
    validation_error,
)
from tests.models import Hero, Team

SECRET = "s3cr3t"


def _local_model() -> type[Any]:
    class LocalModel:
        """A class that pickle cannot find."""

    return LocalModel


class UnpicklableError(Exception):
    """An error as drivers have them: with something inside that cannot be pickled."""

    def __init__(self) -> None:
        super().__init__(SECRET)
        self.callback = lambda: None


class UnreadablePickleError(Exception):
    """An error that can be pickled, but not be read again."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


class UsersError(RecordNotFoundError):
    """A subclass with a constructor of its own."""

    def __init__(self, *, tenant: str) -> None:
        super().__init__(Hero, 7)
        self.tenant = tenant


MAKERS: list[Callable[[type[Any], Exception], SQLModelCRUDError]] = [
    lambda _model, _error: SQLModelCRUDError("something"),
    lambda model, _error: RecordNotFoundError(model, (1, "a"), pk_field=("row", "number")),
    lambda model, _error: MultipleRecordsError(model, 3, {"name": "x"}),
    lambda model, error: ValidationError("wrong", field="age", value=model, errors=[error]),
    lambda model, _error: UnknownFieldError(model, "nmae", ["id", "name"]),
    lambda _model, error: ConstraintViolationError(
        "taken", "name", error, {"a": error}, kind="unique", constraint="uq", columns=("name",)
    ),
    lambda model, error: BulkOperationError(10, 1, [(3, error)], [model], failed_records=[error]),
    lambda _model, _error: RelationshipNotLoadedError("Hero.team is not loaded"),
    lambda _model, _error: RateLimitExceededError("100/minute", 0.6),
    lambda _model, _error: RateLimitExceededError("100/minute", None),
    lambda _model, _error: RateLimitUnavailableError(),
    lambda _model, _error: MigrationLockError(600),
    lambda _model, _error: SchemaMismatchError(["table hero is missing"]),
    lambda _model, _error: TenantError("no tenant is in scope"),
    lambda _model, error: TransactionError("no", operation="commit", original_error=error),
    lambda model, _error: ConflictError(model, 5, expected=1, found=2),
    lambda _model, error: DatabaseConnectionError("no", "sqlite://", original_error=error),
    lambda _model, error: QueryExecutionError("no", "SELECT 1", original_error=error),
    lambda _model, _error: UsersError(tenant="t"),
]
COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda error: pickle.loads(pickle.dumps(error)),
    "old pickle": lambda error: pickle.loads(pickle.dumps(error, protocol=0)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


def test_every_public_error_is_among_the_examples() -> None:
    """A new error has to be added to the pickle tests."""
    public = {getattr(exceptions, name) for name in exceptions.__all__ if name.endswith("Error")}
    assert public <= {type(make(Hero, ValueError())) for make in MAKERS}


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
class TestCopies:
    def test_keep_everything(
        self, make: Callable[..., SQLModelCRUDError], copied: Callable[[Any], Any]
    ) -> None:
        """Class, text and attributes are the same, those that a user added included."""
        error = make(Hero, ValueError("x"))
        error.request_id = 17  # type: ignore[attr-defined]
        error.add_note("a note")
        twin = copied(error)
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert twin.args == error.args
        assert set(vars(twin)) == set(vars(error))
        assert twin.request_id == 17
        assert twin.__notes__ == ["a note"]
        assert getattr(twin, "model", None) is getattr(error, "model", None)

    @pytest.mark.parametrize(
        "original",
        [
            UnpicklableError(),
            UnreadablePickleError(SECRET, SECRET),
            asyncpg.UniqueViolationError(SECRET),
            psycopg.errors.UniqueViolation(SECRET),
            IntegrityError("INSERT", {}, UnpicklableError()),
        ],
        ids=lambda original: type(original).__name__,
    )
    def test_never_fail(
        self,
        make: Callable[..., SQLModelCRUDError],
        copied: Callable[[Any], Any],
        original: Exception,
    ) -> None:
        """A model or an error that cannot be pickled does not matter; the text is the same."""
        error = make(_local_model(), original)
        twin = copied(error)
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert set(vars(twin)) == set(vars(error))


def test_what_cannot_be_pickled_arrives_as_its_name() -> None:
    """A model becomes its name, an error a plain one without its text, anything else a note."""
    twin = pickle.loads(
        pickle.dumps(
            BulkOperationError(
                3, 2, [(0, UnpicklableError())], (_local_model(), 1), [{"f": lambda: SECRET}]
            )
        )
    )
    assert twin.successful == ("LocalModel", 1)
    assert twin.indexes == (0,)
    assert type(twin.errors[0][1]) is Exception
    assert str(twin.errors[0][1]) == f"{__name__}.UnpicklableError"
    assert twin.failed_records == [{"f": "<builtins.function>"}]


def test_copies_keep_the_cause() -> None:
    """The driver's error stays reachable from a copy in the same process."""
    error = ValidationError("x")
    error.__cause__ = KeyError("y")
    assert copy.copy(error).__cause__ is error.__cause__
    assert copy.deepcopy(error).__cause__ is error.__cause__


def test_deepcopy_copies_values() -> None:
    """A list in a deep copy is another list; in a shallow one it is the same."""
    error = ValidationError("x", value=[1])
    assert copy.deepcopy(error).value == [1]
    assert copy.deepcopy(error).value is not error.value
    assert copy.copy(error).value is error.value


class TestNotFound:
    @pytest.mark.parametrize(
        ("error", "text"),
        [
            (RecordNotFoundError(Hero, 5), "Hero with id=5 not found"),
            (RecordNotFoundError("Hero", "a", pk_field="name"), "Hero with name='a' not found"),
            (
                RecordNotFoundError("Seat", ("A", 3), pk_field=("row", "number")),
                "Seat with row='A', number=3 not found",
            ),
            (RecordNotFoundError("Seat", 3, pk_field=["number"]), "Seat with number=3 not found"),
            (RecordNotFoundError(Hero, {"name": SECRET}), "No Hero matches the filters on name"),
            (RecordNotFoundError(Hero, {}), "No Hero matches the query"),
            (not_found(Team, 1), "Team with id=1 not found"),
        ],
    )
    def test_text(self, error: RecordNotFoundError, text: str) -> None:
        """The message has the key with its columns; of filters, only the names."""
        assert str(error) == text

    def test_a_long_or_broken_value_does_not_harm(self) -> None:
        """A key that cannot be shown, or only at length, is shortened."""

        class Broken:
            def __repr__(self) -> str:
                raise ZeroDivisionError

        assert str(RecordNotFoundError(Hero, Broken())) == "Hero with id=<Broken> not found"
        assert len(str(RecordNotFoundError(Hero, "x" * 10_000))) < 300

    def test_attributes(self) -> None:
        """The searched values are available."""
        error = not_found(Hero, 5)
        assert (error.model, error.id_value, error.pk_field) == (Hero, 5, "id")

    @pytest.mark.parametrize("names", ["name", ("name",), ["name"]])
    def test_one_column_is_a_name(self, names: Any) -> None:
        """However it was given; several are a tuple."""
        assert RecordNotFoundError(Hero, 5, names).pk_field == "name"
        assert RecordNotFoundError("Seat", ("A", 1), ["row", "number"]).pk_field == (
            "row",
            "number",
        )


class TestMultiple:
    def test_it_is_what_v0_1_0_raised(self) -> None:
        """Code that catches SQLAlchemy's error keeps working."""
        error = multiple_found(Hero, 2, {"name": SECRET})
        assert isinstance(error, MultipleResultsFound)
        assert isinstance(error, SQLModelCRUDError)
        assert (error.model, error.count, error.filters) == (Hero, 2, {"name": SECRET})
        assert str(error) == "Expected 1 Hero, found 2 (filters on name)"
        assert str(MultipleRecordsError("Hero", 3)) == "Expected 1 Hero, found 3"


class TestValidation:
    def test_text_and_attributes(self) -> None:
        """The value is an attribute, but not in the message."""
        error = validation_error("too short", field="password", value=SECRET)
        assert str(error) == "Validation failed for 'password': too short"
        assert (error.field, error.value, error.errors) == ("password", SECRET, None)
        assert str(ValidationError("no such thing")) == "Validation failed: no such thing"

    def test_messages_per_field_are_told(self) -> None:
        """A mapping has messages; errors in it appear by class, as their text may hold values."""
        errors = {"age": "must be positive", "name": ValueError(SECRET)}
        error = ValidationError("two fields", errors=errors)
        assert str(error) == (
            "Validation failed: two fields\n  age: must be positive\n  name: ValueError"
        )

    def test_details_of_pydantic_are_not_told(self) -> None:
        """A list such as Pydantic's holds the values."""
        error = ValidationError("one field", errors=[{"loc": ("age",), "input": SECRET}])
        assert SECRET not in str(error)

    def test_a_constraint_violation_is_one(self) -> None:
        """A broken constraint can be handled like any other wrong value."""
        error = ConstraintViolationError("taken", "name", kind="unique", columns=["name"])
        assert isinstance(error, ValidationError)
        assert (error.kind, error.constraint, error.columns) == ("unique", None, ("name",))
        assert str(error) == "Validation failed for 'name': taken"
        assert ConstraintViolationError("x").kind is None


class TestUnknownField:
    def test_it_names_what_there_is(self) -> None:
        """The message lists the names, and suggests the one that was probably meant."""
        error = UnknownFieldError(Team, "cty", ["id", "name", "city"])
        assert isinstance(error, AttributeError)
        assert isinstance(error, ValidationError)
        assert error.field == "cty"
        assert error.choices == ("id", "name", "city")
        assert str(error) == (
            "Validation failed: Team has no field 'cty'; did you mean 'city'? "
            "Available fields: id, name, city"
        )

    def test_nothing_is_suggested_where_nothing_is_near(self) -> None:
        """No guess is better than a wild one, and a model may have none of it at all."""
        far = UnknownFieldError(Team, "zzz", ["id"], what="lookup")
        none = UnknownFieldError("Seat", "team", [], what="relationship")
        assert str(far) == "Validation failed: Team has no lookup 'zzz'. Available lookups: id"
        assert str(none) == "Validation failed: Seat has no relationship 'team'. The model has none"

    def test_python_adds_no_suggestion_of_its_own(self) -> None:
        """The traceback shows one suggestion, not a second one of the interpreter."""
        try:
            raise UnknownFieldError(Team, "nme", ["name"])
        except UnknownFieldError as error:
            shown = "".join(traceback.format_exception(error))
        assert shown.lower().count("did you mean") == 1


class TestBulk:
    def test_text_names_the_share_and_every_index(self) -> None:
        """How many failed, how many went well, and where."""
        error = BulkOperationError(100, 3, [(4, ValueError()), (17, "b"), (80, "c")])
        assert str(error) == (
            "Bulk operation failed: 3/100 rows failed (success rate 97.0%), at index 4, 17, 80"
        )
        assert error.indexes == (4, 17, 80)
        assert error.success_rate == 97.0

    def test_long_lists_are_cut_in_the_text_only(self) -> None:
        """Ten thousand failures do not make a text of pages."""
        error = BulkOperationError(10_000, 10_000, ((n, "x") for n in range(10_000)))
        assert len(error.indexes) == 10_000
        assert str(error).endswith("98, 99 and 9900 more")

    def test_no_rows_at_all(self) -> None:
        """Nothing is divided by zero."""
        assert "0/0 rows failed (success rate 0.0%)" in str(BulkOperationError(0, 0, []))

    def test_summary_tells_each_error_without_values(self) -> None:
        """The library's errors are included in full, others by class."""
        errors: list[Any] = [
            (1, ValidationError("too long", field="name")),
            (2, ValueError(SECRET)),
            "a message",
            KeyError(SECRET),
        ]
        summary = BulkOperationError(9, 4, errors).get_error_summary()
        assert summary.splitlines()[1:] == [
            "  index 1: ValidationError: Validation failed for 'name': too long",
            "  index 2: ValueError",
            "  a message",
            "  KeyError",
        ]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TransactionError(), "Transaction failed"),
        (TransactionError("doomed"), "doomed"),
        (TransactionError(operation="commit"), "Transaction failed at commit"),
        (
            TransactionError(original_error=ValueError("no seats left")),
            "Transaction failed: ValueError: no seats left",
        ),
        (TransactionError(original_error=KeyError()), "Transaction failed: KeyError"),
        (
            TransactionError(original_error=exc.InvalidRequestError(SECRET)),
            "Transaction failed: InvalidRequestError",
        ),
        (
            TransactionError(original_error=sqlite3.IntegrityError(SECRET)),
            "Transaction failed: IntegrityError",
        ),
        (
            TransactionError(original_error=RecordNotFoundError(Hero, 5)),
            "Transaction failed: RecordNotFoundError: Hero with id=5 not found",
        ),
        (QueryExecutionError(), "Query execution failed"),
        (QueryExecutionError("no"), "no"),
        (
            QueryExecutionError(query="SELECT 1", original_error=ValueError(SECRET)),
            "Query execution failed: ValueError: SELECT 1",
        ),
        (DatabaseConnectionError(), "Could not connect to the database"),
        (
            DatabaseConnectionError(None, "sqlite:///x.db", OSError(SECRET)),
            "Could not connect to the database at sqlite:///x.db: OSError",
        ),
        (
            DatabaseConnectionError("no login", "postgresql://ann:pw@db:5432/x"),
            "no login (database at postgresql://ann:***@db:5432/x)",
        ),
        (
            DatabaseConnectionError("no login at sqlite:///x.db", "sqlite:///x.db"),
            "no login at sqlite:///x.db",
        ),
        (ConflictError(Hero), "A Hero row has been changed or removed since it was read; "),
        (
            ConflictError(Hero, 5, 3),
            "Hero 5 has been changed or removed since it was read (version 3)",
        ),
        (
            ConflictError("Hero", 5, 3, 4),
            "Hero 5 has been changed since it was read (version 3, now 4)",
        ),
    ],
)
def test_texts(error: SQLModelCRUDError, text: str) -> None:
    """Texts are made of what is known, and never of a foreign error's text."""
    assert str(error).startswith(text)
    assert SECRET not in str(error)


class TestPasswords:
    @given(st.text(min_size=1))
    @example("a@b/c:d?e=f&g#h")
    @example("100%")
    @example(" \n ")
    def test_a_password_is_never_shown(self, rest: str) -> None:
        """With any characters, quoted or not, in the URL or in the message."""
        password = f"{SECRET}-{rest}"
        url = make_url("postgresql://ann@db/heroes").set(password=password)
        quoted = url.render_as_string(hide_password=False)
        for address in (url, quoted, f"postgresql://ann:{password}@db/heroes"):
            for error in (
                DatabaseConnectionError(None, address),
                DatabaseConnectionError(f"no {password} at {quoted}", address),
            ):
                assert SECRET not in str(error)
                assert SECRET not in repr(error)
                assert error.database_url == "postgresql://ann:***@db/heroes"

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("sqlite:///heroes.db", "sqlite:///heroes.db"),
            ("postgresql://db:5432/heroes", "postgresql://db:5432/heroes"),
            ("postgresql://ann@db:5432/heroes", "postgresql://ann@db:5432/heroes"),
            ("postgresql://:pw@db/x", "postgresql://:***@db/x"),
            ("mysql://ann:pw@db/x?ssl_password=y&z=1", "mysql://ann:***@db/x?ssl_password=***&z=1"),
            ("host=db user=ann password='p w' port=1", "host=db user=ann password=*** port=1"),
            ("postgresql://db/x?authToken=abc", "postgresql://db/x?authToken=***"),
        ],
    )
    def test_addresses(self, url: str, shown: str) -> None:
        """Everything else of an address stays readable."""
        assert hide_password(url) == shown

    def test_a_message_with_an_address(self) -> None:
        """An address inside a message is cleaned too, though it was not given apart."""
        error = DatabaseConnectionError("no mysql://ann:pw@db/x today, password=pw")
        assert str(error) == "no mysql://ann:***@db/x today, password=***"
