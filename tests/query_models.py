"""Table models for the tests of the query builder."""

from decimal import Decimal

from sqlalchemy import Double, Numeric
from sqlmodel import Field, SQLModel

from tests.filter_models import BY_CODE_POINT


class Score(SQLModel, table=True):
    """A composite key, and columns that are often equal or empty."""

    league: str = Field(primary_key=True, sa_type=BY_CODE_POINT)
    place: int = Field(primary_key=True)
    points: int | None = None
    label: str | None = Field(default=None, sa_type=BY_CODE_POINT)
    prize: Decimal | None = Field(default=None, sa_type=Numeric(12, 2))
    ratio: float | None = Field(default=None, sa_type=Double)
    rank: int = 0
