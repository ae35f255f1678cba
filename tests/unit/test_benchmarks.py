"""The benchmarks' command, their targets, and the table that they print."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import StaticPool, create_engine

from benchmarks import (
    documentation,
    history,
    imports,
    isolation,
    many_models,
    memory,
    tenants,
    watching,
)
from benchmarks.__main__ import main
from benchmarks._sync.case import Side
from benchmarks._sync.comparing import GROUPS
from benchmarks.databases import provide
from benchmarks.models import Hero, Sizes
from benchmarks.regressions import regressions
from benchmarks.report import Report, conclusion, line
from benchmarks.results import Effort, Result, comparable, difference
from benchmarks.targets import LIMITS, RATIOS, verdict

SIZES = Sizes(rows=100, many=40, lots=60, stream=300, depth=100)


def result(operation: str = "write", api: str = "async", ratio: float = 1.0) -> Result:
    """Return a result on SQLite."""
    return Result("writes", operation, "sqlite", api, "ms", 2.0, 4.0, ratio, 0.9, 1.1, 50, (1, 2))


def test_every_target_is_that_of_a_case() -> None:
    """A case that got another name would lose its target silently."""
    names = {case.name for cases in GROUPS.values() for case in cases(SIZES)}
    assert set(RATIOS) - names == set()
    assert set(LIMITS) == {memory.OPERATION, *imports.OPERATIONS}


@pytest.mark.parametrize(("ratio", "met"), [(0.9, True), (0.904, True), (0.91, False)])
def test_a_target_is_met_or_missed(ratio: float, met: bool) -> None:
    """The displayed ratio counts."""
    found = verdict(result(ratio=ratio))
    assert found is not None
    assert (found.target, found.met) == (0.9, met)
    assert conclusion([result(ratio=ratio)]).strip() == f"{int(met)} of 1 targets met"


def test_only_the_async_api_has_targets_for_ratios() -> None:
    """And only what is named in the table of targets."""
    assert verdict(result(api="sync")) is None
    assert verdict(result("rows of 500 ids")) is None


def test_a_line_of_the_table() -> None:
    """Figures, ratio, quartiles, target, statements."""
    words = " ".join(line(result()).split())
    assert words == "write 2.000 ms 4.000 ms 1.00 0.90-1.10 0.90 MISSED 1/2"
    growth = Result("memory", memory.OPERATION, "sqlite", "sync", "MiB", 7.25, 3.0)
    assert line(growth).endswith("7.250 MiB     3.000 MiB                      5 MiB MISSED")


def test_what_no_two_calls_have_alike_is_left_out_of_the_comparison() -> None:
    """The key of a new row is; the key of an old one, and a column that is not loaded, are not."""
    old, new = Hero(id=1, name="a", secret_name="?"), Hero(id=7, name="b", secret_name="?")
    del new.__dict__["age"]
    (first, second), _ = comparable([old, new], [{"id": 1}], [])
    assert (first["id"], first["age"]) == (1, None)
    assert (second["id"], second["age"]) == ("a new key", "not loaded")
    assert comparable([new], None, None)[0][0]["id"] == 7


def test_where_two_outcomes_differ() -> None:
    """The first difference is named, with both values."""
    assert difference([{"a": 1}, 2], [{"a": 1}, 2]) == ""
    assert difference([{"a": 1}, 2], [{"a": 3}, 4]) == "[0]['a']: 1 and 3"
    assert difference([1], [1, 2]) == ": [1] and [1, 2]"


def test_the_command_prints_tables_and_writes_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table for each API."""
    file = tmp_path / "new" / "results.json"
    options = ["--seconds=0.01", "--databases=sqlite", "--only=exists", f"--json={file}"]
    main(["--quick", *options], SIZES)
    printed = capsys.readouterr().out.split("\n")
    assert [line for line in printed if "SQLite" in line] == ["SQLite, async", "SQLite, sync"]
    report = Report.read(file)
    assert report.made["sizes"]["rows"] == 100
    found = [(each.operation, each.api, each.statements) for each in report.results]
    assert found == [("get-or-create, exists", api, (1, 1)) for api in ("async", "sync")]


def test_a_ratio_that_is_worse_than_it_was() -> None:
    """By more than 15 %; what was not measured before, or has no ratio, does not count."""
    growth = Result("memory", memory.OPERATION, "sqlite", "sync", "MiB", 7.25, 3.0)
    earlier = [result(ratio=1.0), result(api="sync", ratio=1.0), growth]
    now = [result(ratio=1.16), result(api="sync", ratio=1.14), result("new", ratio=9.0), growth]
    [found] = regressions(now, earlier)
    assert str(found) == "write (sqlite, async): 1.16, was 1.00"
    assert regressions([result(api="sync", ratio=2.0)], earlier, among=[found]) == []


@pytest.mark.parametrize("second", [1.0, 1.3])
def test_the_check_fails_on_what_is_worse_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, second: float
) -> None:
    """Once may be chance, so what is worse is measured again, and nothing else."""
    file = tmp_path / "results.json"
    Report({}, [result(ratio=1.0), result("delete by key", ratio=1.0)]).write(file)
    runs = [[result(ratio=1.2), result("delete by key", ratio=1.0)], [result(ratio=second)]]
    wanted: list[list[str]] = []

    def measure(settings: Any, _sizes: Sizes, tell: Any) -> dict[str, str]:
        wanted.append(settings.only)
        for each in runs[len(wanted) - 1]:
            tell(each)
        return {}

    monkeypatch.setattr("benchmarks.__main__.measure", measure)
    if second > 1.15:
        with pytest.raises(SystemExit, match=r"write \(sqlite, async\): 1.30, was 1.00"):
            main([f"--against={file}"], SIZES)
    else:
        main([f"--against={file}"], SIZES)
    assert wanted == [[""], ["write"]]


