"""The errors that the library raises; all of them are `SQLModelCRUDError`.

Their messages name the model, the field or the constraint, and say what would be right. They
contain no passwords and no values of a failed statement. Further details are in the attributes of
an error, and the driver's own error is its `__cause__`.

Every error can be pickled and copied. An attribute that cannot be pickled itself (a model class
defined in a function, some drivers' errors) is replaced by its name; the message stays the same.
"""

from __future__ import annotations

import copy
import math
import pickle
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote, unquote

from sqlalchemy.engine import URL
from sqlalchemy.exc import DontWrapMixin, InvalidRequestError, MultipleResultsFound

__all__ = [
    "BulkOperationError",
    "ConflictError",
    "ConstraintKind",
    "ConstraintViolationError",
    "DatabaseConnectionError",
    "MigrationLockError",
    "MultipleRecordsError",
    "QueryExecutionError",
    "RateLimitExceededError",
    "RateLimitUnavailableError",
    "RecordNotFoundError",
    "RelationshipNotLoadedError",
    "SQLModelCRUDError",
    "SchemaMismatchError",
    "TenantError",
    "TransactionError",
    "UnknownFieldError",
    "ValidationError",
    "multiple_found",
    "not_found",
    "validation_error",
]

ConstraintKind = Literal["unique", "foreign_key", "not_null", "check", "exclusion"]

_E = TypeVar("_E", bound="SQLModelCRUDError")

# A text that names a hundred places is long enough; the attributes hold all of them.
_MAX_NAMED = 100
_MAX_QUERY = 200


class SQLModelCRUDError(DontWrapMixin, Exception):
    """The base of every error that the library raises.

    Where SQLAlchemy wraps other exceptions, for example when a column's type refuses a value, these
    errors propagate unchanged.

    Example:
        >>> try:
        ...     raise RecordNotFoundError("Hero", 5)
        ... except SQLModelCRUDError as error:
        ...     print(error)
        Hero with id=5 not found
    """

    def __reduce__(self) -> tuple[Any, ...]:
        state = {name: _picklable(value) for name, value in self.__dict__.items()}
        return _rebuild, (type(self), _picklable(self.args), state)

    def __copy__(self) -> Self:
        return _with_cause_of(self, _rebuild(type(self), self.args, self.__dict__))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        state = {name: _deep_copied(value, memo) for name, value in self.__dict__.items()}
        return _with_cause_of(self, _rebuild(type(self), self.args, state))


class RecordNotFoundError(SQLModelCRUDError):
    """Raised when no row has a key, or no row matches a query.

    Attributes:
        model: The model that was queried.
        id_value: The key, a tuple for a composite one; or a mapping of the filters that nothing
            matched; the message has only their names.
        pk_field: The name of the key column; a tuple of names for several.

    Example:
        >>> print(RecordNotFoundError("Hero", 5))
        Hero with id=5 not found
        >>> print(RecordNotFoundError("Hero", {"name": "Ann"}))
        No Hero matches the filters on name
    """

    def __init__(
        self,
        model: type[Any] | str,
        id_value: Any,
        pk_field: str | Sequence[str] = "id",
    ) -> None:
        self.model = model
        self.id_value = id_value
        self.pk_field = pk_field = _one_or_several(pk_field)
        super().__init__(_not_found_text(model, id_value, pk_field))


