"""Table models for the tests of the query builder."""

from decimal import Decimal

from sqlalchemy import Double, Numeric
from sqlmodel import Field, SQLModel

from tests.filter_models import BY_CODE_POINT


class Score(SQLModel, table=True):
    """A composite key, and columns with many equal or empty values."""

    league: str = Field(primary_key=True, sa_type=BY_CODE_POINT)
    place: int = Field(primary_key=True)
    points: int | None = None
    label: str | None = Field(default=None, sa_type=BY_CODE_POINT)
    prize: Decimal | None = Field(default=None, sa_type=Numeric(12, 2))
    ratio: float | None = Field(default=None, sa_type=Double)
    rank: int = 0


class Shelf(SQLModel, table=True):
    """Columns named like parameters of functions, and of filters in a URL."""

    id: int | None = Field(default=None, primary_key=True)
    self: int | None = None
    session_inst: int | None = None
    model: int | None = None
    create_method_kwargs: int | None = None
    selectin: int | None = None
    select_in_key: int | None = None
    select_in_keys: int | None = None
    lazy: int | None = None
    lazy_load_keys: int | None = None
    page: int | None = None
    page_size: int | None = None
    size: int | None = None
    text_field: int | None = None
    stmnt: int | None = None
    raise_on_error: int | None = None
    include_deleted: int | None = None
    use_cache: int | None = None
    sort_field: int | None = None
    sort_desc: int | None = None
    session: int | None = None
    expressions: int | None = None
    lookups: int | None = None
    filters: int | None = None
    everything: int | None = None
    soft: int | None = None
    values: int | None = None
    fields: int | None = None
    key: int | None = None
    data: int | None = None
    pk_field: int | None = None
    id_str: int | None = None
    where_0: int | None = None
    start: int | None = None
    after_0: int | None = None
    key_0: int | None = None
    sort_key_0: int | None = None
    total: int | None = None
    eq: int | None = None
    after: int | None = None
