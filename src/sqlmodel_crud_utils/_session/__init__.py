"""State and events of a plain session, the same for both APIs.

Listeners to mappers, sessions and engines, and notes on sessions. SQLAlchemy runs listeners as
plain code in both APIs, so there is nothing to await and nothing to generate.
"""

from sqlmodel_crud_utils._session import events as _events  # noqa: F401 - it listens