class MultipleRecordsError(SQLModelCRUDError, MultipleResultsFound):
    """Raised when several rows are found where one was expected.

    It is also a SQLAlchemy `MultipleResultsFound`, which v0.1.0 raised.

    Attributes:
        model: The model that was queried.
        count: How many rows were found; a lower bound.
        filters: What was searched for, if known; the message has only the names.

    Example:
        >>> print(MultipleRecordsError("Hero", 2, {"team_id": 7}))
        Expected 1 Hero, found 2 (filters on team_id)
    """

    def __init__(
        self,
        model: type[Any] | str,
        count: int,
        filters: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.count = count
        self.filters = filters
        names = f" (filters on {_listed(filters)})" if filters else ""
        super().__init__(f"Expected 1 {_name_of(model)}, found {count}{names}")


class ValidationError(SQLModelCRUDError):
    """Raised for a caller's mistake: a value, a name or a combination that cannot be used.

    Attributes:
        field: The wrong field or parameter, if the mistake concerns one.
        value: The value that was refused. The message does not contain it, as it may be a secret.
        errors: Details, if any: a mapping of field names to messages, which are part of the
            message; or a list such as Pydantic's `errors()`, which is not.

    Args:
        message: What is wrong, or what would be right.

    Example:
        >>> print(ValidationError("must be 1 or more", field="page", value=0))
        Validation failed for 'page': must be 1 or more
    """

    def __init__(
        self,
        message: str,
        field: str | None = None,
        value: Any = None,
        errors: Mapping[str, Any] | Sequence[Any] | None = None,
    ) -> None:
        self.field = field
        self.value = value
        self.errors = errors
        subject = f" for {field!r}" if field else ""
        details = _details(errors) if isinstance(errors, Mapping) else ""
        super().__init__(f"Validation failed{subject}: {message}{details}")


class UnknownFieldError(ValidationError, AttributeError):
    """Raised when a model has no field (relationship, …) of the given name.

    It is also an `AttributeError`, which v0.1.0 raised.

    Attributes:
        model: The model.
        choices: The names that the model has.
        what: What was looked for, "field" by default.

    Args:
        name: The unknown name; it is stored as `field`.

    Example:
        >>> print(UnknownFieldError("Hero", "nmae", ["id", "name"]))
        Validation failed: Hero has no field 'nmae'; did you mean 'name'? Available fields: id, name
    """

    def __init__(
        self,
        model: type[Any] | str,
        name: str,
        choices: Iterable[str],
        what: str = "field",
    ) -> None:
        self.model = model
        self.choices = tuple(choices)
        self.what = what
        from difflib import get_close_matches  # few programs need it

        close = get_close_matches(str(name), self.choices, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        names = _listed(self.choices)
        known = f"Available {what}s: {names}" if names else "The model has none"
        super().__init__(f"{_name_of(model)} has no {what} {name!r}{hint} {known}")
        self.field = name


class RelationshipNotLoadedError(SQLModelCRUDError, InvalidRequestError):
    """Raised for a lazy load in a session that refuses them; see `strict_loading`.

    The message names what is not loaded, and how to load it. Nothing was sent to the database, and
    the session stays usable. It is also a SQLAlchemy `InvalidRequestError`, as raised by
    `lazy="raise"`.

    Example:
        >>> issubclass(RelationshipNotLoadedError, AttributeError)
        False
    """


class RateLimitExceededError(SQLModelCRUDError):
    """Raised by a call that is beyond a rate limit, whatever `raise_on_error` says.

    Attributes:
        limit: The rate, as it was configured: "100/minute".
        retry_after: After how many seconds the call would be allowed, if there are no others
            meanwhile; None if it would never be allowed, as the caller is unknown.

    Example:
        >>> print(RateLimitExceededError("100/minute", 0.6))
        The rate limit 100/minute is exceeded; try again in 0.6 s
    """

    def __init__(self, limit: str, retry_after: float | None) -> None:
        if retry_after is None:
            text = f"The rate limit {limit} refuses anonymous calls"
        else:
            seconds = math.ceil(retry_after * 10) / 10
            text = f"The rate limit {limit} is exceeded; try again in {seconds} s"
        super().__init__(text)
        self.limit = limit
        self.retry_after = retry_after


class RateLimitUnavailableError(SQLModelCRUDError):
    """Raised while the Redis of a rate limit fails, with `on_failure="refuse"`.

    Example:
        >>> print(RateLimitUnavailableError())
        The rate limits cannot be checked at the moment
    """

    def __init__(self, message: str = "The rate limits cannot be checked at the moment") -> None:
        super().__init__(message)


class MigrationLockError(SQLModelCRUDError):
    """Raised when another process upgrades the database for longer than the caller will wait.

    Attributes:
        wait: How many seconds the caller waited.

    Example:
        >>> print(MigrationLockError(600))
        Another process is upgrading the database, and did not finish within 600 s; ...
    """

    def __init__(self, wait: float) -> None:
        self.wait = wait
        super().__init__(
            "Another process is upgrading the database, and did not finish within "
            f"{wait:g} s; start again when it has, end it if it hangs, "
            "or give run_migrations a longer wait="
        )


class SchemaMismatchError(SQLModelCRUDError):
    """Raised when a database does not have what the models need.

    Attributes:
        differences: One text for each difference.

    Example:
        >>> print(SchemaMismatchError(["column hero.age is missing"]))
        The database does not fit the models:
          column hero.age is missing
    """

    def __init__(self, differences: Iterable[str]) -> None:
        self.differences = tuple(differences)
        listed = "".join(f"\n  {each}" for each in self.differences[:_MAX_NAMED])
        more = len(self.differences) - _MAX_NAMED
        rest = f"\n  and {more} more" if more > 0 else ""
        super().__init__(f"The database does not fit the models:{listed}{rest}")


class TenantError(ValidationError):
    """Raised when a statement or a row does not belong to the session's tenant.

    No tenant is in scope, the session serves another tenant, a row belongs to another tenant, or a
    statement cannot be limited to the rows of one tenant. The message names no tenant and no row.
    Nothing was read or written.

    Example:
        >>> print(TenantError("no tenant is in scope; use tenant_scope()"))
        Validation failed: no tenant is in scope; use tenant_scope()
    """


class ConstraintViolationError(ValidationError):
    """Raised when a write breaks a constraint of the database.

    Attributes:
        kind: "unique", "foreign_key", "not_null", "check" or "exclusion"; None if the database does
            not say.
        constraint: The name of the constraint, if it has one and the database reports it.
        columns: The names of the constrained columns, as far as known.

    Example:
        >>> error = ConstraintViolationError(
        ...     "another Hero row has the same name",
        ...     field="name",
        ...     kind="unique",
        ...     constraint="hero_name_key",
        ...     columns=("name",),
        ... )
        >>> print(error)
        Validation failed for 'name': another Hero row has the same name
    """

    def __init__(
        self,
        message: str,
        field: str | None = None,
        value: Any = None,
        errors: Mapping[str, Any] | Sequence[Any] | None = None,
        *,
        kind: ConstraintKind | None = None,
        constraint: str | None = None,
        columns: Iterable[str] = (),
    ) -> None:
        self.kind = kind
        self.constraint = constraint
        self.columns = tuple(columns)
        super().__init__(message, field, value, errors)


class BulkOperationError(SQLModelCRUDError):
    """Raised when some rows of a bulk operation failed.

    Attributes:
        total: How many rows there were.
        failed: How many of them failed.
        errors: What went wrong. The library uses pairs `(index, error)`, where the index is the
            row's place in the input, from 0. Bare errors and messages are accepted too.
        successful: The rows that were kept, if any.
        failed_records: The rows that failed, if the operation returns them.

    Example:
        >>> error = BulkOperationError(100, 3, [(4, "a"), (17, "b"), (80, "c")])
        >>> print(error)
        Bulk operation failed: 3/100 rows failed (success rate 97.0%), at index 4, 17, 80
    """

    def __init__(
        self,
        total: int,
        failed: int,
        errors: Iterable[tuple[int, Exception | str] | Exception | str],
        successful: Sequence[Any] | None = None,
        failed_records: Sequence[Any] | None = None,
    ) -> None:
        self.total = total
        self.failed = failed
        self.errors = list(errors)
        self.successful = successful
        self.failed_records = failed_records
        places = f", at index {_listed(self.indexes)}" if self.indexes else ""
        super().__init__(
            f"Bulk operation failed: {failed}/{total} rows failed "
            f"(success rate {self.success_rate:.1f}%){places}"
        )

    @property
    def success_rate(self) -> float:
        """The share of the rows that did not fail, in percent."""
        return 100 * (self.total - self.failed) / self.total if self.total else 0.0

    @property
    def indexes(self) -> tuple[int, ...]:
        """The places of the failed rows, as far as `errors` has them."""
        return tuple(item[0] for item in self.errors if isinstance(item, tuple))

    def get_error_summary(self) -> str:
        """Return the message with an additional line for each error.

        Example:
            >>> print(BulkOperationError(10, 1, [(4, "no name")]).get_error_summary())
            Bulk operation failed: 1/10 rows failed (success rate 90.0%), at index 4
              index 4: no name
        """
        return "\n".join([str(self), *(f"  {_bulk_line(item)}" for item in self.errors)])


class TransactionError(SQLModelCRUDError):
    """Raised when a transaction could not be carried out; all of it is rolled back.

    Attributes:
        operation: What failed, for example "commit", if it was not the block itself.
        original_error: The error that ended the transaction; also its `__cause__`.
        outcome_unknown: Whether the connection was lost during the COMMIT, so that it is unknown
            whether the database carried it out. Check the data before you run the transaction
            again.

    Args:
        message: The message, instead of one built from the other arguments.

    Example:
        >>> print(TransactionError(original_error=ValueError("no seats left")))
        Transaction failed: ValueError: no seats left
    """

    def __init__(
        self,
        message: str | None = None,
        operation: str | None = None,
        original_error: BaseException | None = None,
        *,
        outcome_unknown: bool = False,
    ) -> None:
        self.operation = operation
        self.original_error = original_error
        self.outcome_unknown = outcome_unknown
        step = f" at {operation}" if operation else ""
        super().__init__(message or f"Transaction failed{step}{_cause(original_error)}")


class ConflictError(SQLModelCRUDError):
    """Raised when a row has changed since it was read, so that a write would overwrite that change.

    Attributes:
        model: The model of the row.
        key: The row's primary key, a tuple for a composite one; None if it is not known.
        expected: The version that was read, if known.
        found: The current version; None if it is not known or the row is gone.
        version_given: Whether the caller passed the version, so that running the transaction again
            would fail in the same way.

    Example:
        >>> print(ConflictError("Hero", 5, expected=3, found=4))
        Hero 5 has been changed since it was read (version 3, now 4); read it again and retry
    """

    def __init__(
        self,
        model: type[Any] | str,
        key: Any = None,
        expected: Any = None,
        found: Any = None,
        *,
        version_given: bool = False,
    ) -> None:
        self.model = model
        self.key = key
        self.expected = expected
        self.found = found
        self.version_given = version_given
        name = _name_of(model)
        row = f"A {name} row" if key is None else f"{name} {_shown(key)}"
        change = "changed or removed" if found is None else "changed"
        now = "" if found is None else f", now {found}"
        versions = "" if expected is None else f" (version {expected}{now})"
        super().__init__(
            f"{row} has been {change} since it was read{versions}; read it again and retry"
        )


class DatabaseConnectionError(SQLModelCRUDError):
    """Raised when the database cannot be reached, refuses the login, or the pool is exhausted.

    Attributes:
        database_url: Where the database is, with the password hidden.
        original_error: The driver's error; also its `__cause__`.

    Args:
        message: The message, instead of one built from the error. If an address is given, it is
            added. Passwords are removed.

    Example:
        >>> print(DatabaseConnectionError(database_url="postgresql://ann:secret@db/heroes"))
        Could not connect to the database at postgresql://ann:***@db/heroes
    """

    def __init__(
        self,
        message: str | None = None,
        database_url: str | URL | None = None,
        original_error: BaseException | None = None,
    ) -> None:
        self.database_url = None if database_url is None else hide_password(database_url)
        self.original_error = original_error
        place = f" at {self.database_url}" if self.database_url else ""
        if message:
            text = _without_password(message, database_url)
            text += f" (database{place})" if place not in text else ""
        else:
            text = f"Could not connect to the database{place}{_reason(original_error)}"
        super().__init__(text)


class QueryExecutionError(SQLModelCRUDError):
    """Raised when the database refuses a statement for a reason other than a constraint.

    Attributes:
        query: The statement without its parameters, if known.
        original_error: The driver's error; also its `__cause__`.

    Args:
        message: The message, instead of one built from the other arguments.

    Example:
        >>> print(QueryExecutionError(query="SELECT nmae FROM hero"))
        Query execution failed: SELECT nmae FROM hero
    """

    def __init__(
        self,
        message: str | None = None,
        query: str | None = None,
        original_error: BaseException | None = None,
    ) -> None:
        self.query = query
        self.original_error = original_error
        statement = f": {_shortened(query)}" if query else ""
        super().__init__(message or f"Query execution failed{_reason(original_error)}{statement}")


def not_found(
    model: type[Any] | str, id_value: Any, pk_field: str | Sequence[str] = "id"
) -> RecordNotFoundError:
    """Return a `RecordNotFoundError`, ready to be raised.

    Args:
        model: The model that was queried, or its name.
        id_value: The key, a tuple for a composite one; or a mapping of filters.
        pk_field: The name of the key column, or a sequence of names.

    Example:
        >>> print(not_found("Hero", "Ann", pk_field="name"))
        Hero with name='Ann' not found
    """
    return RecordNotFoundError(model, id_value, pk_field)


def multiple_found(
    model: type[Any] | str, count: int, filters: Mapping[str, Any] | None = None
) -> MultipleRecordsError:
    """Return a `MultipleRecordsError`, ready to be raised.

    Args:
        model: The model that was queried, or its name.
        count: How many rows were found; a lower bound.
        filters: What was searched for, if known.

    Example:
        >>> print(multiple_found("Hero", 2))
        Expected 1 Hero, found 2
    """
    return MultipleRecordsError(model, count, filters)


def validation_error(
    message: str,
    field: str | None = None,
    value: Any = None,
    errors: Mapping[str, Any] | Sequence[Any] | None = None,
) -> ValidationError:
    """Return a `ValidationError`, ready to be raised.

    Args:
        message: What would be right.
        field: The wrong field or parameter, if the mistake concerns one.
        value: The refused value; it does not appear in the message.
        errors: Details: messages by field, or a list such as Pydantic's `errors()`.

    Example:
        >>> print(validation_error("must not be negative", field="age"))
        Validation failed for 'age': must not be negative
    """
    return ValidationError(message, field, value, errors)


# From the first colon of the login up to the last "@": a password may hold ":", "/" and "@".
_LOGIN = r"(?s)(://[^\s:/@]*):.*@"
_LOGIN_IN_TEXT = r"(://[^\s:/@]*):\S*@"
_SECRET_OPTION = r"(?i)(\b\w*(?:password|passwd|pwd|secret|token)\w*\s*=\s*)('[^']*'|[^\s&;#]+)"  # noqa: S105


def hide_password(database_url: str | URL) -> str:
    """Return a database URL with "***" in place of everything that may be a secret.

    Example:
        >>> hide_password("mysql://ann:p@ss/word@db/heroes?ssl_password=x")
        'mysql://ann:***@db/heroes?ssl_password=***'
    """
    if isinstance(database_url, URL):
        database_url = database_url.render_as_string(hide_password=True)
    return re.sub(_SECRET_OPTION, r"\1***", re.sub(_LOGIN, r"\1:***@", database_url))


def _without_password(message: str, database_url: str | URL | None) -> str:
    for password in _passwords(database_url):
        message = message.replace(password, "***")
    return re.sub(_SECRET_OPTION, r"\1***", re.sub(_LOGIN_IN_TEXT, r"\1:***@", message))


def _passwords(database_url: str | URL | None) -> set[str]:
    """Return all ways to write the password of a URL."""
    if isinstance(database_url, URL):
        written = database_url.password or ""
    else:
        login = re.search(_LOGIN, database_url or "")
        written = login.group()[len(login.group(1)) + 1 : -1] if login else ""
    plain = {written, unquote(written)}
    # SQLAlchemy leaves blanks as they are.
    quoted = {quote(text, safe=safe) for text in plain for safe in ("", "/", " +")}
    return plain | quoted if written else set()


def _rebuild(cls: type[_E], args: tuple[Any, ...], state: dict[str, Any]) -> _E:
    # Past __init__, so that the text is kept and subclasses may have any parameters.
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


def _with_cause_of(original: SQLModelCRUDError, error: _E) -> _E:
    error.__cause__ = original.__cause__
    return error


def _deep_copied(value: Any, memo: dict[int, Any]) -> Any:
    try:
        return copy.deepcopy(value, memo)
    except Exception:  # noqa: BLE001 - a driver's error may raise anything here
        return value


def _picklable(value: Any) -> Any:
    """Return the value, or what can be pickled instead."""
    try:
        # Some errors can be pickled and then not be read again.
        pickle.loads(pickle.dumps(value))  # noqa: S301 - written one step before
    except Exception:  # noqa: BLE001 - foreign objects may raise anything here
        return _stand_in(value)
    return value


def _stand_in(value: Any) -> Any:
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, Mapping):
        return {_picklable(key): _picklable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_picklable(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    return Exception(name) if isinstance(value, BaseException) else f"<{name}>"


def _name_of(model: Any) -> str:
    return model if isinstance(model, str) else getattr(model, "__name__", type(model).__name__)


def _not_found_text(model: type[Any] | str, key: Any, pk_field: str | Sequence[str]) -> str:
    if isinstance(key, Mapping):
        return f"No {_name_of(model)} matches the {_filters_on(key)}"
    names = (pk_field,) if isinstance(pk_field, str) else pk_field
    is_composite = isinstance(key, tuple) and len(key) == len(names)
    pairs = zip(names, key if is_composite else (key,), strict=False)
    shown = ", ".join(f"{name}={_shown(value)}" for name, value in pairs)
    return f"{_name_of(model)} with {shown} not found"


def _one_or_several(names: str | Sequence[str]) -> str | tuple[str, ...]:
    several = (names,) if isinstance(names, str) else tuple(names)
    return several[0] if len(several) == 1 else several


def _filters_on(filters: Mapping[str, Any]) -> str:
    return f"filters on {_listed(filters)}" if filters else "query"


def _shown(value: Any) -> str:
    try:
        return _shortened(repr(value))
    except Exception:  # noqa: BLE001 - an error text must not fail on a broken __repr__
        return f"<{type(value).__name__}>"


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_QUERY else f"{text[:_MAX_QUERY]}…"


def _listed(names: Iterable[Any]) -> str:
    named = [str(name) for name in names]
    more = len(named) - _MAX_NAMED
    return ", ".join(named[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _details(errors: Mapping[str, Any]) -> str:
    return "".join(f"\n  {name}: {_told(message)}" for name, message in errors.items())


# Where errors come from whose texts hold the values of rows.
_TELLTALE = frozenset(
    {
        *("sqlalchemy", "sqlite3", "aiosqlite", "psycopg", "psycopg2", "asyncpg"),
        *("pymysql", "asyncmy", "MySQLdb", "aiomysql", "pydantic", "pydantic_core"),
    }
)


def _cause(error: BaseException | None) -> str:
    """Return the text of what ended a transaction, which is the caller's own as a rule."""
    if error is None or isinstance(error, SQLModelCRUDError):
        return _reason(error)
    modules = {each.__module__.partition(".")[0] for each in type(error).__mro__}
    text = "" if modules & _TELLTALE else _shortened(str(error))
    return _reason(error) + (f": {text}" if text else "")


def _reason(error: BaseException | None) -> str:
    return "" if error is None else f": {_told(error)}"


def _told(error: Any) -> str:
    """Return the text of our own errors; of others the class, as their text may hold values."""
    if not isinstance(error, BaseException):
        return str(error)
    name = type(error).__name__
    return f"{name}: {error}" if isinstance(error, SQLModelCRUDError) else name


def _bulk_line(item: tuple[int, Exception | str] | Exception | str) -> str:
    return f"index {item[0]}: {_told(item[1])}" if isinstance(item, tuple) else _told(item)
