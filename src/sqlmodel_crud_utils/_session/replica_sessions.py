"""Sessions that read from replicas: which statements go there, and how failures are handled."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import wraps
from itertools import count
from time import monotonic
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import PendingRollbackError
from sqlalchemy.orm import ORMExecuteState, Session
from sqlmodel import Session as SQLModelSession

from sqlmodel_crud_utils._core.connections.positions import ANY, Position, wanted_freshness
from sqlmodel_crud_utils._core.dialects import features_of
from sqlmodel_crud_utils._core.errors.driver_errors import is_lost_race, is_read_only
from sqlmodel_crud_utils._core.errors.translation import is_unreachable
from sqlmodel_crud_utils._core.logs import get_logger
from sqlmodel_crud_utils._core.queries.reading import only_reads
from sqlmodel_crud_utils._core.values.current_tenant import nobody
from sqlmodel_crud_utils._session import kept_rows
from sqlmodel_crud_utils._session.blocks import is_inside
from sqlmodel_crud_utils._session.row_security_engines import is_secured
from sqlmodel_crud_utils._session.sqlalchemy_internals import autoflush, begun_connections, is_clean
from sqlmodel_crud_utils._session.transaction_state import connections_of
from sqlmodel_crud_utils.exceptions import ValidationError

# For how many seconds a failed replica is not used.
_REST = 5.0

# A commit that waited for its WAL is before `pg_current_wal_flush_lsn`; one that did not wait is
# before the end of the WAL in memory.
_POSITION = """
SELECT system_identifier, CASE
    WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
    WHEN current_setting('synchronous_commit') = 'off' THEN pg_current_wal_insert_lsn()
    ELSE pg_current_wal_flush_lsn()
