"""Private parts of SQLAlchemy: each use, by the name of the attribute."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from sqlalchemy import (
    NUMERIC,
    Column,
    Connection as PlainConnection,
    Delete,
    Engine,
    Float,
    Integer,
    MetaData,
    Numeric,
    StaticPool,
    Table,
    UniqueConstraint,
    Update,
    column,
    create_engine,
    delete,
    event,
    func,
    insert,
    inspect,
    lambda_stmt,
    select,
    text,
    union,
    update,
    values,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    ORMExecuteState,
    Session,
    joinedload,
    load_only,
    mapped_column,
    selectinload,
    with_expression,
    with_loader_criteria,
)
from sqlalchemy.pool import QueuePool, SingletonThreadPool
from sqlalchemy.sql.lambdas import NullLambdaStatement
from sqlalchemy.util import greenlet_spawn

import sqlmodel_crud_utils
from sqlmodel_crud_utils._core import sqlalchemy_internals as core
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._session import sqlalchemy_internals as internals
from tests.bulk_models import Truck, Vehicle
from tests.models import Hero, Team

PACKAGE = Path(sqlmodel_crud_utils.__file__).parent


@pytest.fixture
def engine() -> Iterator[Engine]:
    """A database in memory with the tables of `Team` and `Truck`."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    for model in (Team, Vehicle, Truck):
        inspect(model).local_table.create(engine)
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


def test_max_overflow() -> None:
    """`QueuePool._max_overflow`."""
    engine = create_engine("sqlite://", poolclass=QueuePool, pool_size=1, max_overflow=7)
    assert isinstance(engine.pool, QueuePool)
    assert internals.max_overflow(engine.pool) == 7
    engine.dispose()


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


def test_deleted_objects_of_a_transaction(session: Session) -> None:
    """`SessionTransaction._deleted`."""
    truck = Truck(name="a", load=1)
    session.add(truck)
    session.flush()
    assert not internals.has_deleted(session)
    with session.begin_nested():
        session.delete(truck)
        session.flush()
        assert internals.has_deleted(session)
    assert internals.has_deleted(session)
    session.commit()
    assert not internals.has_deleted(session)


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


# --- connections and pools -----------------------------------------------------------------------


def test_connections(engine: Engine) -> None:
    """`Connection._is_autocommit_isolation`, the dialect's `_on_connect_isolation_level`."""
    with engine.connect() as connection:
        assert not internals.is_autocommitting(connection)
        assert internals.level_on_connect(connection.dialect) is None
    own = create_engine("sqlite://", isolation_level="SERIALIZABLE")
    assert internals.level_on_connect(own.dialect) == "SERIALIZABLE"
    own.dispose()


def test_innermost_savepoint(engine: Engine) -> None:
    """`NestedTransaction._savepoint`."""
    with engine.connect() as connection:
        assert internals.innermost_savepoint(connection) is None
        with connection.begin_nested(), connection.begin_nested():
            assert internals.innermost_savepoint(connection) == "sa_savepoint_2"


def test_record_of(engine: Engine) -> None:
    """`_connection_record` of a pooled connection."""
    with engine.connect() as connection:
        record = internals.record_of(connection)
        assert record.dbapi_connection is connection.connection.dbapi_connection


def test_forget_types() -> None:
    """`_type_memos` of a dialect."""
    dialect, type_ = sqlite.dialect(), Integer()
    before = type_.dialect_impl(dialect)
    assert type_.dialect_impl(dialect) is before
    internals.forget_types(dialect)
    assert type_.dialect_impl(dialect) is not before


def test_connections_of_threads() -> None:
    """`SingletonThreadPool._all_conns`."""
    engine = create_engine("sqlite://", poolclass=SingletonThreadPool)
    with engine.connect():
        assert isinstance(engine.pool, SingletonThreadPool)
        assert len(internals.connections_of_threads(engine.pool)) == 1
    engine.dispose()


async def test_close_cursor() -> None:
    """`_async_soft_close` of a cursor; its rows stay, and a plain cursor is unchanged."""
    told = AsyncMock()
    cursor = Mock(_async_soft_close=told)
    await greenlet_spawn(internals.close_cursor, Mock(raw=Mock(cursor=cursor)))
    told.assert_awaited_once()
    internals.close_cursor(Mock(raw=Mock(cursor=Mock(spec=["close"]))))
    engine = create_async_engine("sqlite+aiosqlite://")

    def fetched_later(connection: PlainConnection) -> int:
        result = connection.execute(text("SELECT 1"))
        internals.close_cursor(Mock(raw=result))
        return int(result.scalar_one())

    async with engine.connect() as connection:
        assert await connection.run_sync(fetched_later) == 1
    await engine.dispose()


