"""The registry of hooks: its content, its order, and refusals."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from unittest.mock import Mock

import pytest
from sqlmodel import Field, SQLModel

from sqlmodel_crud_utils.exceptions import ValidationError
from sqlmodel_crud_utils.hooks import (
    METHODS,
    OperationHook,
    ValidateOnWrite,
    clear_hooks,
    get_hooks,
    register_hook,
    registered_hook,
    unregister_hook,
)
from tests.models import Hero, Team


class Named(SQLModel):
    """A base class that is not a table."""


class Special(Named):
    """Inherits it."""


class Hook:
    """Does nothing."""

    def after_create(self, instance: Any) -> None:
        """Do nothing."""


@pytest.fixture(autouse=True)
def _no_leftovers() -> Iterator[None]:
    yield
    clear_hooks()


class TestRegistry:
    def test_hooks_run_in_the_order_of_registration(self) -> None:
        """The first that is registered is the first to run."""
        first, second = Hook(), Hook()
        register_hook(Hero, first)
        register_hook(Hero, second)
        assert get_hooks(Hero) == (first, second)
        assert get_hooks(Team) == ()

    def test_hooks_of_base_classes_come_first(self) -> None:
        """Whenever they were registered; a base class has none of its subclasses' hooks."""
        for_special, for_named, for_all = Hook(), Hook(), Hook()
        register_hook(Special, for_special)
        register_hook(Named, for_named)
        register_hook(SQLModel, for_all)
        assert get_hooks(Special) == (for_all, for_named, for_special)
        assert get_hooks(Named) == (for_all, for_named)

    def test_a_mixin_can_have_hooks(self) -> None:
        """Any class that a model inherits will do."""

        class Mixin:
            pass

        class Both(Mixin, SQLModel):
            pass

        hook = Hook()
        register_hook(Mixin, hook)
        assert get_hooks(Both) == (hook,)

    def test_a_hook_is_there_once(self) -> None:
        """To register it again changes nothing, also if it is equal to all others."""

        class Equal(Hook):
            def __eq__(self, other: object) -> bool:
                return True

            __hash__ = None  # type: ignore[assignment]

        first, second = Equal(), Equal()
        for hook in (first, second, first):
            register_hook(Hero, hook)
        assert [id(hook) for hook in get_hooks(Hero)] == [id(first), id(second)]
        unregister_hook(Hero, second)
        assert get_hooks(Hero)[0] is first

    def test_unregister(self) -> None:
        """The hook is removed, the others stay."""
        first, second = Hook(), Hook()
        register_hook(Hero, first)
        register_hook(Hero, second)
        unregister_hook(Hero, first)
        assert get_hooks(Hero) == (second,)
        unregister_hook(Hero, second)
        assert get_hooks(Hero) == ()

    def test_unregister_of_an_unknown_hook(self) -> None:
        """A hook that is not registered for that exact class is a mistake."""
        hook = Hook()
        register_hook(Named, hook)
        with pytest.raises(ValidationError, match="Hook is not registered for Special"):
            unregister_hook(Special, hook)
        with pytest.raises(ValidationError, match="Hook is not registered for Named"):
            unregister_hook(Named, Hook())
        assert get_hooks(Special) == (hook,)

    def test_clear(self) -> None:
        """One class, with the hooks of its bases left alone, or all."""
        named, special = Hook(), Hook()
        register_hook(Named, named)
        register_hook(Special, special)
        clear_hooks(Special)
        assert get_hooks(Special) == (named,)
        clear_hooks(Team)
        clear_hooks()
        assert get_hooks(Special) == ()

    @pytest.mark.parametrize(
        "call",
        [
            lambda: register_hook("Hero", Hook()),  # type: ignore[arg-type]
            lambda: unregister_hook(Hero.name, Hook()),  # type: ignore[arg-type]
            lambda: get_hooks(["Hero"]),  # type: ignore[arg-type]
            lambda: clear_hooks("Hero"),  # type: ignore[arg-type]
            lambda: registered_hook(["Hero"], Hook()).__enter__(),  # type: ignore[arg-type]
        ],
    )
    def test_only_classes_have_hooks(self, call: Any) -> None:
        """A name or an instance is refused."""
        with pytest.raises(ValidationError, match="hooks must be registered for a class, not for"):
            call()


