"""Random calls, failures and nested blocks leave what a model made of dicts says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from sqlalchemy import Connection, delete, inspect, select, text
from sqlalchemy.exc import MissingGreenlet, SQLAlchemyError
from sqlmodel import SQLModel

from sqlmodel_crud_utils.aio import (
    bulk_upsert_mappings,
    delete_row,
    get_one_or_create,
    get_row,
    get_rows,
    get_rows_within_id_list,
    insert_data_rows,
    on_commit,
    transaction,
    update_row,
    write_row,
)
from sqlmodel_crud_utils.exceptions import (
    BulkOperationError,
    ConstraintViolationError,
    RecordNotFoundError,
    SQLModelCRUDError,
    TransactionError,
    ValidationError,
)
from tests._runtime_async import AsyncEngine, AsyncSession, execute, fetched, run_on_connection
from tests.properties import examples
from tests.stateful_programs import (
    COLUMNS,
    PROGRAMS,
    Block,
    ByHand,
    Crate,
    Delete,
    Depot,
    Edit,
    Get,
    GetList,
    GetMany,
    GetOrCreate,
    Insert,
    Mistake,
    OnCommit,
    Program,
    Raise,
    Refused,
    Row,
    Update,
    Upsert,
    World,
    Write,
    model_of,
    ordered,
    plain,
)

pytestmark = [
    # SQLAlchemy reports a second instance with the key of the first before the database does.
    pytest.mark.filterwarnings("ignore:New instance .* conflicts with persistent instance"),
]


class ProgramError(Exception):
    """The program's own exception."""


class CallbackError(Exception):
    """The exception of a callback."""


@dataclass
class Frame:
    """A running block."""

    error: Exception | None = None
    doomed: bool = False
    returned: list[Any] = field(default_factory=list)


