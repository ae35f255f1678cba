"""Models whose columns all hold secrets, for the tests of what telemetry exports."""

from sqlalchemy import CheckConstraint
from sqlmodel import Field, SQLModel

from sqlmodel_crud_utils import SoftDeleteMixin


class Strongroom(SQLModel, SoftDeleteMixin, table=True):
    """Keys, unique values, references and checks that can be violated."""

    __table_args__ = (CheckConstraint("size > 0", name="strongroom_size"),)

    code: str = Field(primary_key=True, max_length=80)
    owner: str = Field(unique=True, max_length=80)
    size: int = 1
    parent: str | None = Field(default=None, foreign_key="strongroom.code", max_length=80)
