"""Update docs/performance.md and its plots from the measured results.

    python -m benchmarks.documentation

The tables are between markers such as `<!-- reads -->` and `<!-- end of reads -->`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import product
from pathlib import Path

from benchmarks.databases import KINDS
from benchmarks.report import Report, shown
from benchmarks.results import Result

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results.json"
PAGE = ROOT / "docs/performance.md"
PLOTS = ROOT / "docs/performance"
# The groups in each table and plot of the page.
RATIO_GROUPS = ("reads", "writes", "soft deletes", "bulk", "pages", "streams", "hooks", "pool")
FIGURE_GROUPS = ("memory", "imports")
# Ratios that are no further from 1 count as equal.
NOISE = 0.05
PLACES = list(product(KINDS, ("async", "sync")))


def renewed(page: str, report: Report) -> str:
    """Return the page with updated tables."""
    contents = {"in short": in_short(report.results), "measured": measured(report)}
    for group in RATIO_GROUPS:
        contents[group] = ratio_table(each for each in report.results if each.group == group)
    for group in FIGURE_GROUPS:
        contents[group] = figure_table(each for each in report.results if each.group == group)
    for name, content in contents.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        parts = re.split(f"(?<={start}).*?(?={end})", page, flags=re.DOTALL)
        if len(parts) != 2:
            raise LookupError(f"{PAGE.name} has {len(parts) - 1} places for the table {name!r}")
        page = f"\n{content}\n\n".join(parts)
    return page


def in_short(results: Iterable[Result]) -> str:
    """Return how many operations are faster, about as fast, and slower than by hand."""
    ratios = [each.ratio for each in results if each.ratio is not None and each.group != "hooks"]
    faster = sum(ratio < 1 - NOISE for ratio in ratios)
    slower = sum(ratio > 1 + NOISE for ratio in ratios)
    return (
        f"Of {len(ratios)} comparisons, the library is faster in **{faster}**, as fast within "
        f"{NOISE:.0%} in **{len(ratios) - faster - slower}**, and slower in **{slower}**."
    )


def measured(report: Report) -> str:
    """Return a description of the run for readers."""
    made = report.made
    versions = [("Python", made["python"])]
    versions += [(KINDS[kind], version) for kind, version in made["databases"].items()]
    versions += list(made["packages"].items())
    effort = made["effort"]
    clock = "time on the CPU" if effort["cpu"] else "time that passes"
    lines = [
        f"Measured on {made['date']}: {made['machine']} with {made['cores']} cores, each case for",
        f"{effort['seconds']:g} seconds (at least {effort['fewest_rounds']} rounds), {clock}.",
        *(["**This was a quick run: its figures are rough.**"] if effort["seconds"] < 1 else []),
        "",
        *table(("", "version"), versions),
    ]
    return "\n".join(lines)


def ratio_table(results: Iterable[Result]) -> str:
    """Return the ratios of the operations, a column for each database and API."""
    found = {(each.operation, each.database, each.api): each for each in results}
    operations = dict.fromkeys(operation for operation, _, _ in found)
    head = ["operation", *(f"{KINDS[kind]}, {api}" for kind, api in PLACES)]
    rows = (
        [operation, *(ratio_cell(found.get((operation, *place))) for place in PLACES)]
        for operation in operations
    )
    return "\n".join(table(head, rows))


def ratio_cell(result: Result | None) -> str:
    """Return the ratio and the library's time."""
    if result is None:
        return ""
    return f"**{result.ratio:.2f}** {shown(result.library)} {result.unit}"


def figure_table(results: Iterable[Result]) -> str:
    """Return the figures of both sides, a row for each result."""
    rows = []
    for each in results:
        place = f"{KINDS[each.database]}, {each.api}" if each.database else ""
        ours, theirs = (f"{shown(value)} {each.unit}" for value in (each.library, each.by_hand))
        rows.append([each.operation, place, f"**{ours}**", theirs])
    return "\n".join(table(("", "", "library", "compared with"), rows))


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    columns = lines[0].count("|") - 1
    return [lines[0], "|---" * columns + "|", *lines[1:]]


def main() -> None:
    """Write the page and the plots."""
    from benchmarks.plots import draw  # needs matplotlib, the tables don't

    report = Report.read(RESULTS)
    PAGE.write_text(renewed(PAGE.read_text(), report))
    for group in (*RATIO_GROUPS, *FIGURE_GROUPS):
        draw(group, [each for each in report.results if each.group == group], PLOTS)
    print(f"renewed {PAGE.relative_to(ROOT)} and {PLOTS.relative_to(ROOT)}/*.svg")


if __name__ == "__main__":
    main()
