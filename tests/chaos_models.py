"""Table models for the tests under faults: a bank whose books can be checked."""

from sqlmodel import Field, SQLModel

from sqlmodel_crud_utils.mixins import SoftDeleteMixin


class Balance(SQLModel, table=True):
    """An account and its balance."""

    id: int | None = Field(default=None, primary_key=True)
    amount: int


class Transfer(SQLModel, table=True):
    """A transfer that was made; the caller chooses its key."""

    id: str = Field(primary_key=True, max_length=32)
    source: int
    target: int
    amount: int


class Entry(SQLModel, SoftDeleteMixin, table=True):
    """A row with a unique name."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, max_length=40)
    size: int = 0
