"""The mixins as classes: their columns, types, defaults and Pydantic fields, without a database."""

from __future__ import annotations

import contextvars
import datetime as dt
import threading
import warnings

import pytest
from fastapi import FastAPI
from pydantic import ValidationError as PydanticError
from sqlalchemy import (
    Boolean,
    Column,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    insert,
    update,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.orm import make_transient_to_detached
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlmodel import SQLModel

from sqlmodel_crud_utils import mixins
from sqlmodel_crud_utils._core.models.facts import facts_of
from sqlmodel_crud_utils._core.values.on_update import on_update_values
from sqlmodel_crud_utils._core.values.versions import (
    check_version,
    conflict,
    held_version,
    require_version,
)
from sqlmodel_crud_utils.exceptions import ConflictError, SQLModelCRUDError, ValidationError
from sqlmodel_crud_utils.mixins import (
    AuditMixin,
    UTCDateTime,
    acting_as,
    current_actor,
    unique_when_not_deleted,
)
from tests.models import AllTypes, Hero, Seat
from tests.models_mixins import (
    Badge,
    Club,
    Counter,
    Letter,
    Membership,
    Memo,
    Parcel,
    Player,
    Revision,
    Visit,
)
from tests.upsert_models import Article

NAIVE = dt.datetime(2025, 1, 2, 3, 4, 5, 6)  # noqa: DTZ001 - naive is what is tested
EAST = dt.timezone(dt.timedelta(hours=5))
TIME_COLUMNS = ("created_at", "updated_at")
AUDIT_COLUMNS = (*TIME_COLUMNS, "created_by", "updated_by")
DELETE_COLUMNS = ("deleted_at", "deleted_by", "is_deleted")


def table_of(model: type) -> Table:
    """Return what a model is stored in."""
    return model.__table__  # type: ignore[attr-defined]


# --- columns -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "columns"),
    [
        (Visit, TIME_COLUMNS),
        (Memo, AUDIT_COLUMNS),
        (Letter, (*AUDIT_COLUMNS, *DELETE_COLUMNS)),
        (Club, DELETE_COLUMNS),
        (Player, DELETE_COLUMNS),
        (Counter, ("version",)),
        (Parcel, (*AUDIT_COLUMNS, *DELETE_COLUMNS, "version")),
    ],
)
def test_a_mixin_adds_its_columns_before_and_after_sqlmodel(model, columns):
    """This holds for any order of bases, and for base classes without tables."""
    assert set(columns) <= set(table_of(model).c.keys())


def test_models_share_no_column_objects():
    """Each table has its own, with its own index."""
    assert table_of(Club).c.is_deleted is not table_of(Player).c.is_deleted
    assert table_of(Memo).c.created_at is not table_of(Letter).c.created_at
    names = {index.name for model in (Club, Player, Badge) for index in table_of(model).indexes}
    assert {"ix_club_is_deleted", "ix_player_is_deleted", "ix_badge_is_deleted"} <= names


def test_types_and_nullability():
    """Names are short strings, times are moments; only what is always known is NOT NULL."""
    columns = table_of(Parcel).c
    required = {name for name in (*AUDIT_COLUMNS, *DELETE_COLUMNS) if not columns[name].nullable}
    assert required == {"created_at", "is_deleted"}
    assert not columns.version.nullable
    for name in ("created_by", "updated_by", "deleted_by"):
        assert isinstance(columns[name].type, String)
        assert columns[name].type.length == 100
    for name in ("created_at", "updated_at", "deleted_at"):
        assert isinstance(columns[name].type, UTCDateTime)
    assert isinstance(columns.is_deleted.type, Boolean)


def test_a_model_keeps_its_own_table_and_mapper_arguments():
    """Mixins add to them and replace none."""
    table = table_of(Parcel)
    assert "uq_parcel_code_size" in {constraint.name for constraint in table.constraints}
    assert {"ix_parcel_size", "ix_parcel_is_deleted"} <= {index.name for index in table.indexes}
    assert table.comment == "what is on its way"
    mapper = Parcel.__mapper__  # type: ignore[attr-defined]
    assert mapper.confirm_deleted_rows is False
    assert mapper.version_id_col is table.c.version


def test_a_model_keeps_a_version_column_of_its_own():
    """Its `version_id_col` wins over the mixin's."""
    assert facts_of(Revision).version == "revision"


