"""Random programs of library calls as plain data, and a dict model that predicts the outcome.

`tests/_async/test_stateful.py` runs them. A program is a tree of steps, so that Hypothesis can
shrink it, and a failing one can be pasted into a separate test.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from sqlalchemy import CheckConstraint, ForeignKeyConstraint
from sqlmodel import Field, SQLModel

MISSING = 999_999_999  # an id that no row has


class Depot(SQLModel, table=True):
    """A generated key, and a unique name."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, max_length=20)
    room: str = Field(max_length=20)


class Crate(SQLModel, table=True):
    """A given key, a check and a foreign key, which no relationship sets to NULL."""

    __table_args__ = (
        CheckConstraint("weight >= 0", name="ck_crate_weight"),
        ForeignKeyConstraint(["depot_id"], ["depot.id"], name="fk_crate_depot"),
    )

    code: str = Field(primary_key=True, max_length=20)
    weight: int | None = None
    depot_id: int | None = None


COLUMNS: dict[type[SQLModel], tuple[str, ...]] = {
    Depot: ("id", "name", "room"),
    Crate: ("code", "weight", "depot_id"),
}
Row = dict[str, Any]


# --- the steps -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class NewDepot:
    """A row to write; without a room it violates NOT NULL."""

    name: str
    room: str | None


@dataclass(frozen=True)
class NewCrate:
    """A row to write; its depot is given by name, and a missing one violates the foreign key."""

    code: str
    weight: int | None
    depot: str | None


NewRow = NewDepot | NewCrate


@dataclass(frozen=True)
class Step:
    """The common attributes of calls.

    Attributes:
        flag: `raise_on_error`.
        caught: Whether the program catches an exception inside a block, and continues.
    """

    flag: bool | None
    caught: bool


@dataclass(frozen=True)
class Write(Step):
    row: NewRow


@dataclass(frozen=True)
class Insert(Step):
    rows: tuple[NewRow, ...]


@dataclass(frozen=True)
class Update(Step):
    model: type[SQLModel]
    key: str  # the name of a depot, the code of a crate
    data: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Delete(Step):
    model: type[SQLModel]
    key: str


@dataclass(frozen=True)
class GetOrCreate(Step):
    row: NewRow
    by: str  # the field to search by; the others are for a new row


@dataclass(frozen=True)
class Upsert(Step):
    rows: tuple[NewRow, ...]  # of one model, without duplicate keys


@dataclass(frozen=True)
class Get(Step):
    model: type[SQLModel]
    key: str


@dataclass(frozen=True)
class GetList(Step):
    model: type[SQLModel]
    size: int


@dataclass(frozen=True)
class GetMany(Step):
    model: type[SQLModel]
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Mistake(Step):
    """A call that is wrong for any data."""

    kind: str  # unknown, misfit, key, page


@dataclass(frozen=True)
class Refused(Step):
    """The program's own statement, which the database refuses."""


@dataclass(frozen=True)
class Edit(Step):
    """A row that the program itself changes, or adds if it is missing, without a flush."""

    row: NewCrate


@dataclass(frozen=True)
class OnCommit(Step):
    """A callback for the commit; a failing one is only registered inside blocks."""

    fails: bool


@dataclass(frozen=True)
class ByHand(Step):
    """An explicit commit or rollback of the session, in an outermost block."""

    how: str


@dataclass(frozen=True)
class Raise(Step):
    """The program's own exception, raised only in blocks."""


@dataclass(frozen=True)
class Block:
    """A `transaction()` block."""

    steps: tuple[Any, ...]
    wraps: bool
    caught: bool


@dataclass(frozen=True)
class Program:
    """Steps in one session.

    Attributes:
        steps: The calls and blocks.
        expires: The session's `expire_on_commit`.
        holds: Whether the program keeps references to returned rows; the session does not.
    """

    steps: tuple[Any, ...]
    expires: bool = True
    holds: bool = True


# --- strategies ----------------------------------------------------------------------------------

