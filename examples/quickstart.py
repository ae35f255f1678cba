"""A tour of the library on real data: countries, their subdivisions, and currencies.

    make demo        or        python examples/quickstart.py [FILE]

It loads a SQLite file through the async and the sync API, then explores it. The data (ISO 3166 and
ISO 4217) comes with the pycountry package.
"""

import asyncio
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pycountry
from sqlmodel import Field, Relationship, Session, SQLModel, func, select

from sqlmodel_crud_utils import aio
from sqlmodel_crud_utils.exceptions import TransactionError
from sqlmodel_crud_utils.sync import (
    bulk_upsert_mappings,
    create_pooled_engine,
    delete_row,
    get_one_or_create,
    get_row,
    get_rows,
    session_factory,
    transaction,
    update_row,
)

Rows = list[dict[str, Any]]


class Country(SQLModel, table=True):
    code: str = Field(primary_key=True, max_length=2)
    name: str = Field(unique=True)

    subdivisions: list["Subdivision"] = Relationship(back_populates="country")


class Subdivision(SQLModel, table=True):
    code: str = Field(primary_key=True, max_length=6)
    name: str
    kind: str
    country_code: str = Field(foreign_key="country.code", index=True)

    country: Country = Relationship(back_populates="subdivisions")


class Currency(SQLModel, table=True):
    code: str = Field(primary_key=True, max_length=3)
    name: str


# --- Load ------------------------------------------------------------------------------------


async def load_countries(url: str) -> None:
    """Create the tables and load countries and subdivisions, through the async API."""
    heading("Load, in one transaction each")
    engine = aio.create_pooled_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.create_all)

    async with aio.session_factory(engine)() as session, aio.transaction(session):
        _, countries = await aio.bulk_upsert_mappings(country_rows(), session, Country)
        _, parts = await aio.bulk_upsert_mappings(subdivision_rows(), session, Subdivision)
    await engine.dispose()
    say("async", f"{len(countries)} countries, {len(parts)} subdivisions")


def load_currencies(session: Session) -> None:
    """Load the currencies: the same call, through the sync API."""
    _, currencies = bulk_upsert_mappings(currency_rows(), session, Currency)
    say("sync", f"{len(currencies)} currencies")


def country_rows() -> Rows:
    """Return the countries of ISO 3166-1."""
    return [{"code": each.alpha_2, "name": each.name} for each in pycountry.countries]


def subdivision_rows() -> Rows:
    """Return the subdivisions of ISO 3166-2."""
    return [
        {
            "code": each.code,
            "name": each.name,
            "kind": each.type,
            "country_code": each.country_code,
        }
        for each in pycountry.subdivisions
    ]


def currency_rows() -> Rows:
    """Return the currencies of ISO 4217."""
    return [{"code": each.alpha_3, "name": each.name} for each in pycountry.currencies]


# --- Explore ---------------------------------------------------------------------------------


def get_or_create(session: Session) -> None:
    """Create a row only if it does not exist yet."""
    heading("Get or create")
    for _ in range(2):
        bitcoin, existed = get_one_or_create(session, Currency, {"name": "Bitcoin"}, code="XBT")
        say(bitcoin.name, "was there already" if existed else "created")


def filters(session: Session) -> None:
    """Find rows by their columns, and by columns of related rows."""
    heading("Filters")
    _, lands = get_rows(session, Country, name__endswith="land", sort_field="name")
    say("name ends in 'land'", names(lands))

    _, with_cantons = get_rows(session, Country, subdivisions__kind="Canton", sort_field="name")
    say("has cantons", names(with_cantons))

    _, dollars = get_rows(session, Currency, name__icontains="dollar", code__startswith="B")
    say("a dollar, code B…", names(dollars))


def relationship(session: Session) -> None:
    """Load a row together with its related rows."""
    heading("A relationship")
    _, japan = get_row(
        "JP",
        session,
        Country,
        selectin=True,
        select_in_keys=["subdivisions"],
        raise_on_error=True,
    )
    say(japan.name, f"{len(japan.subdivisions)} subdivisions")
    say("some of them", names(japan.subdivisions[:4]))


def pages(session: Session) -> None:
    """Read a long list page by page."""
    heading("Pages")
    for page in (1, 2):
        _, parts = get_rows(
            session, Subdivision, country_code="JP", sort_field="name", page_size=6, page=page
        )
        say(f"page {page}", names(parts))


def update(session: Session) -> None:
    """Change one column of one row."""
    heading("An update")
    say("before", name_of("CHF", session))
    update_row("CHF", {"name": "Schweizer Franken"}, session, Currency, raise_on_error=True)
    say("after", name_of("CHF", session))


def failed_transaction(session: Session) -> None:
    """Do three things, the last of which fails, so that none takes effect."""
    heading("A transaction that fails")
    say("before", f"{count(session, Currency)} currencies")
    try:
        with transaction(session):
            delete_row("EUR", session, Currency)
            update_row("USD", {"name": "Worthless"}, session, Currency)
            update_row("???", {"name": "There is no such currency"}, session, Currency)
    except TransactionError as error:
        say("failed", str(error.original_error))
    say("after", f"{count(session, Currency)} currencies, USD: {name_of('USD', session)}")


def upsert_twice(session: Session) -> None:
    """Write the same rows again: different values are updated, nothing is duplicated."""
    heading("An upsert, run twice")
    for run in (1, 2):
        bulk_upsert_mappings(currency_rows(), session, Currency)
        say(f"run {run}", f"{count(session, Currency)} currencies, CHF: {name_of('CHF', session)}")


def name_of(code: str, session: Session) -> str:
    """Return the name of a currency, which must exist."""
    _, currency = get_row(code, session, Currency, raise_on_error=True)
    return currency.name


def count(session: Session, model: type[SQLModel]) -> int:
    """Return the number of rows in a table; plain SQLModel queries work alongside the library."""
    return session.exec(select(func.count()).select_from(model)).one()


# --- Print -----------------------------------------------------------------------------------


def heading(text: str) -> None:
    """Print a heading."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}")


def say(what: str, answer: str) -> None:
    """Print one line."""
    print(f"  {what:<22}{answer}")


def names(rows: Iterable[Country | Subdivision | Currency]) -> str:
    """Join the names of rows."""
    return ", ".join(row.name for row in rows)


def main(file: Path) -> None:
    """Start with an empty file, load it, and take the tour."""
    for suffix in ("", "-wal", "-shm"):  # including SQLite's other files
        Path(f"{file}{suffix}").unlink(missing_ok=True)
    url = f"sqlite:///{file}"
    asyncio.run(load_countries(url))

    engine = create_pooled_engine(url)
    with session_factory(engine)() as session:
        load_currencies(session)
        for step in (
            get_or_create,
            filters,
            relationship,
            pages,
            update,
            failed_transaction,
            upsert_twice,
        ):
            step(session)
    engine.dispose()
    print(f"\nThe data is in {file}.")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "quickstart.db"))