def test_the_check_passes_on_what_is_as_it_was(tmp_path: Path) -> None:
    """One run is enough then."""
    file = tmp_path / "results.json"
    Report({}, [result("get-or-create, exists", ratio=1000.0)]).write(file)
    options = ["--seconds=0.01", "--databases=sqlite", "--only=exists", f"--against={file}"]
    main(["--quick", *options], SIZES)


@pytest.mark.parametrize("api", ["async", "sync"])
@pytest.mark.parametrize("side", ["library", "by hand"])
def test_the_memory_for_a_stream_is_measured(api: str, side: Side) -> None:
    """Without the fresh process that a real measurement has."""
    with provide("sqlite", SIZES) as database:
        assert memory.growth(database.urls[api], api, side, 300) >= 0


def test_the_time_for_imports_is_measured() -> None:
    """In a fresh process each; the first one does not count."""
    ((base, module),) = imports.measure("json", "tomllib", Effort(seconds=0, fewest_rounds=1))
    assert 0 < base < 10
    assert 0 < module < 10


def test_a_database_that_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    """The command says which ones are."""
    with pytest.raises(SystemExit):
        main(["--databases=oracle"])
    assert "oracle is unknown; take sqlite, postgresql" in capsys.readouterr().err


def test_the_page_shows_the_results() -> None:
    """`make bench-docs` has been run since they were measured, and the page has all plots."""
    page = documentation.PAGE.read_text()
    assert documentation.renewed(page, Report.read(documentation.RESULTS)) == page
    linked = re.findall(r"\]\(performance/([\w-]+\.svg)\)", page)
    assert sorted(linked) == sorted(file.name for file in documentation.PLOTS.iterdir())


def test_a_page_without_a_place_for_a_table_is_refused() -> None:
    """Else its table would be missing silently."""
    page = documentation.PAGE.read_text().replace("<!-- hooks -->", "")
    with pytest.raises(LookupError, match="0 places for the table 'hooks'"):
        documentation.renewed(page, Report.read(documentation.RESULTS))


def test_the_tables_of_the_page() -> None:
    """Ratio and the library's time; empty where nothing was measured."""
    rows = documentation.ratio_table([result(), result(api="sync", ratio=2)]).split("\n")
    assert rows[2] == "| write | **1.00** 2 ms | **2.00** 2 ms |  |  |"
    growth = Result("memory", memory.OPERATION, "sqlite", "sync", "MiB", 7.25, 300.4)
    rows = documentation.figure_table([growth]).split("\n")
    assert rows[2] == f"| {memory.OPERATION} | SQLite, sync | **7.25 MiB** | 300 MiB |"


def test_the_same_results_make_the_same_plot(tmp_path: Path) -> None:
    """So that a plot changes only with what it shows."""
    pytest.importorskip("matplotlib")
    from benchmarks.plots import draw

    growth = Result("memory", memory.OPERATION, "sqlite", "sync", "MiB", 7.25, 300.4)
    for group, results in (("soft deletes", [result()]), ("memory", [growth])):
        first, second = (draw(group, results, tmp_path / name) for name in ("a", "b"))
        assert first.read_bytes() == second.read_bytes()
        assert first.name == f"{group.replace(' ', '-')}.svg"


def test_reads_among_many_models_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    """Each read is run on both sides, and is a line of the table."""
    costs = many_models.measure(few=2, many=3, rounds=2, calls=1)
    assert all(cost.few > 0 and cost.many > 0 and cost.ratio > 0 for cost in costs)
    many_models.main(costs)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == list(many_models.READS)


def test_tenants_and_strict_loading_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    """Each side measures itself, and what it prints becomes a table of ratios."""
    run = [sys.executable, "-m", "benchmarks.tenants", "tenants"]
    found = json.loads(subprocess.run(run, capture_output=True, check=True).stdout)
    assert list(found) == list(tenants.WORK)
    tenants.main([], dict.fromkeys(tenants.SIDES, found))
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.endswith("1.00") for line in lines) == 2 * len(tenants.WORK)


def test_the_history_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    """Two lines for each database, for all rows and for one, with all ways and the ratio."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    history.main([history.measure(engine, rows=20, rounds=1)])
    [of_all, of_one] = capsys.readouterr().out.splitlines()
    assert all(f"{way} " in of_all for way in history.WAYS)
    assert all(f"{way} " in of_one for way in history.ROW_WAYS)
    engine.dispose()


def test_what_is_added_to_a_call() -> None:
    """Telemetry and limits are compared with a plain call, and with a bare span."""
    measured = watching.measure(calls=2, rounds=1)
    assert set(measured) == {"alone", "telemetry", "limits in memory", "bare span and point"}
    assert all(0 < taken < float("inf") for taken in measured.values())


def test_the_isolation_of_a_test(capsys: pytest.CaptureFixture[str]) -> None:
    """It is measured on an empty table, which is dropped afterwards."""
    isolation.main(["sqlite://"])
    assert capsys.readouterr().out.startswith("sqlite: nothing, isolated ")