@dataclass
class Player:
    """Plays programs in a session, and compares each call with the model."""

    session: AsyncSession
    engine: AsyncEngine
    holds: bool
    world: World = field(default_factory=World)
    frames: list[Frame] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)
    log: list[int] = field(default_factory=list)
    failing: set[int] = field(default_factory=set)
    number: int = 0

    async def play(self, steps: tuple[Any, ...]) -> None:
        for step in steps:
            if isinstance(step, Block):
                await self.block(step)
            else:
                await self.step(step)

    # --- blocks

    async def block(self, block: Block) -> None:
        self.world.enter()
        frame = Frame()
        self.frames.append(frame)
        outcome: Exception | None = None
        try:
            async with transaction(self.session, wrap_errors=block.wraps) as tx:
                assert tx is self.session
                try:
                    await self.play(block.steps)
                except Exception as error:
                    frame.error = error
                    raise
        except Exception as error:  # noqa: BLE001 - compared with the model below
            outcome = error
        self.frames.pop()
        if isinstance(frame.error, AssertionError):
            raise frame.error
        if self.doomed:
            self.world.leave(succeeded=False)
            self.tolerate(outcome)
            return
        succeeded = frame.error is None and not frame.doomed
        self.world.leave(succeeded=succeeded)
        raises = 0 if self.frames else self.callback_errors()
        if succeeded and raises:
            assert isinstance(outcome, ExceptionGroup), outcome
            assert len(outcome.exceptions) == raises
        else:
            self.check_outcome(block, frame, outcome)
        if self.frames:
            self.frames[-1].returned += frame.returned
            if outcome is not None and not block.caught:
                raise outcome
        else:
            self.check_ended()
            if succeeded:
                self.check_kept(frame.returned)

    def check_outcome(self, block: Block, frame: Frame, outcome: Exception | None) -> None:
        if frame.error is None:
            assert isinstance(outcome, TransactionError) == frame.doomed, outcome
            assert (outcome is not None) == frame.doomed, outcome
        elif block.wraps and not isinstance(frame.error, TransactionError):
            assert isinstance(outcome, TransactionError), outcome
            assert outcome.__cause__ is frame.error is outcome.original_error
        else:
            assert outcome is frame.error

    def check_ended(self) -> None:
        assert self.checked_out() == 0
        assert self.log == self.world.due

    def checked_out(self) -> int:
        return int(self.engine.pool.checkedout())  # type: ignore[attr-defined]

    def check_kept(self, rows: list[Any]) -> None:
        """Rows that were returned in the block can be read after its commit."""
        for row in rows:
            state = inspect(row)
            expected = self.world.rows[type(row)].get(state.identity[0]) if state.identity else None
            if state.persistent and expected is not None:
                assert plain(row) == expected

    def callback_errors(self) -> int:
        """Return how many of the callbacks that are due have failed now."""
        failed = [number for number in self.world.due if number in self.failing]
        self.failing -= set(failed)
        return len(failed)

    # --- calls

    @property
    def doomed(self) -> bool:
        """Whether a running block is lost, so that nothing is guaranteed inside it."""
        return any(frame.doomed for frame in self.frames)

    def strict(self, step: Any) -> bool:
        return bool(self.frames) if step.flag is None else step.flag

    def tolerate(self, error: Exception | None) -> None:
        if error is not None:
            known = (SQLModelCRUDError, SQLAlchemyError, ProgramError)
            assert isinstance(error, known), repr(error)
            assert not isinstance(error, MissingGreenlet), repr(error)

    async def step(self, step: Any) -> None:
        run: Callable[[Any], Any] = {
            Write: self.write,
            Insert: self.insert,
            Update: self.update,
            Delete: self.delete,
            GetOrCreate: self.get_or_create,
            Upsert: self.upsert,
            Get: self.get,
            GetList: self.get_list,
            GetMany: self.get_many,
            Mistake: self.mistake,
            Refused: self.refused,
            Edit: self.edit,
            OnCommit: self.on_commit,
            ByHand: self.by_hand,
            Raise: self.raise_,
        }[type(step)]
        if not self.doomed:
            try:
                await run(step)
            except AssertionError:
                raise
            except Exception:
                if not step.caught and self.frames:
                    raise
            return
        # A doomed block undoes whatever happens in it: only that nothing breaks is of interest.
        rows = self.world
        self.world = World(rows.rows)
        try:
            await run(step)
        except AssertionError:
            pass
        except Exception as error:  # noqa: BLE001 - judged by its kind
            self.tolerate(error)
        finally:
            self.world = rows

    async def write(self, step: Write) -> None:
        model, values = model_of(step.row), self.world.values(step.row)
        kinds = self.world.broken(model, values)
        strict = self.strict(step)
        call = partial(write_row, model(**values), self.session, raise_on_error=step.flag)
        written, row = await self.result(step, call, kinds if strict else set())
        assert written == (not kinds)
        if kinds:
            assert row is None
            self.undone()
        else:
            self.note_written(row, values)

    async def insert(self, step: Insert) -> None:
        values = [self.world.values(new) for new in step.rows]
        rows = [model_of(new)(**each) for new, each in zip(step.rows, values, strict=True)]
        failing = self.world.failing(step.rows, values)
        call = partial(insert_data_rows, rows, self.session, raise_on_error=step.flag)
        if failing and self.strict(step):
            with pytest.raises(BulkOperationError) as caught:
                await call()
            assert [index for index, _ in caught.value.errors] == failing  # type: ignore[misc]
            self.lose()
            raise caught.value
        outcome: Any
        done, outcome = await call()
        if not failing:
            assert done
            assert outcome == rows
            for row, each in zip(rows, values, strict=True):
                self.note_written(row, each, settle=False)
            if rows:
                self.settle(rows)
            return
        self.undone()
        failing = self.world.failing(step.rows, values)
        expected: dict[str, list[Any]] = {"success": [], "failed": []}
        for index, (row, each) in enumerate(zip(rows, values, strict=True)):
            expected["failed" if index in failing else "success"].append(row)
            if index not in failing:
                self.note_written(row, each, settle=False)
        assert outcome == expected
        assert done == bool(expected["success"])
        if done:
            self.settle(expected["success"][-1:])

    async def update(self, step: Update) -> None:
        key = self.world.key(step.model, step.key)
        held = self.world.rows[step.model].get(key)
        data = dict(step.data)
        if "depot" in data:
            data["depot_id"] = self.world.depot_id(data.pop("depot"))
        kinds = self.world.broken(step.model, held | data, key) if held is not None else set()
        strict = self.strict(step)
        call = partial(update_row, key, data, self.session, step.model, raise_on_error=step.flag)
        updated, row = await self.result(
            step, call, kinds if strict else set(), missing=held is None and strict
        )
        assert updated == (held is not None and not kinds)
        if held is None:
            assert row is None
        elif kinds:
            self.undone()
            if key in self.world.rows[step.model]:
                assert plain(row) == self.world.rows[step.model][key]
        else:
            self.note_written(row, held | data)

    async def delete(self, step: Delete) -> None:
        key = self.world.key(step.model, step.key)
        there = key in self.world.rows[step.model]
        kinds = {"foreign_key"} if self.world.in_use(step.model, key) else set()
        strict = self.strict(step)
        call = partial(delete_row, key, self.session, step.model, raise_on_error=step.flag)
        deleted = await self.result(
            step, call, kinds if strict else set(), missing=not there and strict
        )
        assert deleted == (there and not kinds)
        if deleted:
            del self.world.rows[step.model][key]
            self.settle([])
        elif kinds:
            self.undone()

    async def get_or_create(self, step: GetOrCreate) -> None:
        model, values = model_of(step.row), self.world.values(step.row)
        wanted = {step.by: values[step.by]}
        others = {name: value for name, value in values.items() if name != step.by}
        found = [
            row
            for row in self.world.rows[model].values()
            if wanted[step.by] is not None and row[step.by] == wanted[step.by]
        ]
        kinds = set() if found else self.world.broken(model, values)
        call = partial(
            get_one_or_create, self.session, model, others, raise_on_error=step.flag, **wanted
        )
        row, existed = await self.result(step, call, kinds)
        assert existed == bool(found)
        if existed:
            assert plain(row) in found
            self.keep([row])
        else:
            self.note_written(row, values)

    async def upsert(self, step: Upsert) -> None:
        model = model_of(step.rows[0]) if step.rows else Crate
        payload = [self.world.values(new) for new in step.rows]
        names = [new.name if model is Depot else new.code for new in step.rows]  # type: ignore[union-attr]
        keys = [self.world.key(model, name) for name in names]
        kinds: set[str] = set()
        for key, row in zip(keys, payload, strict=True):
            kinds |= self.world.broken(model, row, key)
        field_name = "name" if model is Depot else "code"
        call = partial(
            bulk_upsert_mappings, payload, self.session, model, field_name, raise_on_error=step.flag
        )
        if kinds and not self.strict(step):
            with pytest.raises(SQLAlchemyError) as caught:
                await call()
            self.undone()
            raise caught.value
        done, rows = await self.result(step, call, kinds)
        assert done
        assert len(rows) == len(payload)
        for row, values in zip(rows, payload, strict=True):
            self.note_written(row, values, settle=False)
        if payload:
            self.settle(rows)

    async def get(self, step: Get) -> None:
        key = self.world.key(step.model, step.key)
        expected = self.world.rows[step.model].get(key)
        call = partial(get_row, str(key), self.session, step.model, raise_on_error=step.flag)
        found, row = await self.result(
            step, call, set(), missing=expected is None and bool(step.flag)
        )
        assert found == (expected is not None)
        if expected is None:
            assert row is None
        else:
            assert plain(row) == expected
            self.keep([row])

    async def get_list(self, step: GetList) -> None:
        found, rows = await get_rows(
            self.session, step.model, page_size=step.size, raise_on_error=step.flag
        )
        held = self.world.rows[step.model]
        assert [plain(row) for row in rows] == [held[key] for key in sorted(held)[: step.size]]
        assert found == bool(rows)
        self.keep(rows)

    async def get_many(self, step: GetMany) -> None:
        keys = [self.world.key(step.model, name) for name in step.keys]
        _, rows = await get_rows_within_id_list(keys, self.session, step.model)
        held = self.world.rows[step.model]
        expected = [held[key] for key in set(keys) if key in held]
        assert ordered(map(plain, rows)) == ordered(expected)
        self.keep(rows)

    async def mistake(self, step: Mistake) -> None:
        options: dict[str, Any] = {"raise_on_error": step.flag}
        calls: dict[str, Callable[[], Any]] = {
            "unknown": partial(update_row, "a", {"nope": 1}, self.session, Crate, **options),
            "misfit": partial(update_row, "a", {"weight": "many"}, self.session, Crate, **options),
            "key": partial(get_row, (1, 2), self.session, Crate, **options),
            "page": partial(get_rows, self.session, Crate, page=0, **options),
        }
        with pytest.raises(ValidationError) as caught:
            await calls[step.kind]()
        assert not isinstance(caught.value, ConstraintViolationError)
        raise caught.value

    async def refused(self, _: Refused) -> None:
        with pytest.raises(SQLAlchemyError) as caught:
            await execute(self.session, text("SELECT * FROM no_such_table"))
        self.lose()
        if not self.frames:
            await self.session.rollback()
        raise caught.value

    async def edit(self, step: Edit) -> None:
        values = self.world.values(step.row)
        code = step.row.code
        held = self.world.rows[Crate].get(code)
        if self.world.broken(Crate, values, code if held is not None else None):
            return
        row = await self.session.get(Crate, code)
        assert (row is None) == (held is None)
        if row is None:
            self.session.add(Crate(**values))
        else:
            row.weight, row.depot_id = values["weight"], values["depot_id"]
        self.world.put(Crate, values)

    async def on_commit(self, step: OnCommit) -> None:
        self.number += 1
        number, fails = self.number, step.fails and bool(self.frames)

        async def note() -> None:
            self.log.append(number)
            if fails:
                raise CallbackError

        if fails:
            self.failing.add(number)
        callback = note if fails or number % 2 else partial(self.log.append, number)
        on_commit(self.session, callback)
        self.world.waiting.append(number)

    async def by_hand(self, step: ByHand) -> None:
        if len(self.frames) != 1 or self.doomed:  # who rolls back by hand may begin again
            return
        if step.how == "commit":
            await self.session.commit()
            self.world.commit()
        else:
            await self.session.rollback()
            self.world.roll_back()

    async def raise_(self, _: Raise) -> None:
        if self.frames:
            raise ProgramError

    # --- what calls do to the model

    async def result(
        self, step: Any, call: Callable[[], Any], kinds: set[str], *, missing: bool = False
    ) -> Any:
        """Return what a call returns, or raise what it raises if that is as it should be."""
        try:
            result = await call()
        except RecordNotFoundError:
            assert missing, step
            raise
        except ConstraintViolationError as refusal:
            self.check_kind(refusal, kinds)
            self.lose()
            raise
        except Exception as error:
            raise AssertionError(f"{step} raised {error!r}") from error
        assert not kinds, step
        assert not missing, step
        return result

    def check_kind(self, refusal: ConstraintViolationError, kinds: set[str]) -> None:
        assert refusal.kind in kinds

    def note_written(self, row: Any, values: Row, *, settle: bool = True) -> None:
        """Add a row that a call has written to the model, with its generated key."""
        model = type(row)
        expected = {**({"id": plain(row)["id"]} if model is Depot else {}), **values}
        self.world.put(model, expected)
        if settle:
            self.settle([row])

    def settle(self, rows: list[Any]) -> None:
        """Note a call that succeeded: outside a block it has committed."""
        for row in rows:
            assert plain(row) == self.world.rows[type(row)][plain(row)[COLUMNS[type(row)][0]]]
        self.keep(rows)
        if not self.frames:
            self.world.commit()
            assert self.log == self.world.due

    def keep(self, rows: list[Any]) -> None:
        if self.holds:
            self.kept += rows
            if self.frames:
                self.frames[-1].returned += rows

    def lose(self) -> None:
        """Note a failure that was raised."""
        if self.frames:
            self.frames[-1].doomed = True
        else:
            self.world.roll_back()

    def undone(self) -> None:
        """Note a failure that was not raised: in a block only that call is undone."""
        if not self.frames:
            self.world.roll_back()


