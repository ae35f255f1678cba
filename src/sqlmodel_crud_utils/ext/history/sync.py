"""The history for the sync API: the mixin, reading and purging."""

from sqlmodel_crud_utils.ext.history._sync.history import get_change_history, purge_change_history
from sqlmodel_crud_utils.ext.history.models import ChangeHistory, TrackChangesMixin

__all__ = ["ChangeHistory", "TrackChangesMixin", "get_change_history", "purge_change_history"]
