"""How far a bulk function has got."""

from __future__ import annotations

import sys

import pytest

from sqlmodel_crud_utils._core.progress import progress_to
from sqlmodel_crud_utils.exceptions import ValidationError


@pytest.mark.parametrize("total", [None, 4])
def test_the_bar_shows_what_is_done(total: int | None, capsys: pytest.CaptureFixture[str]) -> None:
    """It shows the reported number, whether or not the total is known."""
    with progress_to(True, "Hero", total) as report:
        assert report is not None
        report(1, total)
        report(4, total)
    shown = capsys.readouterr().err
    assert "Hero" in shown
    assert "4" in shown
    assert shown.endswith("\n")


def test_a_function_is_passed_through() -> None:
    """Without a progress option, nothing is reported."""
    with progress_to(print, "Hero", None) as report:
        assert report is print
    for wanted in (None, False):
        with progress_to(wanted, "Hero", None) as report:
            assert report is None


def test_without_tqdm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of an ImportError."""
    monkeypatch.setitem(sys.modules, "tqdm", None)
    wanted = pytest.raises(ValidationError, match=r"sqlmodel-crud-utils\[progress\]")
    with wanted, progress_to(True, "Hero", 3):
        pass