@pytest.mark.parametrize(
    ("dialect", "fragments"),
    [
        (
            sqlite.dialect(),
            [
                "created_at DATETIME DEFAULT (strftime('%Y-%m-%d %H:%M:%f000', 'now')) NOT NULL",
                "updated_at DATETIME,",
                "is_deleted BOOLEAN DEFAULT 0 NOT NULL",
            ],
        ),
        (
            postgresql.dialect(),
            [
                "created_at TIMESTAMP WITH TIME ZONE DEFAULT CURRENT_TIMESTAMP NOT NULL",
                "updated_at TIMESTAMP WITH TIME ZONE,",
                "is_deleted BOOLEAN DEFAULT false NOT NULL",
            ],
        ),
        (
            mysql.dialect(),
            [
                "created_at DATETIME(6) NOT NULL DEFAULT (utc_timestamp(6))",
                "updated_at DATETIME(6),",
                "is_deleted BOOL NOT NULL DEFAULT 0",
            ],
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_ddl(dialect, fragments):
    """Microseconds and UTC on every database, defaults for inserts past the ORM."""
    ddl = str(CreateTable(table_of(Letter)).compile(dialect=dialect))
    for fragment in fragments:
        assert fragment in ddl


# --- fields --------------------------------------------------------------------------------------


class MemoPublic(SQLModel, AuditMixin):
    """A schema, not a table."""

    text: str


def test_no_field_needs_to_be_given():
    """They all have defaults, also where Pydantic validates."""
    parcel = Parcel.model_validate({"code": "a"})
    assert parcel.created_at.tzinfo is dt.UTC
    assert (parcel.updated_at, parcel.created_by, parcel.deleted_at) == (None, None, None)
    assert (parcel.is_deleted, parcel.version) == (False, 1)
    assert set(AUDIT_COLUMNS) <= set(parcel.model_dump())


def test_fields_in_a_response_model():
    """A schema with a mixin documents its fields and serializes rows."""
    app = FastAPI()

    @app.get("/memo")
    def read_memo() -> MemoPublic:  # pragma: no cover - only its signature is read
        raise NotImplementedError

    fields = app.openapi()["components"]["schemas"]["MemoPublic"]["properties"]
    assert fields["created_at"]["format"] == "date-time"
    shown = MemoPublic.model_validate(Memo(text="hello", created_by="alice"))
    assert shown.model_dump()["created_by"] == "alice"
    assert '"created_by":"alice"' in shown.model_dump_json()


def test_a_validating_model_refuses_naive_datetimes_and_long_names():
    """Pydantic knows the rules that the columns have."""
    with pytest.raises(PydanticError, match="created_at"):
        Memo.model_validate({"text": "a", "created_at": NAIVE})
    with pytest.raises(PydanticError, match="created_by"):
        Memo.model_validate({"text": "a", "created_by": "x" * 101})


# --- time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "field"),
    [
        (Visit, "created_at"),
        (Visit, "updated_at"),
        (Visit, "until"),
        (Club, "deleted_at"),
        (Letter, "created_at"),
        (Letter, "deleted_at"),
    ],
)
def test_a_naive_datetime_is_refused_when_it_is_assigned(model, field):
    """On construction and afterwards, with the field's name."""
    needed = {"text": "a"} if model is Letter else {}
    with pytest.raises(ValidationError, match=f"'{field}'.*time zone"):
        model(**needed, **{field: NAIVE})
    row = model(**needed)
    with pytest.raises(ValidationError, match=f"'{field}'"):
        setattr(row, field, NAIVE)
    setattr(row, field, dt.datetime.now(EAST))
    setattr(row, field, None)


def test_a_model_without_mixins_is_not_watched():
    """Naive datetimes stay possible where the column takes them."""
    assert AllTypes(naive_moment=NAIVE).naive_moment == NAIVE


def test_the_column_type_refuses_what_is_no_aware_datetime():
    """This is for statements, which assign nothing; SQLAlchemy does not wrap the error."""
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        Visit.__table__.create(connection)  # type: ignore[attr-defined]
        for value in (NAIVE, "yesterday", 5):
            with pytest.raises(ValidationError, match="time zone"):
                connection.execute(insert(Visit).values(until=value))
    engine.dispose()


def test_the_column_type_names_itself_for_migrations():
    """Alembic writes the repr behind the module's name, and that must be importable."""
    assert repr(UTCDateTime()) == "UTCDateTime()"
    assert getattr(mixins, UTCDateTime.__name__) is UTCDateTime
    assert UTCDateTime.__module__ == mixins.__name__


def test_library_errors_are_let_through_by_sqlalchemy():
    """It wraps other errors that a column's type raises as StatementError."""
    assert issubclass(SQLModelCRUDError, DontWrapMixin)


# --- actors --------------------------------------------------------------------------------------


def test_acting_as_nests_and_ends():
    """The innermost name counts, None hides the names around, and an error ends the block."""
    with acting_as("alice"):
        with acting_as("bob"):
            assert current_actor() == "bob"
        with acting_as(None):
            assert current_actor() is None
        with pytest.raises(ZeroDivisionError), acting_as("carol"):
            raise ZeroDivisionError
        assert current_actor() == "alice"
    assert current_actor() is None


def test_one_block_can_be_entered_again():
    """As a constant that several functions use, say."""
    robot = acting_as("robot")
    with robot:
        with robot:
            assert current_actor() == "robot"
        assert current_actor() == "robot"
    assert current_actor() is None


def test_acting_as_ends_quietly_in_another_context():
    """A generator that holds a block may be closed elsewhere, where the name never held."""
    block = acting_as("alice")
    contextvars.copy_context().run(block.__enter__)
    block.__exit__(None, None, None)
    assert current_actor() is None


@pytest.mark.parametrize("user", [5, b"alice", ["alice"], "x" * 101])
def test_a_name_that_the_columns_cannot_hold_is_refused(user):
    """At once, not at the next flush."""
    with pytest.raises(ValidationError, match="'user'"):
        acting_as(user)


def test_every_thread_has_its_own_actor():
    """Fifty threads that overlap see only their own names."""
    barrier, seen = threading.Barrier(50), {}

    def act(name: str) -> None:
        with acting_as(name):
            barrier.wait()
            seen[name] = current_actor()

    threads = [threading.Thread(target=act, args=(f"user {n}",)) for n in range(50)]
    with acting_as("main"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert current_actor() == "main"
    assert seen == {name: name for name in seen}
    assert len(seen) == 50


# --- soft delete ---------------------------------------------------------------------------------


def test_soft_delete_and_restore_set_all_three_fields():
    """Actor and time are set and cleared together with the mark."""
    club = Club(name="a")
    with acting_as("alice"):
        club.soft_delete()
    assert (club.is_deleted, club.deleted_by) == (True, "alice")
    assert club.deleted_at is not None
    assert club.deleted_at.tzinfo is dt.UTC
    with acting_as("alice"):
        club.soft_delete("bob")
    assert club.deleted_by == "bob"
    club.restore()
    assert (club.is_deleted, club.deleted_at, club.deleted_by) == (False, None, None)


# --- versions ------------------------------------------------------------------------------------


def test_models_with_and_without_versions():
    """`expected_version` makes sense for the former only."""
    assert facts_of(Counter).version == "version"
    assert facts_of(Hero).version is None
    assert held_version(facts_of(Hero), Hero(name="a", secret_name="b")) is None
    with pytest.raises(ValidationError, match="Hero has no versions; inherit VersionMixin"):
        require_version(facts_of(Hero))


def test_an_expected_version_is_compared_with_the_one_that_was_read():
    """A value that the caller assigned since doesn't count."""
    counter = Counter(id=1, version=3)
    make_transient_to_detached(counter)
    set_committed_value(counter, "version", 3)
    counter.version = 9
    check_version(facts_of(Counter), counter, 3)
    with pytest.raises(ConflictError) as caught:
        check_version(facts_of(Counter), counter, 4)
    assert (caught.value.expected, caught.value.found) == (4, 3)
    assert held_version(facts_of(Counter), Counter(version=3)) is None


def test_a_conflict_names_simple_and_composite_keys():
    """In the caller's form."""
    seat = Seat(row="a", number=1)
    assert conflict(seat, 1).key is None
    counter = Counter(id=7)
    make_transient_to_detached(seat)
    make_transient_to_detached(counter)
    assert conflict(seat, 1).key == ("a", 1)
    assert conflict(counter, 1, 2).key == 7


def test_a_core_update_counts_the_version_up():
    """Also one of the table alone, past the ORM."""
    statement = str(update(table_of(Counter)).values(value=1))
    assert "version=(counter.version + " in statement


# --- unique when visible -------------------------------------------------------------------------


def test_unique_when_not_deleted_declares_index_and_marker():
    """One marker for all of them, which is not an attribute of the model."""
    table = table_of(Membership)
    unique = {index.name: index.columns.keys() for index in table.indexes if index.unique}
    assert unique == {
        "uq_membership_email_not_deleted": ["email", "not_deleted_marker"],
        "uq_nick": ["realm", "nick", "not_deleted_marker"],
    }
    assert "not_deleted_marker" not in Membership.__mapper__.attrs  # type: ignore[attr-defined]


@pytest.mark.parametrize("dialect", [sqlite.dialect(), postgresql.dialect(), mysql.dialect()])
def test_unique_when_not_deleted_works_without_partial_indexes(dialect):
    """MySQL and MariaDB have none: a generated column does it everywhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ddl = str(CreateTable(table_of(Membership)).compile(dialect=dialect))
    assert "not_deleted_marker BOOL" in ddl
    assert "STORED" in ddl
    indexes = [str(CreateIndex(i).compile(dialect=dialect)) for i in table_of(Membership).indexes]
    assert "CREATE UNIQUE INDEX uq_nick ON membership (realm, nick, not_deleted_marker)" in indexes


def test_unique_when_not_deleted_says_what_is_missing():
    """When the model is declared, not when the table is created."""
    with pytest.raises(ValidationError, match="at least one column"):
        unique_when_not_deleted()
    with pytest.raises(ValidationError, match="'t' has no column name, is_deleted; inherit Soft"):
        Table("t", MetaData(), Column("id", Integer), unique_when_not_deleted("name"))
    flag = Column("is_deleted", Boolean)
    with pytest.raises(ValidationError, match=r"'t' has no column name$"):
        Table("t", MetaData(), flag, unique_when_not_deleted("name"))


def test_stamps_of_every_kind() -> None:
    """Functions are called, plain values are used directly; given values are left out."""
    stamps = on_update_values(facts_of(Parcel), {"updated_by": "bob"})
    assert set(stamps) == {"updated_at", "version"}
    assert stamps["updated_at"].tzinfo is dt.UTC
    assert on_update_values(facts_of(Article), {"updated_at": None, "seven": 7}) == {
        "editor": "somebody"
    }
    assert on_update_values(facts_of(Membership), {}) == {}
