"""Renew docs/performance.md and its plots from the measured results.

    python -m benchmarks.documentation

The tables stand between markers such as `<!-- reads -->` and `<!-- end of reads -->`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import product
from pathlib import Path

from benchmarks.databases import KINDS
from benchmarks.report import Report, shown
from benchmarks.results import Result
from benchmarks.targets import LIMITS, RATIOS, verdict

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results.json"
PAGE = ROOT / "docs/performance.md"
PLOTS = ROOT / "docs/performance"
# What stands in one table of the page, and in one plot.
RATIO_GROUPS = ("reads", "writes", "soft deletes", "bulk", "pages", "streams", "hooks", "pool")
FIGURE_GROUPS = ("memory", "imports")
PLACES = list(product(KINDS, ("async", "sync")))


def renewed(page: str, report: Report) -> str:
    """Return the page with the tables of these results."""
    contents = {"measured": measured(report)}
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


def measured(report: Report) -> str:
    """Return what a reader has to know about the run."""
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
    with_targets = any(operation in RATIOS for operation in operations)
    rows = []
    for operation in operations:
        cells = (ratio_cell(found.get((operation, *place))) for place in PLACES)
        targets = " / ".join(f"{each:.2f}" for each in RATIOS.get(operation, ()))
        rows.append([operation, *cells, *([targets] if with_targets else [])])
    return "\n".join(table([*head, *(["target"] if with_targets else [])], rows))


def ratio_cell(result: Result | None) -> str:
    """Return the ratio and the library's time."""
    if result is None:
        return ""
    return f"**{result.ratio:.2f}**{mark(result)} {shown(result.library)} {result.unit}"


def figure_table(results: Iterable[Result]) -> str:
    """Return the figures of both sides, a row for each result."""
    rows = []
    for each in results:
        place = f"{KINDS[each.database]}, {each.api}" if each.database else ""
        ours, theirs = (f"{shown(value)} {each.unit}" for value in (each.library, each.by_hand))
        limit = f"{LIMITS[each.operation]:g} {each.unit}"
        rows.append([each.operation, place, f"**{ours}**{mark(each)}", theirs, limit])
    return "\n".join(table(("", "", "library", "compared with", "limit"), rows))


def mark(result: Result) -> str:
    """Return a tick where the target is met, a cross where it is not."""
    found = verdict(result)
    if found is None:
        return ""
    return " ✓" if found.met else " ✗"


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
