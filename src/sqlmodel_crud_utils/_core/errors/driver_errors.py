"""What a driver's error means, read from its codes and the names in it, never from values.

SQLite and its drivers have result codes, PostgreSQL has SQLSTATE, MySQL and MariaDB have error
numbers. A driver's message is parsed only if a name appears nowhere else, and only with patterns
that cannot match a row's value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from sqlalchemy.exc import StatementError

from sqlmodel_crud_utils.exceptions import ConstraintKind

__all__ = [
    "VAGUE",
    "DriverError",
    "Problem",
    "breaks_row_policy",
    "is_cut_connection",
    "is_cut_off",
    "is_lost_race",
    "is_read_only",
    "is_worth_repeating",
    "read_driver_error",
    "status_code_of",
]

Problem = ConstraintKind | Literal["constraint", "value", "connection", "query"]


class DriverError(NamedTuple):
    """The meaning of a driver's error.

    Attributes:
        problem: A kind of constraint, "constraint" for one of an unknown kind, "value" for data
            that the database does not accept, "connection", or "query" for everything else.
        label: The class and the code of the error, for texts.
        reason: What is wrong, in words; empty for constraints and unknown codes.
        table: The table that the constraint belongs to, if the driver reports it.
        constraint: The name of the constraint, or on MySQL of the index, if the driver reports it.
        columns: The names of the columns, as far as the driver reports them.
        referenced: For a foreign key: True if other rows still refer to the row, False if the
            row refers to a missing one, None if the driver does not say.
    """

    problem: Problem
    label: str
    reason: str = ""
    table: str | None = None
    constraint: str | None = None
    columns: tuple[str, ...] = ()
    referenced: bool | None = None


def read_driver_error(error: BaseException) -> DriverError | None:
    """Return what a driver's error means, or None if no known driver raised it.

    Args:
        error: SQLAlchemy's error around the driver's, or the driver's error itself.
    """
    original: Any = error.orig if isinstance(error, StatementError) else error
    if isinstance(getattr(original, "sqlite_errorcode", None), int):
        return _from_sqlite(original)
    driver = type(original).__module__.partition(".")[0]
    if driver in _MYSQL_DRIVERS and original.args and isinstance(original.args[0], int):
        return _from_mysql(original)
    if state := _sqlstate(original):
        return _from_postgresql(original, state)
    if driver in _LIBPQ_DRIVERS and _is_a(original, "OperationalError"):
        # Only a server sends a SQLSTATE; without one there was none to talk to.
        return DriverError("connection", type(original).__name__, _no_login(str(original)))
    return None


def _no_login(text: str) -> str:
    """Return why there was no login; libpq names a parameter that it, or the server, refused."""
    found = re.match(_REFUSED_PARAMETER, text)
    if found is None:
        return _NO_LOGIN
    return f"the parameter {next(filter(None, found.groups()))!r} has a wrong value"


_REFUSED_PARAMETER = (
    r"(?s).*?(?:invalid (\w+) value: |connection option \"(\w+)\""
    r"|invalid value for parameter \"(\w+)\"|definition of (service) )"
)


def status_code_of(error: BaseException) -> str | None:
    """Return the SQLSTATE of a driver's error, or the error number of other databases."""
    original: Any = error.orig if isinstance(error, StatementError) else error
    if isinstance(code := getattr(original, "sqlite_errorcode", None), int):
        return str(code)
    driver = type(original).__module__.partition(".")[0]
    if driver in _MYSQL_DRIVERS and original.args and isinstance(original.args[0], int):
        return str(original.args[0])
    return _sqlstate(original)


def is_lost_race(error: BaseException | None) -> bool:
    """Return whether a transaction failed only because of a concurrent one."""
    found = read_driver_error(error) if error is not None else None
    return found is not None and found.reason in {_COLLISION, _DEADLOCK, _ENDED}


def is_read_only(error: BaseException) -> bool:
    """Return whether a database refused a write because it is read-only, as replicas are."""
    found = read_driver_error(error)
    return found is not None and found.reason == _READ_ONLY


def breaks_row_policy(error: BaseException) -> bool:
    """Return whether a row security policy of PostgreSQL refused a write."""
    found = read_driver_error(error)
    return found is not None and found.reason == _POLICY


