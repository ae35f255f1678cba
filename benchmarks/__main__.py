"""Compare the library with hand-written SQLAlchemy: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import imports, memory, report
from benchmarks._async import comparing as async_comparing
from benchmarks._sync import comparing as sync_comparing
from benchmarks.databases import KINDS, provide
from benchmarks.models import Sizes
from benchmarks.regressions import TOLERANCE, Regression, regressions
from benchmarks.results import Effort, Result

APIS = ("async", "sync")
THOROUGH = Effort(seconds=8, fewest_rounds=5)
QUICK = Effort(seconds=0.4, fewest_rounds=2)


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """Return the settings of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, in under 3 minutes")
    parser.add_argument(
        "--only", type=_words, default=[""], help="parts of the names of cases or of their groups"
    )
    parser.add_argument(
        "--databases", type=_words, default=list(KINDS), help="of: " + ",".join(KINDS)
    )
    parser.add_argument("--api", type=_words, default=list(APIS), help="of: " + ",".join(APIS))
    parser.add_argument("--seconds", type=float, help="how long a case is measured")
    parser.add_argument(
        "--cpu", action="store_true", help="measure CPU time: steadier on a busy machine"
    )
    parser.add_argument("--json", type=Path, help="a file for the results")
    parser.add_argument(
        "--against",
        type=Path,
        help=f"a file to compare with: fails if a ratio is more than {TOLERANCE} times as large, "
        "in two runs",
    )
    found = parser.parse_args(given)
    for name, known in (("databases", KINDS), ("api", APIS)):
        if unknown := set(getattr(found, name)) - set(known):
            parser.error(
                f"--{name}: {', '.join(sorted(unknown))} is unknown; take {', '.join(known)}"
            )
    effort = QUICK if found.quick else THOROUGH
    found.effort = replace(effort, seconds=found.seconds or effort.seconds, cpu=found.cpu)
    return found


def measure(
    settings: argparse.Namespace, sizes: Sizes, tell: Callable[[Result], None]
) -> dict[str, str]:
    """Run the cases, report each result, and return the versions of the databases."""

    def wanted(name: str) -> bool:
        return any(word in name for word in settings.only)

    versions = {}
    for kind in settings.databases:
        with provide(kind, sizes) as database:
            versions[kind] = database.version
            for api in settings.api:
                work = (database, sizes, settings.effort, wanted, tell)
                if api == "async":
                    asyncio.run(async_comparing.run(*work))
                else:
                    sync_comparing.run(*work)
                memory.run(database, api, sizes, wanted, tell)
    imports.run(settings.effort, wanted, tell)
    return versions


def found_again(
    settings: argparse.Namespace, sizes: Sizes, results: Sequence[Result]
) -> list[Regression]:
    """Return the ratios that are worse than in the file, both in the results and in a rerun."""
    earlier = report.Report.read(settings.against).results
    suspects = regressions(results, earlier)
    if not suspects:
        return []
    print("\nonce more, as they are worse than they were:")
    settings.only = [each.result.operation for each in suspects]
    again: list[Result] = []
    measure(settings, sizes, again.append)
    return regressions(again, earlier, among=suspects)


def main(given: Sequence[str] | None = None, sizes: Sizes | None = None) -> None:
    """Print the tables, and write the file of results."""
    settings, sizes = arguments(given), sizes or Sizes()
    results: list[Result] = []

    def tell(result: Result) -> None:
        place = (result.database, result.api if result.database else "")
        last = results[-1] if results else None
        if last is None or place != (last.database, last.api if last.database else ""):
            print(report.title(*place))
        results.append(result)
        print(report.line(result), flush=True)

    versions = measure(settings, sizes, tell)
    print(report.conclusion(results))
    if settings.json is not None:
        made = report.circumstances(sizes, settings.effort, versions)
        report.Report(made, results).write(settings.json)
        print(f"written to {settings.json}")
    if settings.against is not None and (worse := found_again(settings, sizes, results)):
        sys.exit("\n".join(["worse than before:", *map(str, worse)]))


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


if __name__ == "__main__":
    main()
