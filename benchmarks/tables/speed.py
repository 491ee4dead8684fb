"""How fast the stages are, as Markdown tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tables.markdown import RESULTS, in_seconds, read_report, read_rows, table


def speed_machine(folder: Path = RESULTS) -> str:
    """On what and when the speed was measured."""
    report = read_report(folder / "speed.json")
    rows = report.get("rows", [])
    if not rows:
        return ""
    dates = sorted({row["date"] for row in rows})
    minutes = sum(row.get("took_s", 0) for row in rows) / 60
    return (
        f"Measured on {report['machine']}; {' to '.join(dict.fromkeys([dates[0], dates[-1]]))}, "
        f"in {minutes:.0f} minutes."
    )


def speed(folder: Path = RESULTS) -> str:
    """A row per stage and peer: seconds of both, their ratio beside its mark, quality, memory."""
    file = folder / "speed.json"
    head = [
        "stage",
        "work",
        "beside",
        "ours, s",
        "peer's, s",
        "limit, s",
        "ratio",
        "mark",
        "NDCG@10, ours / peer's",
        "peak MB",
    ]
    rows = []
    for row in read_rows(file):
        ratio = f"{row['orchestration_s']:.0f} s more" if "orchestration_s" in row else f"{row['ratio']:.2g}"
        rows.append(
            [
                row["stage"],
                row["work"],
                row["peer"],
                in_seconds(row["ours_s"]),
                in_seconds(row["peer_s"]),
                in_seconds(row["limit_s"]) if "limit_s" in row else "",
                f"**{ratio}**",
                row["mark"],
                _quality(row),
                f"{row['peak_rss_mb']:,}" if row["peak_rss_mb"] else "",
            ]
        )
    return table(head, rows)


def gpu(folder: Path = RESULTS) -> str:
    """A row per stage and peer on a GPU: seconds of both, of one and of all runs, and quality."""
    file = folder / "gpu.json"
    head = [
        "stage",
        "work",
        "beside",
        "ours, s",
        "peer's, s",
        "ratio",
        "all epochs, ours / peer's, s",
        "NDCG@10, ours / peer's",
    ]
    rows = []
    for row in read_rows(file):
        rows.append(
            [
                row["stage"],
                row["work"],
                row["peer"] or "",
                in_seconds(row["ours_s"]),
                in_seconds(row["peer_s"]) if row["peer"] else "",
                f"**{row['ratio']:.2g}**" if row["peer"] else "",
                f"{row['all_s']['ours']:.1f} / {row['all_s']['peer']:.1f}" if row["peer"] else "",
                _quality(row),
            ]
        )
    return table(head, rows)


def lookup(folder: Path = RESULTS) -> str:
    """A row per kind of table and way to read it: median and 95th percentile, and what is touched."""
    head = [
        "table",
        "read by",
        "first in a process, ms",
        "opened anew, ms",
        "open, ms",
        "files touched",
        "row groups touched",
    ]
    rows = []
    for row in read_rows(folder / "lookup.json"):
        states = (row["first"], row["opened"], row["warm"])
        touched = ("files", "row_groups")
        rows.append(
            [
                row["kind"],
                row["way"],
                *(f"{state['median']:.3g} / {state['95th percentile']:.3g}" for state in states),
                *(f"{row[f'{of}_touched']} of {row[of]}" if of in row else "" for of in touched),
            ]
        )
    return table(head, rows)


def eligible(folder: Path = RESULTS) -> str:
    """A row per way to narrow an export: seconds, and their ratio to those of a whole one."""
    report = read_report(folder / "eligible.json")
    rows = [
        [way, f"{seconds:.2f}", f"{report['ratio'][way]:.2f}"]
        for way, seconds in report.get("seconds", {}).items()
    ]
    return table(["export of", "seconds", "ratio"], rows)


def _quality(row: dict[str, Any]) -> str:
    figures = (row["quality_ours"], row["quality_peer"])
    return "" if None in figures else " / ".join(f"{figure:.4f}" for figure in figures)
