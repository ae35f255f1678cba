"""Pages of results: `Page` with a total, `CursorPage` with a cursor to the next page."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, computed_field

__all__ = ["CursorPage", "Page"]

T = TypeVar("T")


class _Frozen(BaseModel):
    # As a response model, Page[HeroPublic] takes only the public fields of the rows.
    model_config = ConfigDict(frozen=True, from_attributes=True)


class Page(_Frozen, Generic[T]):
    """One page of rows, and the total number of rows.

    It is a Pydantic model: `Page[HeroPublic]` can be the response model of a web endpoint.

    Attributes:
        items: The rows of this page.
        total: How many rows match in total, on all pages.
        page: The number of this page, from 1.
        size: How many rows a full page has.

    Example:
        >>> page = Page(items=["a", "b"], total=5, page=2, size=2)
        >>> page.pages, page.has_previous, page.has_next
        (3, True, True)
    """

    items: list[T]
    total: int
    page: int
    size: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def pages(self) -> int:
        """How many pages there are, 0 if nothing matches."""
        return -(-self.total // self.size)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def has_next(self) -> bool:
        """Whether there is a page after this one."""
        return self.page < self.pages

    @computed_field  # type: ignore[prop-decorator]
    @property
    def has_previous(self) -> bool:
        """Whether there is a page before this one."""
        return self.page > 1


class CursorPage(_Frozen, Generic[T]):
    """One page of rows, and the cursor that leads to the next.

    It is a Pydantic model: `CursorPage[HeroPublic]` can be the response model of a web endpoint.

    Attributes:
        items: The rows of this page.
        next_cursor: What to pass as `after` for the next page; None after the last one.

    Example:
        >>> CursorPage(items=["a"], next_cursor=None).items
        ['a']
    """

    items: list[T]
    next_cursor: str | None = None