# --- objects and mappers -------------------------------------------------------------------------


def test_mappers() -> None:
    """`Mapper._path_registry`, and `_all_registries` of `sqlalchemy.orm.mapper`."""
    mapper = inspect(Team)
    assert mapper in internals.all_mappers()
    assert internals.path_of(mapper).path == (mapper,)


def test_keep_statements() -> None:
    """`Mapper._memo`, which a flush asks for its statements by their kind and their table."""
    kept = []

    def keep(usual: Callable[..., Any], key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        kept.append(key[:2])
        return usual(key, make)

    class Base(DeclarativeBase):
        pass

    class Row(Base):
        __tablename__ = "row"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]

    internals.keep_statements(inspect(Row), keep)
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        row = Row(id=1, name="a")
        session.add(row)
        session.flush()
        row.name = "b"
        session.flush()
        session.delete(row)
        session.flush()
    engine.dispose()
    assert {("update", Row.__table__), ("delete", Row.__table__)} <= set(kept)


def test_missing_columns(session: Session) -> None:
    """`_only_load_props` of the statement's `_compile_options`."""
    session.add(Team(name="a"))
    session.commit()
    asked: list[list[str]] = []

    def on_execute(execution: ORMExecuteState) -> None:
        if execution.is_column_load:
            asked.append(internals.missing_columns(execution))

    event.listen(session, "do_orm_execute", on_execute)
    team = session.scalars(select(Team).options(load_only(Team.name))).one()
    assert team.city is None
    assert asked == [["city"]]
    session.add(Truck(id=1, name="a", load=7))
    session.commit()
    session.expunge_all()
    truck = session.scalars(select(Vehicle)).one()
    assert isinstance(truck, Truck)
    assert truck.load == 7
    assert asked == [["city"], ["load"]]


def test_unlock() -> None:
    """`_execute_mutex` of SQLAlchemy's connection of aiosqlite, since 2.1."""

    class Connection:
        _execute_mutex = "a lock"

    connection = Connection()
    internals.unlock(connection)
    with connection._execute_mutex:  # type: ignore[attr-defined]
        pass


# --- statements ----------------------------------------------------------------------------------

TEAM = inspect(Team).local_table


def test_strategies_in() -> None:
    """`Load.context`, with `strategy` and `path` of its elements."""
    options = [selectinload(Hero.team).joinedload(Team.heroes), load_only(Hero.name)]
    found = [(way, [each.key for each in path]) for way, path in core.strategies_in(options)]
    assert found[:2] == [("selectin", ["team"]), ("joined", ["team", "heroes"])]
    assert {way for way, _ in found[2:]} == {""}
    assert list(core.strategies_in([joinedload("*")])) == []


def test_what_a_statement_is() -> None:
    """`_generate_cache_key` and `_propagate_attrs`."""
    assert core.cache_key_of(select(Team)) == core.cache_key_of(select(Team))
    assert core.cache_key_of(select(Team)) != core.cache_key_of(select(TEAM))
    assert core.is_orm(select(Team))
    assert not core.is_orm(select(TEAM))


def test_the_source_of_a_statement() -> None:
    """`_resolved` of both kinds of lambdas, and `from_statement()`."""
    plain = select(TEAM)
    assert core.source_of(plain) is plain
    assert core.source_of(select(Team).from_statement(plain)) is plain
    in_lambda = lambda_stmt(lambda: update(TEAM).values(id=1))
    assert isinstance(core.source_of(in_lambda), Update)
    assert isinstance(core.source_of(NullLambdaStatement(delete(TEAM))), Delete)


@pytest.mark.parametrize("statement", [select(TEAM), update(TEAM), delete(TEAM)], ids=str)
def test_criteria(statement: Any) -> None:
    """`_where_criteria`, which is set as well."""
    assert core.criteria_of(statement) == ()
    one, other = TEAM.c.id == 1, TEAM.c.id == 2
    statement = statement.where(one)
    core.add_criteria(statement, [other])
    assert core.criteria_of(statement) == (one, other)
    assert str(statement).count("team.id =") == 2


def test_options() -> None:
    """`_with_options`, which is set as well."""
    option = selectinload(Team.heroes)
    statement = select(Team).options(option)
    assert core.options_of(statement) == (option,)
    assert core.options_of(TEAM.c.id) == ()
    core.set_options(statement, [])
    assert core.options_of(statement) == ()
    assert isinstance(option, core.LoaderOption)


def test_texts_in_criteria() -> None:
    """`_where_criteria` with parentheses around texts, which AND would tear apart."""
    statement = select(TEAM.c.id).where(text("a OR b"))
    core.group_texts(statement)
    assert str(statement.where(TEAM.c.id == 1)).endswith("(a OR b) AND team.id = :id_1")