class TestScope:
    def test_scopes_nest(self) -> None:
        """Each one ends its own registration."""
        outer, inner = Hook(), Hook()
        with registered_hook(Hero, outer) as yielded:
            assert yielded is outer
            with registered_hook(Hero, inner):
                assert get_hooks(Hero) == (outer, inner)
            assert get_hooks(Hero) == (outer,)
        assert get_hooks(Hero) == ()

    def test_an_exception_ends_the_scope_too(self) -> None:
        """It propagates unchanged."""
        error = KeyError("x")
        with (
            pytest.raises(KeyError) as caught,
            registered_hook(Hero, Hook()),
            registered_hook(SQLModel, Hook()),
        ):
            raise error
        assert caught.value is error
        assert get_hooks(Hero) == ()

    def test_what_was_registered_before_stays(self) -> None:
        """A scope, or one in another, does not end an earlier registration of the same hook."""
        hook = Hook()
        register_hook(Hero, hook)
        with registered_hook(Hero, hook), registered_hook(Hero, hook):
            assert get_hooks(Hero) == (hook,)
        assert get_hooks(Hero) == (hook,)

    def test_an_early_end(self) -> None:
        """A hook that was unregistered inside the scope is not an error at its end."""
        hook = Hook()
        with registered_hook(Hero, hook):
            unregister_hook(Hero, hook)
        with registered_hook(Hero, hook):
            clear_hooks()
        assert get_hooks(Hero) == ()

    def test_a_refused_hook_begins_no_scope(self) -> None:
        """Nothing is registered."""
        with pytest.raises(ValidationError), registered_hook(Hero, object()):  # type: ignore[arg-type]
            pass
        assert get_hooks(Hero) == ()


def with_methods(*names: str) -> Any:
    """A hook with these methods."""
    return type("Odd", (), dict.fromkeys(names, lambda *_: None))()


class TestRefusals:
    @pytest.mark.parametrize(
        "name",
        [
            "before_creat",
            "after_creates",
            "before_save",
            "befor_update",
            "afterdelete",
            "beforeCreate",
            "After_create",
        ],
    )
    @pytest.mark.parametrize("others", [(), ("after_create",)])
    def test_a_misspelt_method(self, name: str, others: tuple[str, ...]) -> None:
        """It would never run, so it is refused with a list of names, even beside right methods."""
        with pytest.raises(ValidationError) as caught:
            register_hook(Hero, with_methods(name, *others))
        assert f"Odd has {name}" in str(caught.value)
        assert all(method in str(caught.value) for method in METHODS)
        assert get_hooks(Hero) == ()

    @pytest.mark.parametrize("hook", [object(), with_methods("run"), Mock(), None, len])
    def test_none_of_the_methods(self, hook: Any) -> None:
        """It is refused; the error lists the hook methods."""
        with pytest.raises(ValidationError) as caught:
            register_hook(Hero, hook)
        assert "defines no hook method; the hook methods are: before_create" in str(caught.value)
        assert all(method in str(caught.value) for method in METHODS)

    def test_a_class(self) -> None:
        """Its methods have no instance to be called on."""
        with pytest.raises(ValidationError, match="Hook is a class; register an instance of it"):
            register_hook(Hero, Hook)  # type: ignore[arg-type]

    def test_helpers_are_no_mistake(self) -> None:
        """Other attributes, private ones and data may have any name."""
        hook = with_methods("before_create", "notify", "_before_all", "update", "created")
        hook.after_seconds = 5
        hook.before_update = None
        register_hook(Hero, hook)
        assert get_hooks(Hero) == (hook,)

    def test_one_method_is_enough(self) -> None:
        """Each of the six, and a mock in a test."""
        for method in METHODS:
            register_hook(Hero, with_methods(method))
        register_hook(Hero, Mock(spec=["after_delete"]))
        assert len(get_hooks(Hero)) == len(METHODS) + 1


def test_threads_register_at_the_same_time() -> None:
    """No registration is lost, none is left behind, and readers see whole tuples."""
    kept = [[Hook() for _ in range(200)] for _ in range(8)]

    def work(hooks: list[Hook]) -> None:
        for hook in hooks:
            with registered_hook(Hero, Hook()):
                register_hook(Hero, hook)
                assert any(each is hook for each in get_hooks(Hero))
            with suppress(ValidationError):
                unregister_hook(Team, hook)

    with ThreadPoolExecutor(len(kept)) as pool:
        list(pool.map(work, kept))
    found = get_hooks(Hero)
    assert {id(hook) for hook in found} == {id(hook) for hooks in kept for hook in hooks}
    assert len(found) == 8 * 200
    for hooks in kept:  # each thread's own order
        mine = {id(hook) for hook in hooks}
        assert [hook for hook in found if id(hook) in mine] == hooks


def test_the_protocol_can_be_subscripted() -> None:
    """`OperationHook[Hero]` works at run time, not only in annotations."""
    alias: Any = OperationHook
    assert alias[Hero] != alias[Team]


class Strict(SQLModel):
    """Not a table, but what `ValidateOnWrite` needs."""

    name: str = Field(min_length=2)


class TestValidateOnWrite:
    def test_the_errors_have_no_values(self) -> None:
        """Neither in the text nor in the details: only where and why."""
        row = Strict.model_construct(name="\N{SNOWMAN}")
        with pytest.raises(ValidationError) as caught:
            ValidateOnWrite().before_create(row)
        assert caught.value.field == "name"
        assert "name: String should have at least 2 characters" in str(caught.value)
        assert "\N{SNOWMAN}" not in f"{caught.value} {caught.value.errors}"

    def test_a_model_that_cannot_validate(self) -> None:
        """The error says that the class is not a SQLModel class."""
        with pytest.raises(ValidationError, match="object is not a SQLModel class"):
            ValidateOnWrite().before_create(object())