def is_worth_repeating(error: BaseException) -> bool:
    """Return whether a transaction failed because of concurrent ones and should be retried."""
    found = read_driver_error(error)
    if found is None:
        return False
    if found.reason == _LOCKED:
        return _is_at_an_end(error)
    return found.reason in _REPEATABLE


def _is_at_an_end(error: BaseException) -> bool:
    """Return whether a transaction of SQLite got no lock at its BEGIN or COMMIT.

    In between, the transaction has the lock. A statement that is locked out then may come from
    another connection of the same program, and a retry would be locked out again.
    """
    statement = error.statement if isinstance(error, StatementError) else None
    return statement is None or statement.startswith("BEGIN")


def is_cut_off(error: BaseException) -> bool:
    """Return whether an established connection to a server was lost."""
    if is_cut_connection(error):
        return True
    original: Any = error.orig if isinstance(error, StatementError) else error
    found = read_driver_error(error)
    return (
        (found is not None and found.reason == _LOST)
        or _is_reset(original)
        or _is_reset(original.__cause__)
        or (_is_a(original, "OperationalError") and bool(re.match(_PSYCOPG_CUT_OFF, str(original))))
    )


def is_cut_connection(error: BaseException) -> bool:
    """Return whether the server announced to asyncpg that it ends the connection.

    SQLAlchemy does not recognize this error. asyncpg uses the class for other problems too, such as
    a type that it cannot copy.
    """
    original = error.orig if isinstance(error, StatementError) else error
    kind = type(original)
    is_internal = kind.__name__ == "InternalClientError" and kind.__module__.startswith("asyncpg")
    return is_internal and str(original).startswith("cannot switch to ")


# psycopg's messages for a lost connection, for which it has no code.
_PSYCOPG_CUT_OFF = (
    r"(the connection is (closed|lost)|connection socket closed"
    r"|(consuming|executing|flushing|sending)\b[^:]* failed)\b"
)


def _is_reset(error: Any) -> bool:
    return isinstance(error, ConnectionError) and not isinstance(error, ConnectionRefusedError)


_UNREACHABLE = "the server cannot be reached"
_NO_LOGIN = "the server cannot be reached or refuses the login"
_LOST = "the connection was lost"
_STARTING = "the server is starting up or shutting down"
_TOO_MANY = "the server accepts no more connections"
_LOGIN = "the server refuses the login; check the user and the password"
_NO_DATABASE = "the database does not exist on the server"
_CANNOT_OPEN = "the database file cannot be opened; check its folder and the permissions"
_NO_DATABASE_FILE = "the file is not a SQLite database"

VAGUE = frozenset({_UNREACHABLE, _NO_LOGIN, _LOST})
"""Reasons of a failed connection that a parameter of it may be behind."""

_LOCKED = (
    "the database is locked by another connection; keep transactions short, "
    "or raise SQLite's busy timeout"
)
_TABLE_LOCKED = "the database is locked by another statement of the same process"
_LOCK_TIMEOUT = "another transaction held a lock for too long; run the transaction again"
_LOCK_REFUSED = "another transaction held a lock for too long, or this one would not wait"
_NODE = "the node of the cluster cannot commit at the moment; run the transaction again"
_DEADLOCK = "two transactions waited for each other; run the transaction again"
_ENDED = "the server has ended the transaction, as in a deadlock; run the transaction again"
_COLLISION = "another transaction changed the same data; run the transaction again"
_FAILED_TRANSACTION = "an earlier statement of the transaction failed; roll it back first"
_TOO_LONG = "a value is too long for its column"
_OUT_OF_RANGE = "a number is out of the range of its column"
_BAD_VALUE = "a value does not fit the type of its column"
_BAD_REGEX = "the pattern is not a valid regular expression for this database"
_NO_TABLE = "a table does not exist in this database"
_NO_COLUMN = "a column does not exist in this database"
_SYNTAX = "the database does not understand the statement"
_DENIED = "the user is not allowed to do this"
_POLICY = "a row policy of the database refuses the row"
_READ_ONLY = "the database is read-only"
_FULL = "the database has no space left"
_CANCELLED = "the statement was cancelled or took too long"
_CORRUPT = "the database file is damaged"