NAMES = st.sampled_from("abc")
FLAGS = st.sampled_from([None, False, True])
MODELS = st.sampled_from([Depot, Crate])
WEIGHTS = st.sampled_from([1, None, 2, -1])
DEPOTS = st.sampled_from([None, "a", "b", "nowhere"])
NEW_DEPOTS = st.builds(NewDepot, NAMES, st.sampled_from(["r", "s", None]))
NEW_CRATES = st.builds(NewCrate, NAMES, WEIGHTS, DEPOTS)
NEW_ROWS = NEW_DEPOTS | NEW_CRATES
CHANGES = {
    Depot: {"name": NAMES, "room": st.sampled_from(["r", "s"])},
    Crate: {"weight": WEIGHTS, "depot": DEPOTS},
}


def _updates() -> st.SearchStrategy[Update]:
    def of(model: type[SQLModel]) -> st.SearchStrategy[Update]:
        data = st.fixed_dictionaries({}, optional=CHANGES[model])
        items = data.map(lambda given: tuple(given.items()))
        return st.builds(Update, FLAGS, st.booleans(), st.just(model), NAMES, items)

    return MODELS.flatmap(of)


def _upserts() -> st.SearchStrategy[Upsert]:
    depots = st.lists(NEW_DEPOTS, max_size=3, unique_by=lambda row: row.name)
    crates = st.lists(NEW_CRATES, max_size=3, unique_by=lambda row: row.code)
    return st.builds(Upsert, FLAGS, st.booleans(), (depots | crates).map(tuple))


def _steps() -> st.SearchStrategy[Any]:
    common = (FLAGS, st.booleans())
    return st.one_of(
        st.builds(Write, *common, NEW_ROWS),
        _updates(),
        st.builds(Delete, *common, MODELS, NAMES),
        st.builds(GetOrCreate, *common, NEW_DEPOTS, st.sampled_from(["name", "room"])),
        st.builds(GetOrCreate, *common, NEW_CRATES, st.just("code")),
        st.builds(Insert, *common, st.lists(NEW_ROWS, max_size=3).map(tuple)),
        _upserts(),
        st.builds(Get, *common, MODELS, NAMES),
        st.builds(GetList, *common, MODELS, st.integers(1, 3)),
        st.builds(GetMany, *common, MODELS, st.lists(NAMES, max_size=3).map(tuple)),
        st.builds(Mistake, *common, st.sampled_from(["unknown", "misfit", "key", "page"])),
        st.builds(OnCommit, *common, st.booleans()),
        st.builds(Edit, *common, NEW_CRATES),
        st.builds(Refused, *common),
        st.builds(ByHand, *common, st.sampled_from(["commit", "rollback"])),
        st.builds(Raise, *common),
    )


