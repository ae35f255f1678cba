"""Find ratios that are worse than those of an earlier run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.results import Result

# How many times as large a ratio may become.
TOLERANCE = 1.15

Place = tuple[str, str, str]


@dataclass(frozen=True)
class Regression:
    """A ratio that has become worse.

    Attributes:
        result: The new result.
        before: The ratio of the earlier run.
    """

    result: Result
    before: float

    def __str__(self) -> str:
        place = f"{self.result.operation} ({self.result.database}, {self.result.api})"
        return f"{place}: {self.result.ratio:.2f}, was {self.before:.2f}"


def place_of(result: Result) -> Place:
    """Return what identifies a result in its run."""
    return result.operation, result.database, result.api


def regressions(
    results: Iterable[Result], earlier: Iterable[Result], *, among: Iterable[Regression] = ()
) -> list[Regression]:
    """Return the ratios that have become worse by more than the tolerance.

    Results that only one of the runs has are ignored.

    Args:
        results: The new results.
        earlier: The results to compare with.
        among: Regressions found before; if given, only these are checked.
    """
    before = {place_of(each): each.ratio for each in earlier}
    suspects = {place_of(each.result) for each in among}
    found = []
    for result in results:
        ratio = before.get(place_of(result))
        if suspects and place_of(result) not in suspects:
            continue
        if ratio and result.ratio and result.ratio > ratio * TOLERANCE:
            found.append(Regression(result, ratio))
    return found