END - '0/0'::pg_lsn FROM pg_control_system()
"""


def position_of(engine: Engine) -> Position:
    """Return the WAL position of a server: committed on a primary, replayed on a standby.

    The query runs on its own connection with its own snapshot: inside an open transaction, the
    answer could be newer than what the transaction's statements see.
    """
    with nobody(), engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        cluster, offset = connection.exec_driver_sql(_POSITION).one()
    return Position(int(cluster) % 2**64, int(offset))


@dataclass(eq=False)
class Replica:
    """A copy of the primary."""

    engine: Engine
    suspended_until: float = -math.inf
    is_failing: bool = False
    reached: Position | None = None
    """The last position that it is known to have replayed."""

    def is_ready(self) -> bool:
        """Return whether the replica may be used now."""
        return self.suspended_until <= monotonic()

    def has_replayed(self, wanted: Position) -> bool:
        """Return whether the replica has replayed everything up to a position."""
        if not features_of(self.engine.dialect).has_log_positions:
            return False
        if self.reached is None or not self.reached.includes(wanted):
            self.reached = position_of(self.engine)
        if self.reached.cluster != wanted.cluster:
            raise ValidationError(
                "comes from a different database cluster than the replicas", "token"
            )
        return self.reached.includes(wanted)


@dataclass(eq=False)
class Replicas:
    """The replicas of a primary, used in turn."""

    primary: Engine
    members: Sequence[Replica]
    _turns: Iterator[int] = field(default_factory=count)

    def in_turn(self) -> Iterator[Replica]:
        """Yield the replicas that may be used now, starting with a different one each time."""
        first = next(self._turns)
        for number in range(len(self.members)):
            replica = self.members[(first + number) % len(self.members)]
            if replica.is_ready():
                yield replica

    def suspend(self, replica: Replica, error: BaseException) -> None:
        """Stop using a replica for a while; log that once, not each time that it fails again."""
        replica.suspended_until = monotonic() + _REST
        if replica.is_failing:
            return
        replica.is_failing = True
        left = sum(not each.is_failing for each in self.members)
        told = f"{left} of {len(self.members)} are left" if left else "reads go to the primary"
        get_logger().warning(f"a replica failed ({type(error).__name__}); {told}")


def replicas_of(primary: Engine, engines: Sequence[Engine]) -> Replicas:
    """Return the replicas with these engines; raise a `ValidationError` if one is unsuitable."""
    for each in engines:
        if each is primary or each.dialect.name != primary.dialect.name:
            raise ValidationError(
                f"must be engines of copies of the {primary.dialect.name} database, "
                f"not {'the primary' if each is primary else each.dialect.name}",
                field="replicas",
            )
        if is_secured(each) is not is_secured(primary):
            raise ValidationError(
                "must have the same row_security setting as the primary",
                field="replicas",
            )
    return Replicas(primary, [Replica(each) for each in engines])


def _writing(method: Any) -> Any:
    """Return a method of sessions that stays with the primary from its beginning."""

    @wraps(method)
    def call(session: RoutedSession, *args: Any, **options: Any) -> Any:
        session.stay_with_primary()
        return method(session, *args, **options)

    return call


class RoutedSession(SQLModelSession):
    """A session that reads from a replica until it writes."""

    # They read rows to write them, or write without a flush.
    merge = _writing(SQLModelSession.merge)
    delete = _writing(SQLModelSession.delete)
    bulk_save_objects = _writing(SQLModelSession.bulk_save_objects)
    bulk_insert_mappings = _writing(SQLModelSession.bulk_insert_mappings)
    bulk_update_mappings = _writing(SQLModelSession.bulk_update_mappings)
    if hasattr(SQLModelSession, "merge_all"):  # SQLAlchemy 2.1
        merge_all = _writing(SQLModelSession.merge_all)
        delete_all = _writing(SQLModelSession.delete_all)

    def __init__(self, *args: Any, replicas: Replicas, **options: Any) -> None:
        super().__init__(*args, **options)
        self._replicas = replicas
        self._start_over()

    def _start_over(self) -> None:
        self._stays = False
        self._replica: Replica | None = None
        self._seen: Position | None = None
        self._is_outdated = False

    def close(self) -> None:
        """Close the session; it may read from a replica again."""
        super().close()
        self._start_over()

    def reset(self) -> None:
        """Reset the session; it may read from a replica again."""
        super().reset()
        self._start_over()

    def connection(self, *args: Any, **options: Any) -> Connection:
        """Return the connection to the primary, which allows reads and writes."""
        self.stay_with_primary()
        return super().connection(*args, **options)

    def get(self, entity: Any, ident: Any, **options: Any) -> Any:
        """Return a row by its key, refreshed if the session may hold an outdated one."""
        may_be_outdated = self._is_outdated or wanted_freshness() != ANY
        if may_be_outdated and not self.dirty:
            options = {**options, "populate_existing": True}
        return super().get(entity, ident, **options)

    def stay_with_primary(self) -> None:
        """Read from the primary from now on, until the session is closed."""
        if not self._stays:
            self._stays = True
            self._outdate()

    def leave_replica(self) -> None:
        """End the transaction on the replica; nothing in it can fail the session's commit."""
        if self._replica is None:
            return
        try:
            _detach(self, self._replica.engine, is_lost=False)
        except Exception as error:
            if not is_unreachable(error):
                raise
            self._replicas.suspend(self._replica, error)

    def _outdate(self) -> None:
        """Mark rows that came from a replica as outdated, so that the next read refreshes them."""
        if self._replica is not None and not self._is_outdated:
            self._is_outdated = True
            kept_rows.note_more(self, self.identity_map.all_states())

    # --- one statement ---------------------------------------------------------------------------

    def route(self, execution: ORMExecuteState) -> Any:
        """Execute a statement on the right database; None leaves that to SQLAlchemy."""
        if not self._is_ours(execution):
            return None
        if not self._may_leave_primary(execution):
            self.stay_with_primary()
            return self._invoke(execution, self._replicas.primary)
        replica = self._replica_to_read()
        if replica is None:
            self._outdate()
            return self._invoke(execution, self._replicas.primary)
        try:
            result = self._invoke(execution, replica.engine)
        except Exception as error:
            if not self._can_do_without(replica, error):
                raise
            return self._invoke(execution, self._replicas.primary)
        replica.is_failing = False
        return result

    def _is_ours(self, execution: ORMExecuteState) -> bool:
        """Return whether a statement goes to the primary by default, without an explicit bind."""
        arguments = execution.bind_arguments
        if arguments.get("bind") is None:
            return self.get_bind(**arguments) is self._replicas.primary
        if not only_reads(execution.statement):
            self.stay_with_primary()
        return False

    def _may_leave_primary(self, execution: ORMExecuteState) -> bool:
        return (
            not self._stays
            and not is_inside(self)
            and not self.in_nested_transaction()
            and (not self.autoflush or is_clean(self))
            and only_reads(execution.statement)
        )

    def _invoke(self, execution: ORMExecuteState, engine: Engine) -> Any:
        options = {}
        if self._is_outdated and execution.is_select and execution.is_orm_statement:
            autoflush(self)
            # With unflushed changes, populate_existing would overwrite them.
            options = {} if self.dirty else {"populate_existing": True}
        return execution.invoke_statement(
            bind_arguments={"bind": engine}, execution_options=options
        )

    # --- which replica ---------------------------------------------------------------------------

    def _replica_to_read(self) -> Replica | None:
        """Return the replica for the next read, or None if it must go to the primary."""
        wanted = wanted_freshness()
        begun = {connection.engine for connection in connections_of(self)}
        if wanted.primary_only or self._replicas.primary in begun:
            return None
        if self._replica is not None and self._replica.engine in begun:
            # The transaction's snapshot may be older than the replica's position.
            return self._replica if self._has_seen(wanted.after) else None
        found = next(
            (each for each in self._candidates() if self._is_far_enough(each, wanted.after)), None
        )
        if self._replica is not None and not self._replica.is_ready():
            # Another replica may be behind it: reads must not go back in time.
            self.stay_with_primary()
            return None
        if found is not None:
            if not self._has_seen(wanted.after):
                self._outdate()
            self._replica, self._seen = found, found.reached
        return found

    def _candidates(self) -> Iterator[Replica]:
        """Yield the replicas, the session's current one first."""
        if self._replica is not None and self._replica.is_ready():
            yield self._replica
        yield from self._replicas.in_turn()

    def _has_seen(self, wanted: Position | None) -> bool:
        return wanted is None or (self._seen is not None and self._seen.includes(wanted))

    def _is_far_enough(self, replica: Replica, wanted: Position | None) -> bool:
        try:
            return wanted is None or replica.has_replayed(wanted)
        except Exception as error:
            if not is_unreachable(error):
                raise
            self._replicas.suspend(replica, error)
            return False

    def _can_do_without(self, replica: Replica, error: Exception) -> bool:
        """Return whether the primary should run the statement that failed on a replica."""
        is_lost = is_unreachable(error)
        if not is_lost and not is_lost_race(error) and not is_read_only(error):
            return False
        # A transaction that an earlier statement has broken says nothing about the replica.
        if not is_read_only(error) and not isinstance(error, PendingRollbackError):
            self._replicas.suspend(replica, error)
        _detach(self, replica.engine, is_lost)
        self.stay_with_primary()
        return True


def _detach(session: Session, engine: Engine, is_lost: bool) -> None:
    """End a session's transaction on a replica, so that the rest of it can continue."""
    transaction = session.get_transaction()
    begun = {} if transaction is None else begun_connections(transaction)
    found = begun.pop(engine, None)
    if found is None:
        return
    connection, begin, *_ = found
    begun.pop(connection)
    try:
        if is_lost:
            connection.invalidate()
        begin.close()
    finally:
        connection.close()


def stay_with_primary(session: Session) -> None:
    """Make a session with replicas read from the primary from now on."""
    if isinstance(session, RoutedSession):
        session.stay_with_primary()


def token_of(session: Session) -> str:
    """Return the token for the current position of a session's database."""
    if is_inside(session):
        raise ValidationError(
            "call replication_token() after the commit, not inside a transaction block",
            field="session",
        )
    engine = session.get_bind().engine
    if not features_of(engine.dialect).has_log_positions:
        raise ValidationError(
            f"replication_token() needs PostgreSQL, not {engine.dialect.name}; "
            "use use_primary() there",
            field="session",
        )
    return position_of(engine).token()