def _blocks(steps: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    inner = st.lists(steps, max_size=4).map(tuple)
    return st.builds(Block, inner, st.booleans(), st.booleans())


ANY_STEP = st.recursive(_steps(), lambda steps: steps | _blocks(steps), max_leaves=12)
PROGRAMS = st.builds(
    Program, st.lists(ANY_STEP, max_size=6).map(tuple), st.booleans(), st.booleans()
)


# --- the model -----------------------------------------------------------------------------------


@dataclass
class _Level:
    rows: dict[type[SQLModel], dict[Any, Row]]
    waiting: int


@dataclass
class World:
    """The tables as dicts by key, with their committed state.

    Attributes:
        rows: The rows that the session sees.
        committed: The rows that other sessions see.
        waiting: The callbacks that wait for a commit.
        due: The callbacks whose commit is done.
    """

    rows: dict[type[SQLModel], dict[Any, Row]] = field(
        default_factory=lambda: {Depot: {}, Crate: {}}
    )
    committed: dict[type[SQLModel], dict[Any, Row]] = field(
        default_factory=lambda: {Depot: {}, Crate: {}}
    )
    waiting: list[int] = field(default_factory=list)
    due: list[int] = field(default_factory=list)
    _levels: list[_Level] = field(default_factory=list)

    @property
    def depth(self) -> int:
        """The number of open blocks and savepoints."""
        return len(self._levels)

    def commit(self) -> None:
        """Commit all levels at once, as the database does."""
        self.committed = deepcopy(self.rows)
        for level in self._levels:
            level.rows, level.waiting = deepcopy(self.rows), 0
        self.due += self.waiting
        self.waiting = []

    def roll_back(self) -> None:
        """Restore the committed rows."""
        self.rows, self.waiting = deepcopy(self.committed), []

    def enter(self) -> None:
        """Open a block or a savepoint."""
        self._levels.append(_Level(deepcopy(self.rows), len(self.waiting)))

    def leave(self, *, succeeded: bool) -> None:
        """Close the innermost level; the last one commits or rolls back."""
        level = self._levels.pop()
        if self._levels:
            if not succeeded:
                self.rows, self.waiting = level.rows, self.waiting[: level.waiting]
        elif succeeded:
            self.commit()
        else:
            self.roll_back()

    def depot_id(self, name: str | None) -> int | None:
        """Return the id of a depot by name, or an unused id if it does not exist."""
        return None if name is None else self.key(Depot, name)

    def key(self, model: type[SQLModel], name: str) -> Any:
        """Return the primary key of a row that a program calls by name."""
        if model is Crate:
            return name
        found = (key for key, row in self.rows[Depot].items() if row["name"] == name)
        return next(found, MISSING)

    def values(self, new: NewRow) -> Row:
        """Return the fields of a row to write, without a key to be generated."""
        if isinstance(new, NewDepot):
            return {"name": new.name, "room": new.room}
        return {"code": new.code, "weight": new.weight, "depot_id": self.depot_id(new.depot)}

    def broken(self, model: type[SQLModel], row: Row, key: Any = None) -> set[str]:
        """Return the kinds of constraints that a row violates; `key` is its existing key."""
        others = [other for own, other in self.rows[model].items() if own != key]
        unique = "name" if model is Depot else "code"
        kinds = {"unique"} if any(other[unique] == row[unique] for other in others) else set()
        if model is Depot:
            return kinds | ({"not_null"} if row["room"] is None else set())
        if row["weight"] is not None and row["weight"] < 0:
            kinds.add("check")
        if row["depot_id"] is not None and row["depot_id"] not in self.rows[Depot]:
            kinds.add("foreign_key")
        return kinds

    def failing(self, rows: Sequence[NewRow], values: Sequence[Row]) -> list[int]:
        """Return the places of rows that cannot be inserted after the rows before them."""
        scratch = World(deepcopy(self.rows))
        failing = []
        for index, (new, row) in enumerate(zip(rows, values, strict=True)):
            if scratch.broken(model_of(new), row):
                failing.append(index)
            else:
                scratch.put(model_of(new), {"id": -index, **row})
        return failing

    def put(self, model: type[SQLModel], row: Row) -> None:
        """Store a row."""
        self.rows[model][row["id" if model is Depot else "code"]] = dict(row)

    def in_use(self, model: type[SQLModel], key: Any) -> bool:
        """Return whether other rows refer to a row."""
        crates = self.rows[Crate].values()
        return model is Depot and any(crate["depot_id"] == key for crate in crates)


def model_of(new: NewRow) -> type[SQLModel]:
    """Return the model of a row to write."""
    return Depot if isinstance(new, NewDepot) else Crate


def plain(row: Any) -> Row:
    """Return the values of a row's columns without a query; an unloaded column is an error."""
    loaded = vars(row)
    missing = [name for name in COLUMNS[type(row)] if name not in loaded]
    assert not missing, f"{missing} of a {type(row).__name__} row are not loaded"
    return {name: loaded[name] for name in COLUMNS[type(row)]}


def ordered(rows: Iterable[Row]) -> list[Row]:
    """Sort rows by their values."""
    return sorted(rows, key=lambda row: sorted((name, str(value)) for name, value in row.items()))
