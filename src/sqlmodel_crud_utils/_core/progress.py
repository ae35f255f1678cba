"""Progress of a bulk function: reported to a callback, or shown as a bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlmodel_crud_utils.exceptions import ValidationError

Report = Callable[[int, int | None], Any]


def check_progress(progress: Any) -> None:
    """Refuse anything but a bool or a callable."""
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise ValidationError(
            "progress is True for a bar, or a function that is called with (done, total)",
            field="progress",
        )


@contextmanager
def progress_bar(label: str, total: int | None) -> Iterator[Report]:
    """Show a bar with rows, rate and time left inside the block.

    Args:
        label: What is shown before the bar.
        total: How many rows there will be, if that is known.

    Yields:
        What to call with the rows that are done, and the total.
    """
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ValidationError(
            'a progress bar needs tqdm: pip install "sqlmodel-crud-utils[progress]"; '
            "or pass a function that is called with (done, total)",
            field="progress",
        ) from error
    with tqdm(total=total, desc=label, unit=" rows") as bar:
        yield lambda done, _total: bar.update(done - bar.n)


@contextmanager
def progress_to(wanted: Any, label: str, total: int | None) -> Iterator[Report | None]:
    """Return the function to call after each chunk, or None without progress."""
    if wanted is True:
        with progress_bar(label, total) as report:
            yield report
    else:
        yield wanted or None
