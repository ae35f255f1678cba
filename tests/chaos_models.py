"""Table models for the tests under faults: a bank whose books can be checked."""

from sqlmodel import Field, SQLModel


class Balance(SQLModel, table=True):
    """What an account holds."""

    id: int | None = Field(default=None, primary_key=True)
    amount: int


class Transfer(SQLModel, table=True):
    """A transfer that was made; its key is the caller's."""

    id: str = Field(primary_key=True, max_length=32)
    source: int
    target: int
    amount: int
