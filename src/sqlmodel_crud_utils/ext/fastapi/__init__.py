"""FastAPI support: sessions, responses to errors, filters from URLs, routes for models.

Needs the extra `fastapi`: `pip install "sqlmodel-crud-utils[fastapi]"`. The functions work with
both APIs: with an `Engine` and with an `AsyncEngine`.
"""

try:
    import fastapi as _fastapi  # noqa: F401 - to say what is missing, and how to install it
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'sqlmodel_crud_utils.ext.fastapi needs FastAPI: pip install "sqlmodel-crud-utils[fastapi]"',
        name="fastapi",
    ) from error

from sqlmodel_crud_utils.ext.fastapi.errors import error_responses, install_error_handlers
from sqlmodel_crud_utils.ext.fastapi.filters import FilterParams, filter_params
from sqlmodel_crud_utils.ext.fastapi.resources import page_links
from sqlmodel_crud_utils.ext.fastapi.routers import crud_router
from sqlmodel_crud_utils.ext.fastapi.sessions import session_dependency

__all__ = [
    "FilterParams",
    "crud_router",
    "error_responses",
    "filter_params",
    "install_error_handlers",
    "page_links",
    "session_dependency",
]
