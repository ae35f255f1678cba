"""Neutral models and hooks for the tests of hooks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import field_validator, model_validator
from sqlalchemy import Column, Integer
from sqlmodel import Field, Relationship, SQLModel

from sqlmodel_crud_utils import SoftDeleteMixin
from sqlmodel_crud_utils.hooks import METHODS, registered_hook


class Project(SQLModel, table=True):
    """The parent of tasks."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, max_length=50)

    tasks: list["Task"] = Relationship(back_populates="project")
    gauges: list["Gauge"] = Relationship(back_populates="project")


class Task(SQLModel, table=True):
    """The model with hooks; the server fills in its priority."""

    id: int | None = Field(default=None, primary_key=True)
    title: str = Field(unique=True, max_length=50)
    done: bool = False
    priority: int | None = Field(
        default=None, sa_column=Column(Integer, nullable=False, server_default="5")
    )
    project_id: int | None = Field(default=None, foreign_key="project.id")

    project: Project | None = Relationship(back_populates="tasks")


class Event(SQLModel, table=True):
    """The rows that hooks write."""

    id: int | None = Field(default=None, primary_key=True)
    text: str = Field(max_length=100)


class Page(SQLModel, SoftDeleteMixin, table=True):
    """A model with soft deletion."""

    id: int | None = Field(default=None, primary_key=True)
    title: str = Field(unique=True, max_length=50)


class Gauge(SQLModel, table=True):
    """A model with rules, for `ValidateOnWrite`."""

    id: int | None = Field(default=None, primary_key=True)
    sensor: str = Field(min_length=2, max_length=50)
    low: int = Field(default=0, ge=-100)
    high: int = Field(default=0, le=100, alias="highest")
    project_id: int | None = Field(default=None, foreign_key="project.id")

    project: Project | None = Relationship(back_populates="gauges")

    @field_validator("sensor")
    @classmethod
    def _no_blanks(cls, value: str) -> str:
        if " " in value:
            raise ValueError("must have no blanks")
        return value

    @model_validator(mode="after")
    def _in_order(self) -> "Gauge":
        if self.low > self.high:
            raise ValueError("low must not be above high")
        return self


class Recorder:
    """Records every call: the method, and the title of the row."""

    def __init__(self, name: str = "", calls: list[str] | None = None) -> None:
        self.name = name
        self.calls: list[str] = [] if calls is None else calls

    def _note(self, method: str, instance: Any) -> None:
        self.calls.append(f"{self.name} {method} {instance.title}".strip())

    def before_create(self, instance: Any) -> None:
        """Note it."""
        self._note("before_create", instance)

    def after_create(self, instance: Any) -> None:
        """Note it."""
        self._note("after_create", instance)

    def before_update(self, instance: Any, data: dict[str, Any]) -> None:
        """Note it, and the data."""
        self.calls.append(f"{self.name} before_update {instance.title} {data}".strip())

    def after_update(self, instance: Any) -> None:
        """Note it."""
        self._note("after_update", instance)

    def before_delete(self, instance: Any) -> None:
        """Note it."""
        self._note("before_delete", instance)

    def after_delete(self, instance: Any) -> None:
        """Note it."""
        self._note("after_delete", instance)


class RefusalError(Exception):
    """An exception of a hook, which is not the library's."""


class Failing:
    """Raises at one of the six points, except for rows with the spared titles."""

    def __init__(
        self, method: str, error: BaseException | None = None, *, spared: tuple[str, ...] = ()
    ) -> None:
        assert method in METHODS
        self.error = error or RefusalError(method)
        self.spared = spared
        setattr(self, method, self._fail)

    def _fail(self, instance: Any, *_: Any) -> None:
        if instance.title not in self.spared:
            raise self.error


def hook_of(**methods: Any) -> Any:
    """Return a hook with these functions as its methods."""
    named = {name: staticmethod(function) for name, function in methods.items()}
    return type("Hook", (), named)()


@contextmanager
def hooked(model: type[Any], **methods: Any) -> Iterator[None]:
    """Register these functions as a hook of a model inside the block."""
    with registered_hook(model, hook_of(**methods)):
        yield


class AsyncRecorder(Recorder):
    """Does the same in `async def` methods."""

    async def before_create(self, instance: Any) -> None:  # type: ignore[override]
        """Note it."""
        self._note("before_create", instance)

    async def after_create(self, instance: Any) -> None:  # type: ignore[override]
        """Note it."""
        self._note("after_create", instance)

    async def before_update(self, instance: Any, data: dict[str, Any]) -> None:  # type: ignore[override]
        """Note it, and the data."""
        self.calls.append(f"{self.name} before_update {instance.title} {data}".strip())

    async def after_update(self, instance: Any) -> None:  # type: ignore[override]
        """Note it."""
        self._note("after_update", instance)

    async def before_delete(self, instance: Any) -> None:  # type: ignore[override]
        """Note it."""
        self._note("before_delete", instance)

    async def after_delete(self, instance: Any) -> None:  # type: ignore[override]
        """Note it."""
        self._note("after_delete", instance)