_REPEATABLE = frozenset({_COLLISION, _DEADLOCK, _ENDED, _LOCK_TIMEOUT, _NODE})

_Codes = Mapping[Any, tuple[Problem, str]]

# Extended result codes first, then primary ones: the lowest byte of an extended code.
_SQLITE: _Codes = {
    275: ("check", ""),
    517: ("query", _COLLISION),
    787: ("foreign_key", ""),
    1299: ("not_null", ""),
    1555: ("unique", ""),
    2067: ("unique", ""),
    2579: ("unique", ""),
    3091: ("value", _BAD_VALUE),
    5: ("query", _LOCKED),
    6: ("query", _TABLE_LOCKED),
    8: ("query", _READ_ONLY),
    9: ("query", _CANCELLED),
    11: ("query", _CORRUPT),
    13: ("query", _FULL),
    14: ("connection", _CANNOT_OPEN),
    18: ("value", _TOO_LONG),
    19: ("constraint", ""),
    20: ("value", _BAD_VALUE),
    23: ("query", _DENIED),
    26: ("connection", _NO_DATABASE_FILE),
}

# SQLSTATEs first, then their classes: the first two characters.
_POSTGRESQL: _Codes = {
    "22001": ("value", _TOO_LONG),
    "22003": ("value", _OUT_OF_RANGE),
    "2201B": ("value", _BAD_REGEX),
    "23001": ("foreign_key", ""),
    "23502": ("not_null", ""),
    "23503": ("foreign_key", ""),
    "23505": ("unique", ""),
    "23514": ("check", ""),
    "23P01": ("exclusion", ""),
    "25006": ("query", _READ_ONLY),
    "25P02": ("query", _FAILED_TRANSACTION),
    "25P03": ("connection", _LOST),
    "3D000": ("connection", _NO_DATABASE),
    "40001": ("query", _COLLISION),
    "40P01": ("query", _DEADLOCK),
    "42501": ("query", _DENIED),
    "42601": ("query", _SYNTAX),
    "42703": ("query", _NO_COLUMN),
    "42P01": ("query", _NO_TABLE),
    "53100": ("query", _FULL),
    "53300": ("connection", _TOO_MANY),
    "55P03": ("query", _LOCK_REFUSED),
    "57014": ("query", _CANCELLED),
    "57P01": ("connection", _LOST),
    "57P02": ("connection", _LOST),
    "57P03": ("connection", _STARTING),
    "57P04": ("connection", _NO_DATABASE),
    "57P05": ("connection", _LOST),
    "08": ("connection", _LOST),
    "22": ("value", _BAD_VALUE),
    "23": ("constraint", ""),
    "28": ("connection", _LOGIN),
}

