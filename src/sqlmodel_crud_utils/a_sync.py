"""v0.1.0's name for `sqlmodel_crud_utils.aio`."""

from sqlmodel_crud_utils import aio
from sqlmodel_crud_utils.aio import *  # noqa: F403

__all__: list[str] = []
__all__ += aio.__all__
