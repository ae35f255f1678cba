"""Private parts of SQLAlchemy: each use, by the name of the attribute."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, StaticPool, create_engine, event, inspect, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.pool import SingletonThreadPool

import sqlmodel_crud_utils
from sqlmodel_crud_utils._session import sqlalchemy_internals as internals
from tests.models import Team

PACKAGE = Path(sqlmodel_crud_utils.__file__).parent


@pytest.fixture
def engine() -> Iterator[Engine]:
    """A database in memory with the table of `Team`."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    inspect(Team).local_table.create(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    """A session of that database."""
    with Session(engine) as session:
        yield session


# --- sessions ------------------------------------------------------------------------------------


def test_is_clean_and_autoflush(session: Session) -> None:
    """`Session._is_clean` and `Session._autoflush`."""
    assert internals.is_clean(session)
    session.add(Team(name="a"))
    assert not internals.is_clean(session)
    internals.autoflush(session)
    assert internals.is_clean(session)


def test_is_in_context_manager(session: Session) -> None:
    """`Session._trans_context_manager`."""
    assert not internals.is_in_context_manager(session)
    with session.begin():
        assert internals.is_in_context_manager(session)
    assert not internals.is_in_context_manager(session)


def test_flushing(session: Session) -> None:
    """`Session._flushing`, which `get_bind` methods of users ask, as SQLAlchemy documents it."""
    assert session._flushing is False
    with internals.flushing(session):
        assert session._flushing is True
    assert session._flushing is False


def test_flush_transaction(session: Session) -> None:
    """`Session._autobegin_t`, `SessionTransaction._begin` and `rollback(_capture_exception=)`."""
    with internals.flush_transaction(session):
        session.connection().execute(text("INSERT INTO team (id, name) VALUES (1, 'a')"))
    assert session.is_active
    with pytest.raises(IntegrityError), internals.flush_transaction(session):
        session.connection().execute(text("INSERT INTO team (id, name) VALUES (1, 'a')"))
    assert not session.is_active  # as after a flush that was refused


def test_new_objects_become_persistent(session: Session) -> None:
    """`Session._save_impl` and `Session._register_persistent`."""
    team = Team(id=1, name="a")
    state = inspect(team)
    internals.add_pending(session, [state])
    assert state.pending
    internals.register_persistent(session, [state])
    assert state.persistent
    assert internals.is_clean(session)


def test_altered_objects_expire_with_their_savepoint(session: Session) -> None:
    """`Session._register_altered`."""
    team = Team(name="a")
    session.add(team)
    session.flush()
    savepoint = session.begin_nested()
    internals.register_altered(session, [inspect(team)])
    savepoint.rollback()
    assert "name" in inspect(team).expired_attributes


# --- transactions --------------------------------------------------------------------------------


def test_begun_connections(session: Session) -> None:
    """`SessionTransaction._connections`: a connection first, and last whether it began here."""
    connection = session.connection()
    transaction = session.get_transaction()
    assert transaction is not None
    first, *_, is_of_session = internals.begun_connections(transaction)[connection]
    assert first is connection
    assert is_of_session is True


def test_rollback_exception(session: Session) -> None:
    """`SessionTransaction._rollback_exception`."""
    session.connection().execute(text("INSERT INTO team (id, name) VALUES (1, 'a')"))
    session.add(Team(id=1, name="b"))
    with pytest.raises(IntegrityError) as refused:
        session.flush()
    transaction = session.get_transaction()
    assert transaction is not None
    assert internals.rollback_exception(transaction) is refused.value


def test_is_committed(session: Session) -> None:
    """`SessionTransaction._state`."""
    seen = []

    @event.listens_for(session, "after_commit")
    def look(_session: Session) -> None:
        seen.append(internals.is_committed(transaction))

    transaction = session.begin()
    seen.append(internals.is_committed(transaction))
    session.connection()
    session.commit()
    assert seen == [False, True]


# --- connections and pools -----------------------------------------------------------------------


def test_connections(engine: Engine) -> None:
    """`Connection._is_autocommit_isolation`, the dialect's `_on_connect_isolation_level`."""
    with engine.connect() as connection:
        assert not internals.is_autocommitting(connection)
        assert internals.level_on_connect(connection.dialect) is None
    own = create_engine("sqlite://", isolation_level="SERIALIZABLE")
    assert internals.level_on_connect(own.dialect) == "SERIALIZABLE"
    own.dispose()


def test_record_of(engine: Engine) -> None:
    """`_connection_record` of a pooled connection."""
    with engine.connect() as connection:
        record = internals.record_of(connection)
        assert record.dbapi_connection is connection.connection.dbapi_connection


def test_connections_of_threads() -> None:
    """`SingletonThreadPool._all_conns`."""
    engine = create_engine("sqlite://", poolclass=SingletonThreadPool)
    with engine.connect():
        assert isinstance(engine.pool, SingletonThreadPool)
        assert len(internals.connections_of_threads(engine.pool)) == 1
    engine.dispose()


# --- objects and mappers -------------------------------------------------------------------------


def test_mappers() -> None:
    """`Mapper._path_registry`, and `_all_registries` of `sqlalchemy.orm.mapper`."""
    mapper = inspect(Team)
    assert mapper in internals.all_mappers()
    assert internals.path_of(mapper).path == (mapper,)


# --- one door ------------------------------------------------------------------------------------


def test_sessions_have_one_door() -> None:
    """Whatever works with sessions goes through `sqlalchemy_internals` for their private parts."""
    door = PACKAGE / "_session" / "sqlalchemy_internals.py"
    private = _private_names(door)
    assert len(private) > 10
    others = [
        file
        for hall in ("_session", "_shortcuts", "_async", "ext")
        for file in (PACKAGE / hall).rglob("*.py")
        if file != door
    ]
    assert {str(file): found for file in others if (found := private & _private_names(file))} == {}


def _private_names(file: Path) -> set[str]:
    """Return the private attributes that a module asks of others than `self`."""
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    return {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"})
    }