# Numbers from 2000 to 2999 come from the client library, the others from the server.
_MYSQL: _Codes = {
    1020: ("query", _COLLISION),
    1021: ("query", _FULL),
    1040: ("connection", _TOO_MANY),
    1044: ("connection", _LOGIN),
    1045: ("connection", _LOGIN),
    1047: ("query", _NODE),
    1048: ("not_null", ""),
    1049: ("connection", _NO_DATABASE),
    1053: ("connection", _STARTING),
    1054: ("query", _NO_COLUMN),
    1062: ("unique", ""),
    1064: ("query", _SYNTAX),
    1114: ("query", _FULL),
    1129: ("connection", _LOGIN),
    1130: ("connection", _LOGIN),
    1139: ("value", _BAD_REGEX),
    1142: ("query", _DENIED),
    1143: ("query", _DENIED),
    1146: ("query", _NO_TABLE),
    1180: ("query", _NODE),
    1203: ("connection", _TOO_MANY),
    1205: ("query", _LOCK_TIMEOUT),
    1213: ("query", _DEADLOCK),
    1216: ("foreign_key", ""),
    1217: ("foreign_key", ""),
    1226: ("connection", _TOO_MANY),
    1251: ("connection", _LOGIN),
    1263: ("not_null", ""),
    1264: ("value", _OUT_OF_RANGE),
    1265: ("value", _BAD_VALUE),
    1290: ("query", _READ_ONLY),
    1292: ("value", _BAD_VALUE),
    1317: ("query", _CANCELLED),
    1364: ("not_null", ""),
    1365: ("value", _OUT_OF_RANGE),
    1366: ("value", _BAD_VALUE),
    1367: ("value", _BAD_VALUE),
    1406: ("value", _TOO_LONG),
    1451: ("foreign_key", ""),
    1452: ("foreign_key", ""),
    1557: ("unique", ""),
    1586: ("unique", ""),
    1690: ("value", _OUT_OF_RANGE),
    1698: ("connection", _LOGIN),
    1792: ("query", _READ_ONLY),
    1862: ("connection", _LOGIN),
    1927: ("connection", _LOST),
    1969: ("query", _CANCELLED),
    2002: ("connection", _UNREACHABLE),
    2003: ("connection", _UNREACHABLE),
    2005: ("connection", _UNREACHABLE),
    2006: ("connection", _LOST),
    2012: ("connection", _UNREACHABLE),
    2013: ("connection", _LOST),
    2026: ("connection", _UNREACHABLE),
    2055: ("connection", _LOST),
    2059: ("connection", _LOGIN),
    2061: ("connection", _LOGIN),
    3140: ("value", _BAD_VALUE),
    3157: ("value", _BAD_VALUE),
    3024: ("query", _CANCELLED),
    3688: ("value", _BAD_REGEX),
    3689: ("value", _BAD_REGEX),
    3691: ("value", _BAD_REGEX),
    3696: ("value", _BAD_REGEX),
    3572: ("query", _LOCK_REFUSED),
    3819: ("check", ""),
    4025: ("check", ""),
    4031: ("connection", _LOST),
}
_MYSQL_NO_SUCH = 1305  # function, procedure or savepoint
_MYSQL_REFERENCED = {1217: True, 1451: True, 1216: False, 1452: False}

_MYSQL_DRIVERS = {"MySQLdb", "aiomysql", "asyncmy", "pymysql"}
_LIBPQ_DRIVERS = {"psycopg", "psycopg2"}

_UNKNOWN: tuple[Problem, str] = ("query", "")


def _is_a(error: BaseException, name: str) -> bool:
    return any(cls.__name__ == name for cls in type(error).__mro__)


# --- SQLite


def _from_sqlite(error: Any) -> DriverError:
    code = error.sqlite_errorcode
    problem, reason = _SQLITE.get(code) or _SQLITE.get(code & 0xFF) or _UNKNOWN
    text = str(error)
    found = DriverError(problem, error.sqlite_errorname, reason or _sqlite_reason(text))
    names = text.partition("constraint failed: ")[2]
    if problem in {"unique", "not_null"}:
        return _with_sqlite_columns(found, names)
    return found._replace(constraint=names or None) if problem == "check" else found


def _sqlite_reason(text: str) -> str:
    # One code covers all of these; SQLite's messages are always in English.
    if text.startswith("no such table"):
        return _NO_TABLE
    if text.startswith("no such column") or " has no column named " in text:
        return _NO_COLUMN
    return _SYNTAX if text.endswith("syntax error") else ""


def _with_sqlite_columns(found: DriverError, names: str) -> DriverError:
    """Read "hero.a, hero.b", or "index 'name'" for an index of expressions."""
    if index := re.fullmatch(r"index '(.+)'", names):
        return found._replace(constraint=index.group(1))
    pairs = [name.rpartition(".") for name in names.split(", ") if name]
    table = pairs[0][0] if pairs else None
    return found._replace(table=table, columns=tuple(column for _, _, column in pairs))


# --- PostgreSQL

# The first parentheses hold the columns, in every language of the server; an expression does not
# match.
_KEY_COLUMNS = r"[^(]*\(([^()=]+)\)=\("


def _sqlstate(error: Any) -> str | None:
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return state if isinstance(state, str) else None