def clear(connection: Connection) -> None:
    """Empty the tables."""
    connection.execute(delete(Crate))
    connection.execute(delete(Depot))


async def rows_of(session: AsyncSession, model: type[SQLModel]) -> list[Row]:
    return ordered(plain(row) for row in fetched(await execute(session, select(model))))


async def check(program: Program, engine: AsyncEngine) -> None:
    """Run a program on empty tables, and compare the final rows."""
    async with AsyncSession(engine, expire_on_commit=program.expires) as session:
        await run_on_connection(session, clear)
        await session.commit()
        player = Player(session, engine, program.holds)
        await player.play(program.steps)
        for model, rows in player.world.rows.items():
            assert await rows_of(session, model) == ordered(rows.values())
        await session.rollback()
        assert player.checked_out() == 0
        assert player.log == player.world.due
    async with AsyncSession(engine) as other:
        for model, rows in player.world.committed.items():
            assert await rows_of(other, model) == ordered(rows.values())


async def test_an_undone_upsert_leaves_no_values_in_the_session(session: AsyncSession) -> None:
    """Values that a set-based write read back in a savepoint expire with the savepoint."""
    _, rows = await bulk_upsert_mappings([{"name": "a", "room": "r"}], session, Depot, ["name"])
    async with transaction(session):
        with pytest.raises(TransactionError):
            async with transaction(session):
                payload = [{"name": "a", "room": "s"}, {"name": "b", "room": "s"}]
                _, changed = await bulk_upsert_mappings(payload, session, Depot, ["name"])
                raise ProgramError
        _, found = await get_rows(session, Depot)
        assert found == rows
        assert rows[0].room == "r"
        assert await session.get(Depot, inspect(changed[1]).identity[0]) is None


@examples(40)
@given(program=PROGRAMS)
async def test_a_program_leaves_what_the_model_says(program: Program, engine: AsyncEngine) -> None:
    """Calls, failures and blocks in any nesting: results, errors and rows are the model's."""
    await check(program, engine)
