"""A picture of the table of runs: how good, what became of each, how long, how large."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from math import ceil
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from sasrec_tasks.errors import BadSettings

# Marks differ in form as well as colour; colours are Okabe and Ito's, which colour-blind people tell apart
# (https://jfly.uni-koeln.de/color/).
BLUE, GREEN, RED, ORANGE, GREY = "#0072b2", "#009e73", "#d55e00", "#e69f00", "#6e6e6e"
SKY, PURPLE = "#56b4e9", "#cc79a7"
MARKS = {
    "published": ("o", BLUE),
    "rolled back": ("v", PURPLE),
    "superseded": ("D", GREEN),
    "refused": ("X", RED),
    "failed": ("s", ORANGE),
}
DAY = timedelta(days=1)
VERSIONS = 30
"""At most about so many are written beside their marks."""

METADATA: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".png": {}}
"""By the file's ending: no date, so that the same runs give the same file."""

# An opaque page, dark ink: it reads alike wherever it is shown, a dark page included. Text stays text.
STYLE = {
    "axes.facecolor": "white",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "white",
    "font.size": 9,
    "savefig.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "runs",
}


def draw_runs(runs: pa.Table, file: Path) -> None:
    """Draw runs over their as_of: NDCG@10 with its 95% interval beside popularity, endings, versions; seconds; sizes.

    Args:
        runs: rows as `runs.read` or `runs.with_rollbacks` gives them, at least one.
        file: .svg or .png, replaced if it is there.

    Raises:
        BadSettings: no runs, or another kind of file.
        OSError: the file can't be written.
    """
    if not len(runs):
        raise BadSettings("picture: no run is written down yet: publish one first")
    if file.suffix not in METADATA:
        raise BadSettings(f"picture {str(file)!r}: name a file that ends in {' or '.join(METADATA)}")
    rows = runs.to_pylist()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 6.5), layout="constrained")
        quality, seconds, sizes = figure.subplots(3, 1, sharex=True, height_ratios=[3, 1, 1])
        _quality(quality, rows)
        _seconds(seconds, rows)
        _sizes(sizes, rows)
        if len(moments := set(runs["AS_OF"].to_pylist())) == 1:  # else matplotlib shows four years
            sizes.set_xlim(*(moment + days for moment in moments for days in (-DAY, DAY)))
        locator = AutoDateLocator()
        sizes.xaxis.set_major_locator(locator)
        sizes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        sizes.set_xlabel("as_of (UTC)")
        figure.savefig(file, metadata=METADATA[file.suffix])


def _quality(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """A line through what was published; a mark for each run, at the bottom for those that were not evaluated."""
    published = [row for row in rows if row["ENDING"] == "published" and row["NDCG"] is not None]
    at = [row["AS_OF"] for row in published]
    low, high = ([row[name] for row in published] for name in ("NDCG_LOW", "NDCG_HIGH"))
    axes.fill_between(at, low, high, color=BLUE, alpha=0.2, linewidth=0, label="95% interval")
    axes.plot(at, [row["NDCG"] for row in published], color=BLUE, linewidth=1)
    _line(axes, rows, "POPULARITY_NDCG", "popularity", color=GREY, linestyle=":")
    for ending, (marker, colour) in MARKS.items():
        chosen = [row for row in rows if row["ENDING"] == ending]
        if not chosen:
            continue
        heights = [row["NDCG"] or 0.0 for row in chosen]
        moments = [row["AS_OF"] for row in chosen]
        axes.scatter(moments, heights, marker=marker, color=colour, label=ending, zorder=3, clip_on=False)
        if ending != "published":
            ends = ([row[name] or 0.0 for row in chosen] for name in ("NDCG_LOW", "NDCG_HIGH"))
            axes.vlines(moments, *ends, color=colour, linewidth=1)
    for row in published[:: ceil(len(published) / VERSIONS) or 1]:
        axes.annotate(
            str(row["VERSION"]),
            (row["AS_OF"], row["NDCG_HIGH"]),
            textcoords="offset points",
            xytext=(0, 4),
            ha="center",
            fontsize=7,
            color=GREY,
        )
    axes.set_ylim(bottom=0)
    axes.set_ylabel("NDCG@10 (numbers: versions)")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False, ncols=6)


def _seconds(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    _line(axes, rows, "SECONDS", "all tasks", color=BLUE, marker=".")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("seconds")


def _sizes(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    for name, colour, marker in (("ROWS", BLUE, "."), ("USERS", SKY, "x"), ("ITEMS", PURPLE, "+")):
        _line(axes, rows, name, name.lower(), color=colour, marker=marker, markersize=4)
    axes.set_yscale("log")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("count")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def _line(axes: Axes, rows: Sequence[Mapping[str, Any]], name: str, label: str, **style: Any) -> None:
    """A column over as_of, of the runs that have it."""
    known = [row for row in rows if row[name] is not None]
    axes.plot(
        [row["AS_OF"] for row in known], [row[name] for row in known], label=label, linewidth=1, **style
    )
