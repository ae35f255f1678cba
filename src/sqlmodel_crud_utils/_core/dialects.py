"""How databases differ: one entry for each, looked up in one place.

What SQLAlchemy's dialect knows, such as support for RETURNING, is not repeated here: the dialect
also knows the server's version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, Literal

from sqlalchemy import Dialect


class Features:
    """The features of a database; the defaults are for an unknown one.

    Attributes:
        title: Its name.
        package: SQLAlchemy's package with an INSERT that says what becomes of rows in the way.
        extra: The extra of the distribution that brings its drivers.
        has_server: Whether connections lead to a server, where they can be lost.
        has_pragmas: Whether connections are set up with PRAGMA.
        single_writer: Whether one connection writes at a time. Its driver begins the transaction,
            and takes the lock, with the first change.
        one_result_at_a_time: Whether a connection runs no other statement until all rows of a
            result are read.
        keeps_snapshot: Whether a transaction goes on to see what was committed before its first
            query. Only locking reads see more.
        locks_gaps: Whether to look for a row to write to locks the place where it could be.
        has_log_positions: Whether replicas can be asked how far in the primary's log they are.
        commits_ddl: Whether a statement that changes the schema commits.
        named_lock: What locks by a name, for as long as a connection lives.
        lock_limit: The setting of how long a change of the schema waits for a lock: PostgreSQL's is
            for a transaction, MySQL's for a connection.
        bind_limit: How many parameters a statement may have.
        statement_bytes: How long a statement may safely be, None where that does not matter.
        conflict: The clause of an INSERT for rows that already exist. ON DUPLICATE KEY reacts
            to every unique key, and the drivers count the rows that it left alone.
        counts_inserted: Whether the drivers count the rows that such an INSERT has put in.
        conflict_skips_deferrable: Whether that clause takes constraints that are deferrable.
        has_copy: Whether rows can go in with COPY, under keys that a sequence gives beforehand.
        has_arrays: Whether a parameter can be an array.
        has_json_each: Whether a list of values can be one parameter, as a JSON text.
        quick_many: Whether the driver sends many rows one after the other without a round trip.
        reads_written_table: Whether an UPDATE or DELETE may name its own table in a subquery.
        assigns_in_order: Whether an assignment of an UPDATE sees what those before it have written.
        nulls_largest: Whether NULLs sort as if they were larger than all values.
        has_null_order: Whether ORDER BY knows NULLS FIRST and NULLS LAST.
        seeks_rows: Whether a comparison of several columns at once is looked up in an index.
        sorts_enums_by_place: Whether an ENUM sorts by the place of its member in the type.
        widens_floats: How a number of four bytes becomes one that can be written down and compared.
        text: How a text is looked for: GLOB and ILIKE mind case, or not, as they say. With BINARY
            the collation is overruled.
        regex_in_python: Whether regular expressions are Python's.
        searches_words: Whether there is a full-text search.
        time_zones: Whether it stores moments, and not the date and time of a clock.
        microseconds: Whether its plain type for dates and times keeps them.
        refuses_large_numbers: Whether a number that is too large for its column is an error, and
            not just in no row.
        typed_expressions: Whether the value of an expression is of the type that SQLAlchemy says.
        limits_texts: Whether a text can be longer than its column says.
        refuses_null_characters: Whether a text cannot hold the character 0.
        has_json_quote: Whether JSON_QUOTE makes the JSON of a text, and JSON_ARRAY that of a list.
        unsigned: Whether there are integers up to 2**64.
        numbers: Which floating-point numbers it stores: all, no NaN, or those that are finite.
        has_uuids: Whether it has a type for UUIDs.
        stored_as: The kinds of values that the drivers give for a kind that it does not have.
    """

    title: str = "this database"
    package: str | None = None
    extra: str | None = None
    # Connections and transactions.
    has_server: bool = True
    has_pragmas: bool = False
    single_writer: bool = False
    one_result_at_a_time: bool = False
    keeps_snapshot: bool = False
    locks_gaps: bool = True
    has_log_positions: bool = False
    commits_ddl: bool = False
    named_lock: Literal["advisory", "GET_LOCK"] | None = None
    lock_limit: Literal["lock_timeout", "lock_wait_timeout"] | None = None
    # Statements that write.
    bind_limit: int = 999
    statement_bytes: int | None = None
    conflict: Literal["ON CONFLICT", "ON DUPLICATE KEY"] | None = None
    counts_inserted: bool = False
    conflict_skips_deferrable: bool = True
    has_copy: bool = False
    has_arrays: bool = False
    has_json_each: bool = False
    quick_many: bool = False
    reads_written_table: bool = True
    assigns_in_order: bool = False
    # Order and comparison.
    nulls_largest: bool = False
    has_null_order: bool = True
    seeks_rows: bool = False
    sorts_enums_by_place: bool = False
    widens_floats: Literal["cast", "addition"] | None = None
    text: Literal["GLOB", "ILIKE", "BINARY"] = "ILIKE"
    regex_in_python: bool = False
    searches_words: bool = False
    # Values.
    time_zones: bool = False
    microseconds: bool = True
    refuses_large_numbers: bool = False
    typed_expressions: bool = False
    limits_texts: bool = True
    refuses_null_characters: bool = False
    has_json_quote: bool = True
    unsigned: bool = False
    numbers: Literal["all", "no NaN", "finite"] = "finite"
    has_uuids: bool = False
    stored_as: Mapping[str, tuple[str, ...]] = MappingProxyType({})


class _PostgreSQLFeatures(Features):
    title = "PostgreSQL"
    package = "postgresql"
    extra = "postgresql"
    locks_gaps = False
    has_log_positions = True
    named_lock = "advisory"
    lock_limit = "lock_timeout"
    # The protocol counts parameters in an unsigned 16-bit integer, asyncpg in a signed one.
    bind_limit = 32_767
    conflict = "ON CONFLICT"
    conflict_skips_deferrable = False
    has_copy = True
    has_arrays = True
    nulls_largest = True
    seeks_rows = True
    widens_floats = "cast"
    searches_words = True
    time_zones = True
    refuses_large_numbers = True
    typed_expressions = True
    refuses_null_characters = True
    has_json_quote = False
    numbers = "all"
    has_uuids = True


class _SQLiteFeatures(Features):
    title = "SQLite"
    package = "sqlite"
    extra = "sqlite"
    has_server = False
    has_pragmas = True
    single_writer = True
    locks_gaps = False
    bind_limit = 32_766
    conflict = "ON CONFLICT"
    counts_inserted = True
    has_json_each = True
    quick_many = True
    seeks_rows = True
    text = "GLOB"
    regex_in_python = True
    limits_texts = False
    numbers = "no NaN"
    stored_as = MappingProxyType(
        {
            "bool": ("int",),
            "float": ("int", "float"),
            "decimal": ("int", "float"),
            "datetime": ("str",),
            "date": ("str",),
            "time": ("str",),
        }
    )


class _MySQLFeatures(Features):
    title = "MySQL"
    package = "mysql"
    extra = "mysql"
    one_result_at_a_time = True
    keeps_snapshot = True
    commits_ddl = True
    named_lock = "GET_LOCK"
    lock_limit = "lock_wait_timeout"
    bind_limit = 65_535
    # The server accepts 16 or 64 MB.
    statement_bytes = 1_000_000
    conflict = "ON DUPLICATE KEY"
    reads_written_table = False
    assigns_in_order = True
    has_null_order = False
    sorts_enums_by_place = True
    widens_floats = "addition"
    text = "BINARY"
    microseconds = False
    unsigned = True
    stored_as = MappingProxyType({"bool": ("int",), "time": ("interval",)})


class _MariaDBFeatures(_MySQLFeatures):
    title = "MariaDB"


# The keys are the names of SQLAlchemy's dialects.
FEATURES: Mapping[str, Features] = {
    "sqlite": _SQLiteFeatures(),
    "postgresql": _PostgreSQLFeatures(),
    "mysql": _MySQLFeatures(),
    "mariadb": _MariaDBFeatures(),
}
_UNKNOWN = Features()


def features_of(dialect: Dialect) -> Features:
    """Return the features of a dialect's database."""
    return features_named(dialect.name)


def features_named(name: str) -> Features:
    """Return the features of the database whose dialect has this name."""
    return FEATURES.get(name, _UNKNOWN)


def insert_of(features: Features) -> Callable[..., Any]:
    """Return `insert` from the dialect's own package."""
    # Imported when needed, to keep the import of the library fast.
    insert: Callable[..., Any] = import_module(f"sqlalchemy.dialects.{features.package}").insert
    return insert


def own_insert(dialect: Dialect, entity: Any) -> Any:
    """Return the dialect's own INSERT into a model or a table."""
    return insert_of(features_of(dialect))(entity)
