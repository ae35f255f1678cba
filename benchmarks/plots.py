"""A plot for each group of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from benchmarks.databases import KINDS
from benchmarks.report import shown
from benchmarks.results import Result

COLORS = {"async": "#2563eb", "sync": "#ea7317"}
BY_HAND = "#9ca3af"
# The baselines of groups that are not compared with work by hand.
BASELINES = {"hooks": "without the look for hooks", "imports": "import sqlmodel"}
# The offsets of the two APIs above and below the line of an operation.
OFFSETS = {"async": -0.16, "sync": 0.16}
TICKS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 5.0)
COARSE_TICKS = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0)
STYLE: dict[Any, Any] = {
    "axes.edgecolor": "#d1d5db",
    "axes.labelcolor": "#374151",
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "font.size": 9.5,
    "grid.color": "#e5e7eb",
    "svg.fonttype": "path",  # the same appearance everywhere
    "svg.hashsalt": "benchmarks",  # the same file for the same results
    "text.color": "#111827",
    "xtick.color": "#6b7280",
    "ytick.color": "#111827",
    "ytick.left": False,
}


def draw(group: str, results: Sequence[Result], folder: Path) -> Path:
    """Write the plot of a group, and return its file."""
    with mpl.rc_context(STYLE):
        plot = figures_of if any(each.ratio is None for each in results) else ratios_of
        figure = plot(results, BASELINES.get(group, "by hand"))
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{group.replace(' ', '-')}.svg"
        figure.savefig(file, bbox_inches="tight", pad_inches=0.15, metadata={"Date": None})
    return file


def ratios_of(results: Sequence[Result], baseline: str) -> Figure:
    """Return a panel for each database, with a line for each operation."""
    operations = list(dict.fromkeys(each.operation for each in results))
    kinds = [kind for kind in KINDS if any(each.database == kind for each in results)]
    figure = Figure(figsize=(9, 1.1 + 0.42 * len(operations)), layout="constrained")
    panels = figure.subplots(1, len(kinds), sharex=True, sharey=True, squeeze=False)[0]
    for panel, kind in zip(panels, kinds, strict=True):
        prepare_panel(panel, KINDS[kind], operations)
        for each in (each for each in results if each.database == kind):
            plot_ratio(panel, each, operations.index(each.operation))
    limit_ratios(panels[0], results)
    figure.supxlabel(f"← faster than {baseline} · slower →", fontsize=9.5, color="#374151")
    add_legend(figure, COLORS, "o")
    return figure


def prepare_panel(panel: Axes, title: str, names: Sequence[str]) -> None:
    """Label the lines, the first one at the top."""
    panel.set_title(title, loc="left", fontweight="bold")
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.grid(axis="x")
    panel.set_axisbelow(True)


def plot_ratio(panel: Axes, result: Result, line: int) -> None:
    """Plot a ratio with its quartiles."""
    height, color = line + OFFSETS[result.api], COLORS[result.api]
    panel.hlines(height, result.low or 0, result.high or 0, color=color, linewidth=2, alpha=0.35)
    panel.plot([result.ratio or 0], [height], "o", color=color, markersize=6.5)


def limit_ratios(panel: Axes, results: Sequence[Result]) -> None:
    """Use a logarithmic scale, so that half and double are equally far from 1; always show 1."""
    ratios = [end for each in results for end in (each.low or 1, each.high or 1, each.ratio or 1)]
    low, high = min(*ratios, 0.65) / 1.08, max(*ratios, 1.45) * 1.08
    panel.set_xscale("log")
    panel.set_xlim(low, high)
    panel.xaxis.set_major_locator(FixedLocator(TICKS if high / low < 10 else COARSE_TICKS))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for each in panel.figure.axes:
        each.axvline(1, color="#6b7280", linewidth=1, zorder=1)


def add_legend(figure: Figure, colors: Mapping[str, str], marker: str) -> None:
    """Explain the colors."""
    handles = [
        Line2D([], [], marker=marker, markersize=7, color=color, linewidth=0, label=name)
        for name, color in colors.items()
    ]
    figure.legend(
        handles=handles,
        loc="outside upper right",
        ncols=len(handles),
        frameon=False,
        handletextpad=0.2,
    )


def figures_of(results: Sequence[Result], baseline: str) -> Figure:
    """Return bars for both sides of each result."""
    names = [
        f"{KINDS[each.database]}, {each.api}" if each.database else each.operation
        for each in results
    ]
    figure = Figure(figsize=(9, 1.1 + 0.5 * len(names)), layout="constrained")
    panel = figure.subplots()
    prepare_panel(panel, "", names)
    lines = range(len(names))
    colors = [COLORS[each.api] for each in results]
    ours = panel.barh([n - 0.18 for n in lines], [each.library for each in results], 0.32)
    for bar, color in zip(ours, colors, strict=True):
        bar.set_color(color)
    theirs = panel.barh([n + 0.18 for n in lines], [each.by_hand for each in results], 0.32)
    for bar in theirs:
        bar.set_color(BY_HAND)
    for bars in (ours, theirs):
        panel.bar_label(bars, fmt=shown, padding=4, fontsize=8.5, color="#374151")
    panel.set_xlabel(results[0].unit)
    used = {api: COLORS[api] for api in COLORS if any(each.api == api for each in results)}
    add_legend(figure, used | {baseline: BY_HAND}, "s")
    return figure
