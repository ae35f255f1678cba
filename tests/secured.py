"""PostgreSQL tables with row security, and an ordinary role that uses them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlmodel import SQLModel

from sqlmodel_crud_utils.mixins import row_security
from tests.history_models import Estate, Lease
from tests.tenant_models import Fleet, Guild, Mage, MageSpell, Pet, Port, Ship, Spell, Wharf

MODELS: Any = [Guild, Mage, MageSpell, Spell, Pet, Fleet, Ship, Port, Wharf, Lease, Estate]
TABLES = [*(model.__table__ for model in MODELS), SQLModel.metadata.tables["change_history"]]


class Secured:
    """A schema, and a role that sees no other.

    Attributes:
        url: The URL for the ordinary role, which may read and write all tables.
        role: The name of the role and of the schema.
        owners_url: The URL for the tables' owner, a superuser.
    """

    def __init__(self, url: str, role: str) -> None:
        self.role = role
        self.owners_url = make_url(url).set(drivername="postgresql")
        self.url = self.owners_url.set(username=role, password="secret")

    def ask(self, *statements: str) -> list[Any]:
        """Execute statements as the owner; return the rows of the last one."""
        address = self.owners_url.render_as_string(hide_password=False)
        with psycopg.connect(address, autocommit=True) as connection:
            cursor = connection.execute(f"SET search_path = {self.role}".encode())
            for statement in statements:
                cursor.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def secure(self) -> None:
        """Create the tables and their policies."""
        engine = create_engine(self.owners_url.set(drivername="postgresql+psycopg"))
        with engine.begin() as connection:
            connection.execute(text(f"SET search_path = {self.role}"))
            SQLModel.metadata.create_all(connection, tables=TABLES)
            for statement in row_security(SQLModel.metadata):
                if any(f" {table.name} " in f"{statement} " for table in TABLES):
                    connection.execute(statement)
        engine.dispose()
        self.ask(
            f"GRANT ALL ON ALL TABLES IN SCHEMA {self.role} TO {self.role}",
            f"GRANT ALL ON ALL SEQUENCES IN SCHEMA {self.role} TO {self.role}",
        )

    def clear(self) -> None:
        """Remove all rows."""
        self.ask(*(f"DELETE FROM {table.name}" for table in reversed(TABLES)))


@contextmanager
def secured_tables(url: str, role: str) -> Iterator[Secured]:
    """Create the tables and the role, and drop both at the end."""
    secured = Secured(url, role)
    secured.ask(
        f"CREATE SCHEMA {role}",
        f"CREATE ROLE {role} LOGIN PASSWORD 'secret'",
        f"ALTER ROLE {role} SET search_path = {role}",
        f"GRANT USAGE ON SCHEMA {role} TO {role}",
    )
    try:
        secured.secure()
        yield secured
    finally:
        secured.ask(f"DROP SCHEMA {role} CASCADE", f"DROP OWNED BY {role}", f"DROP ROLE {role}")
