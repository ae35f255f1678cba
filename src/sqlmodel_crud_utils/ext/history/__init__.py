"""History: who changed which field of a row, when, and from what to what.

Importing it adds the table `change_history` to `SQLModel.metadata`. The functions that read and
purge it are in `sqlmodel_crud_utils.ext.history.aio` and `sqlmodel_crud_utils.ext.history.sync`.

Example:
    >>> from sqlmodel_crud_utils.ext.history import TrackChangesMixin
    >>> class Painting(SQLModel, TrackChangesMixin, table=True):
    ...     __track_redact__ = ("owner",)
    ...     id: int | None = Field(default=None, primary_key=True)
    ...     title: str
    ...     owner: str
"""

from sqlmodel_crud_utils.ext.history.models import ChangeHistory, TrackChangesMixin

__all__ = ["ChangeHistory", "TrackChangesMixin"]