def test_criteria_in_options() -> None:
    """`_extra_criteria`, `local_opts`, and the criteria of `with_loader_criteria`."""
    criterion = inspect(Hero).local_table.c.id == 1
    loading = selectinload(Team.heroes.and_(criterion))
    assert [str(each) for each in core.criteria_in([loading])] == [str(criterion)]
    assert [*core.criteria_in([selectinload(Team.heroes)])] == []
    computed = with_expression(Team.name, criterion)
    assert [str(each) for each in core.criteria_in([computed])] == [str(criterion)]
    for given in (Hero.id == 1, lambda hero: hero.id == 1):
        [found] = core.criteria_in([with_loader_criteria(Hero, given)])
        assert str(found).startswith("hero.id =")


def test_texts_around() -> None:
    """`_prefixes`, `_suffixes`, `_statement_hints` and `_hints`."""
    statement = select(TEAM).prefix_with("a").suffix_with("b").with_statement_hint("c")
    assert core.texts_around(statement.with_hint(TEAM, "d")) == ["a", "b", "c", "d"]
    assert core.texts_around(insert(TEAM).prefix_with("a")) == ["a"]
    assert core.texts_around(delete(TEAM)) == []


def test_full_joins() -> None:
    """`_setup_joins`."""
    hero = inspect(Hero).local_table
    for full in (True, False):
        assert core.has_full_join(select(TEAM).join(hero, full=full)) is full
        assert core.has_full_join(TEAM.join(hero, full=full)) is full
    assert not core.has_full_join(select(TEAM))


def test_what_a_select_is_from() -> None:
    """`_raw_columns`, `_from_obj` and `_setup_joins` (set as well)."""
    hero = inspect(Hero).local_table
    statement = select(TEAM.c.id).select_from(TEAM).join(hero)
    assert core.columns_of(statement) == [TEAM.c.id]
    assert core.froms_of(statement) == (TEAM,)
    (join,) = core.joins_of(statement)
    assert join[0] is hero
    core.set_joins(statement, [(hero, hero.c.id == TEAM.c.id, *join[2:])])
    assert "ON hero.id = team.id" in str(statement)


def test_how_a_select_ends() -> None:
    """`_limit_clause`, `_offset_clause`, `_distinct`, `_group_by_clauses`."""
    limit, offset = core.window_of(select(TEAM).limit(1).offset(2))
    assert (limit.value, offset.value) == (1, 2)
    assert core.window_of(select(TEAM)) == (None, None)
    assert not core.merges_rows(select(TEAM))
    assert core.merges_rows(select(TEAM).distinct())
    assert core.merges_rows(select(TEAM).group_by(TEAM.c.id))


def test_what_may_lock() -> None:
    """`_for_update_arg`, `_suffixes` and `_statement_hints`."""
    assert not core.may_lock(select(TEAM))
    assert core.may_lock(select(TEAM).with_for_update())
    assert core.may_lock(select(TEAM).suffix_with("FOR SHARE"))
    assert core.may_lock(select(TEAM).with_statement_hint("FOR SHARE"))
    assert not core.may_lock(union(select(TEAM), select(TEAM)))


def test_values() -> None:
    """`_values`, `_ordered_values`, `_multi_values`, `_data` of VALUES, ON CONFLICT."""
    assert core.values_of(insert(TEAM)) == {}
    assert list(core.values_of(update(TEAM).values({TEAM.c.name: "a"}))) == [TEAM.c.name]
    ordered = update(TEAM).ordered_values((TEAM.c.name, "a"))
    assert [*core.ordered_columns_of(ordered), *core.values_of(ordered)] == [TEAM.c.name]
    assert list(core.rows_of(insert(TEAM))) == []
    for statement in (ordered, update(TEAM).values(name="a")):
        assert [each.value for each in core.values_in(statement)] == ["a"]
    assert core.values_in(delete(TEAM)) == []
    (rows,) = core.rows_of(insert(TEAM).values([{"name": "a"}, {"name": "b"}]))
    assert len(list(rows)) == 2
    pair = values(column("id"), column("name")).data([(1, func.lower("A"))])
    named = insert(TEAM).values([{"name": func.lower("A"), "id": 1}])
    skipping = sqlite.insert(TEAM).values(id=1)
    skipping = skipping.on_conflict_do_update(["id"], set_={"name": func.lower("A")})
    assert "lower(:lower_1)" in map(str, core.unvisited_sql_of(skipping))
    for rows in (named, insert(TEAM).values([(1, func.lower("A"))]), pair, pair.scalar_values()):
        (value,) = core.unvisited_sql_of(rows)
        assert str(value) == "lower(:lower_1)"


