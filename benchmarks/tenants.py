"""What tenants and strict loading cost: `python -m benchmarks.tenants`.

A listener for one model or session is called for all sessions of a process. So each side has a
separate process; they alternate, and the best round counts, in CPU time.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from sqlalchemy import StaticPool, create_engine
from sqlalchemy.orm import registry
from sqlmodel import Field, Session, SQLModel, col, select

from sqlmodel_crud_utils.mixins import TenantMixin, tenant_scope
from sqlmodel_crud_utils.sync import get_row, get_rows, session_factory, write_row

ROWS = 200


class Table(SQLModel, registry=registry()):
    """Models with a separate registry."""


def _model(*mixins: type[Any]) -> Any:
    make: Any = type(SQLModel)
    names: dict[str, Any] = {"id": int | None, "age": int}
    fields: dict[str, Any] = {"id": Field(default=None, primary_key=True), "age": 0}
    if not mixins:
        names["tenant_id"] = str
        fields["tenant_id"] = Field(default="acme", max_length=100, index=True)
    body = {"__module__": __name__, "__annotations__": names, **fields}
    return make("Item", (*mixins, Table), body, table=True)


Work = Callable[[Any, Any], Any]

# Each with the library, and by hand; the last is the caller's own statement on both sides.
WORK: Mapping[str, tuple[Work, Work]] = {
    "get by key": (
        lambda session, item: get_row(7, session, item),
        lambda session, item: session.exec(
            select(item).where(item.id == 7, item.tenant_id == "acme")
        ).one_or_none(),
    ),
    "list of 100": (
        lambda session, item: get_rows(session, item, age__gte=0, page_size=100),
        lambda session, item: session.exec(
            select(item)
            .where(item.age >= 0, item.tenant_id == "acme")
            .order_by(col(item.id))
            .limit(100)
        ).all(),
    ),
    "write": (
        lambda session, item: write_row(item(age=1), session),
        lambda session, item: _written(session, item(age=1, tenant_id="acme")),
    ),
    "own select": (
        lambda session, item: session.exec(select(item).where(item.id == 7)).one(),
        lambda session, item: session.exec(
            select(item).where(item.id == 7, item.tenant_id == "acme")
        ).one(),
    ),
}


def _written(session: Session, item: Any) -> Any:
    session.add(item)
    session.commit()
    return item


@dataclass(frozen=True)
class Side:
    """One side, which runs in a separate process.

    Attributes:
        mixins: The model's mixins.
        number: Which half of the work it does.
        is_strict: Whether its sessions refuse lazy loads.
    """

    mixins: tuple[type[Any], ...]
    number: int
    is_strict: bool = False


SIDES = {
    "tenants": Side((TenantMixin,), 0),
    "by hand": Side((), 1),
    "library": Side((), 0),
    "strict": Side((), 0, is_strict=True),
}
RATIOS = {"tenants": "by hand", "strict": "library"}


def measure_side(name: str, calls: int = 300) -> dict[str, float]:
    """Return the seconds of each piece of work on one side, in this process."""
    side = SIDES[name]
    item = _model(*side.mixins)
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Table.metadata.create_all(engine)
    new_session: Any = session_factory(
        engine, strict_loading=side.is_strict, expire_on_commit=False
    )
    scope: AbstractContextManager[None] = tenant_scope("acme") if side.mixins else nullcontext()
    with scope:
        with new_session() as session:
            given = {} if side.mixins else {"tenant_id": "acme"}
            session.add_all([item(age=1, **given) for _ in range(ROWS)])
            session.commit()
        return {
            what: min(_seconds(ways[side.number], new_session, item, calls) for _ in range(3))
            for what, ways in WORK.items()
        }


def _seconds(work: Work, new_session: Any, item: Any, calls: int) -> float:
    gc.disable()
    start = time.process_time()
    for _ in range(calls):
        with new_session() as session:
            work(session, item)
    taken = time.process_time() - start
    gc.enable()
    return taken / calls


def measure(rounds: int = 3) -> Mapping[str, Mapping[str, float]]:
    """Return the best time of each piece of work on each side."""
    best: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        for name in SIDES:
            command = [sys.executable, "-m", "benchmarks.tenants", name]
            run = subprocess.run(command, capture_output=True, check=True, text=True)
            known = best.setdefault(name, {})
            for what, seconds in json.loads(run.stdout).items():
                known[what] = min(seconds, known.get(what, seconds))
    return best


def main(arguments: Sequence[str], best: Mapping[str, Mapping[str, float]] | None = None) -> None:
    """Print the times and ratios; with the name of a side, only its times, for the program."""
    if arguments:
        print(json.dumps(measure_side(arguments[0])))
        return
    best = measure() if best is None else best
    for ours, theirs in RATIOS.items():
        print(f"{ours + ' / ' + theirs:20} {'':>10} {'':>10}  ratio")
        for what in WORK:
            first, second = best[ours][what], best[theirs][what]
            shown = f"{1e6 * first:7.0f} µs {1e6 * second:7.0f} µs"
            print(f"  {what:18} {shown} {first / second:6.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