def _from_postgresql(error: Any, state: str) -> DriverError:
    problem, reason = _POSTGRESQL.get(state) or _POSTGRESQL.get(state[:2]) or _UNKNOWN
    # SQLAlchemy's adapter for asyncpg has the names only on the original error.
    source = error.__cause__ if _sqlstate(error.__cause__) else error
    if state == "42501" and _is_of_policy(source):
        problem, reason = "constraint", _POLICY
    column = _postgresql_detail(source, "column_name")
    columns: tuple[str, ...] = (column,) if column else ()
    if problem in {"unique", "exclusion", "foreign_key"}:
        columns = _key_columns(source)
    return DriverError(
        problem,
        f"{type(source).__name__}, SQLSTATE {state}",
        reason,
        table=_postgresql_detail(source, "table_name"),
        constraint=_postgresql_detail(source, "constraint_name"),
        columns=columns,
    )


def _is_of_policy(error: Any) -> bool:
    """Return whether a row security policy refused a row; PostgreSQL has no code for that."""
    names = ("source_function", "server_source_function")
    return any(_postgresql_detail(error, name) == "ExecWithCheckOptions" for name in names)


def _key_columns(error: Any) -> tuple[str, ...]:
    detail = _postgresql_detail(error, "detail") or _postgresql_detail(error, "message_detail")
    match = re.match(_KEY_COLUMNS, detail or "")
    return tuple(name.strip('"') for name in match.group(1).split(", ")) if match else ()


def _postgresql_detail(error: Any, name: str) -> str | None:
    value = getattr(getattr(error, "diag", error), name, None)
    return value if isinstance(value, str) else None


# --- MySQL and MariaDB

# Each is anchored at the end, because values precede it.
_MYSQL_KEY = r"(?s).* for key '([^']+)'"
_MYSQL_VALUE_COLUMN = r"(?s).* for column (?:`[^`]+`\.)*[`']([^`']+)[`'] at row \d+"
_MYSQL_COLUMN = r"[^']*'([^']+)'"
_MYSQL_CHECK = r"[^`']*[`']([^`']+)[`'](?:[^`]*`[^`]+`\.`([^`]+)`)?"
_MYSQL_FOREIGN_KEY = r".*\(`[^`]+`\.`([^`]+)`, CONSTRAINT `([^`]+)` FOREIGN KEY \(([^)]+)\)"


def _from_mysql(error: Any) -> DriverError:
    code: int = error.args[0]
    text = str(error.args[1]) if len(error.args) > 1 else ""
    problem, reason = _MYSQL.get(code, _UNKNOWN)
    if code == _MYSQL_NO_SUCH and text.startswith("SAVEPOINT "):
        # The failed rollback to a savepoint hides the original error.
        reason = _ENDED
    if text.startswith("Unknown column 'infe0'"):
        # asyncmy writes minus infinity like this; MySQL has no such number.
        problem, reason = "value", _BAD_VALUE
    label = f"{type(error).__name__}, error {code}"
    found = DriverError(problem, label, reason, referenced=_MYSQL_REFERENCED.get(code))
    return _with_mysql_names(found, text)


def _with_mysql_names(found: DriverError, text: str) -> DriverError:
    if found.problem == "unique" and (match := re.fullmatch(_MYSQL_KEY, text)):
        # MySQL 8 writes 'table.key', MariaDB 'key'.
        table, _, key = match.group(1).rpartition(".")
        return found._replace(table=table or None, constraint=key)
    if found.problem == "foreign_key" and (match := re.match(_MYSQL_FOREIGN_KEY, text)):
        columns = tuple(name.strip("`") for name in match.group(3).split(", "))
        return found._replace(table=match.group(1), constraint=match.group(2), columns=columns)
    if found.problem == "check" and (match := re.match(_MYSQL_CHECK, text)):
        return _with_mysql_check(found, match.group(1), match.group(2))
    column = _mysql_column(found, text)
    return found._replace(columns=(column,)) if column else found


def _with_mysql_check(found: DriverError, name: str, table: str | None) -> DriverError:
    # MariaDB calls an unnamed check of a single column 'table.column'.
    prefix, _, column = name.rpartition(".")
    if prefix:
        return found._replace(table=prefix, columns=(column,))
    return found._replace(table=table, constraint=name)


def _mysql_column(found: DriverError, text: str) -> str | None:
    if found.problem == "not_null":
        match = re.match(_MYSQL_COLUMN, text)
    elif found.problem == "value":
        match = re.fullmatch(_MYSQL_VALUE_COLUMN, text)
    else:
        match = None
    return match.group(1) if match else None