def test_what_an_insert_does() -> None:
    """`_select_names`, `_post_values_clause`, `_prefixes` and `_returning`."""
    assert core.selected_into(insert(TEAM)) == ()
    assert core.selected_into(insert(TEAM).from_select(["name"], select(TEAM.c.name)))
    assert core.conflict_clause_of(insert(TEAM)) is None
    skipping = sqlite.insert(TEAM).on_conflict_do_nothing()
    assert core.conflict_clause_of(skipping) == "on_conflict_do_nothing"
    assert core.prefixes_of(insert(TEAM).prefix_with("Ignore")) == {"IGNORE"}
    assert not core.returns_rows(insert(TEAM))
    assert core.returns_rows(insert(TEAM).returning(TEAM.c.id))


def test_expressions() -> None:
    """`_from_objects`, `_annotations` and `_deep_annotate`."""
    criterion = TEAM.c.id == 1
    assert list(core.tables_in(criterion)) == [TEAM]
    assert core.notes_of(inspect(Team).selectable.alias()) == {}
    assert "parententity" in core.notes_of(facts_of(Team).attributes["id"].expression)
    assert core.notes_of("a") == {}
    assert core.notes_of(core.noted(criterion, {"a": 1}))["a"] == 1


def test_types() -> None:
    """`_variant_mapping` and `_type_affinity`."""
    assert core.variants_of(Numeric()) == {}
    assert list(core.variants_of(Numeric().with_variant(Float(), "sqlite"))) == ["sqlite"]
    assert core.kind_of(NUMERIC(6, 2)) is Numeric


def test_constraints_in_order() -> None:
    """`_sorted_constraints` of a table."""
    unique = [UniqueConstraint("b"), UniqueConstraint("a")]
    table = Table("t", MetaData(), Column("a", Integer), Column("b", Integer), *unique)
    assert [each for each in core.constraints_in_order(table) if each in unique] == unique


def test_json_serializer_of() -> None:
    """`_json_serializer` of the dialects that can be told one."""
    assert core.json_serializer_of(sqlite.dialect(json_serializer=repr)) is repr
    assert core.json_serializer_of(sqlite.dialect()) is None


def test_results(session: Session) -> None:
    """`_metadata._keys` and `_unique_filter_state` of a result."""
    assert core.width_of(session.execute(select(TEAM.c.id, TEAM.c.name))) == 2
    assert not core.repeats_rows(session.execute(select(Team)))
    joined = select(Team).options(joinedload(Team.heroes))
    inspect(Hero).local_table.create(session.connection())
    assert core.repeats_rows(session.execute(joined))


# --- two doors -----------------------------------------------------------------------------------

DOORS = {"_core/sqlalchemy_internals.py", "_session/sqlalchemy_internals.py"}
# Of others: what a connection of aiosqlite does in its thread, the body that FastAPI has read, the
# query of Strawberry, and what a query builder holds.
OTHERS = {
    "_aiosqlite.py": {"_execute"},
    "ext/fastapi/details.py": {"_json"},
    "ext/graphql/selections.py": {"_raw_info"},
    "ext/graphql/selected_rows.py": {"_session", "_query"},
    "ext/graphql/pages.py": {"_session"},
}
# The frame of a caller, and the name under which an object has its state.
KNOWN = {"_getframe", "_replace", "_sa_instance_state"}
MODULES = [file for file in sorted(PACKAGE.rglob("*.py")) if "_sync" not in file.parts]


def test_there_are_two_doors() -> None:
    """Nothing else names a private attribute that it has not defined itself."""
    assert all(len(_private_names(PACKAGE / door)) > 10 for door in DOORS)
    found = {
        place: names
        for file in MODULES
        if (place := file.relative_to(PACKAGE).as_posix()) not in DOORS
        and (names := _private_names(file) - OTHERS.get(place, set()))
    }
    assert found == {}


def _private_names(file: Path) -> set[str]:
    """Return the private names of others that a module uses."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    own = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    own |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and _is_own(node.value)}
    used = {name for node in nodes for name in _used(node)}
    return {name for name in used if re.match("_[^_]", name)} - own - KNOWN


def _used(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Attribute) and not _is_own(node.value):
        yield node.attr
    elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith(PACKAGE.name):
        yield from (alias.name for alias in node.names if node.module != "__future__")
    elif isinstance(node, ast.Call) and getattr(node.func, "id", None) in {"getattr", "setattr"}:
        constants = (each.value for each in node.args if isinstance(each, ast.Constant))
        yield from (value for value in constants if isinstance(value, str))


def _is_own(value: ast.expr) -> bool:
    return isinstance(value, ast.Name) and value.id in {"self", "cls"}
