"""How seconds and memory grow with the data, as Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tables.markdown import RESULTS, Report, in_seconds, read_report, table


def growth(folder: Path = RESULTS) -> str:
    """A row per task: seconds, memory and events an hour at the largest size, and the slope over each axis."""
    axes = read_report(folder / "scaling.json").get("axes", {})
    head = ["task", "events", "seconds", "events an hour", "peak MB"]
    rows = []
    for task in _tasks(axes):
        events, largest = _of_task(axes["events"], "events", task)[-1]
        rows.append(
            [
                task,
                f"{events:,}",
                in_seconds(largest["seconds"]),
                f"{events / largest['seconds'] * 3.6e-3:,.0f} million",
                f"{largest['peak_rss_mb']:,}",
                *(_growing(axes[axis], axis, task, "seconds") for axis in axes),
            ]
        )
    return table([*head, *(f"slope over {axis}" for axis in axes)], rows)


def growth_of_memory(folder: Path = RESULTS) -> str:
    """A row per task: megabytes at the smallest and the largest size of each axis, and the slope."""
    axes = read_report(folder / "scaling.json").get("axes", {})
    rows = []
    for task in _tasks(axes):
        cells = []
        for axis, points in axes.items():
            (_, first), *_, (_, last) = _of_task(points, axis, task)
            found = _growing(points, axis, task, "peak_rss_mb")
            cells.append(
                f"{first['peak_rss_mb']:,} → {last['peak_rss_mb']:,}" + (f" ({found})" if found else "")
            )
        rows.append([task, *cells])
    return table(["task", *(f"over {axis}" for axis in axes)], rows)


def slope(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """Exponent of growth of what comes on top of the smallest size's value, over what comes on top of its size.

    So neither what a process needs to start with nor the part that does not depend on the size counts as growth.
    Beyond the last three, points of less than a hundredth of the last one's are left out, as noise. None: the last
    is less than a fifth more than the first, which is no growth; a value is well below an earlier one, which is no
    line; or there are too few points for one.
    """
    if len(sizes) < 2 or values[-1] < 1.2 * values[0]:
        return None
    if any(value < 0.8 * max(values[: n + 1]) for n, value in enumerate(values)):
        return None
    more = [(size - sizes[0], value - values[0]) for size, value in zip(sizes, values, strict=True)]
    noise = more[-1][1] / 100
    kept = [(size, value) for size, value in more[1:-3] if value > noise] + [
        (size, value) for size, value in more[1:][-3:] if value > 0
    ]
    if len(kept) < 3:
        return None
    x, y = np.log(np.array(kept)).T
    return float(np.polyfit(x, y, 1)[0])


def _tasks(axes: Report) -> list[str]:
    return list(dict.fromkeys(name for point in axes.get("events", []) for name in point["tasks"]))


def _of_task(points: list[Report], axis: str, task: str) -> list[tuple[int, Report]]:
    return [(point["size"][axis], point["tasks"][task]) for point in points if task in point["tasks"]]


def _growing(points: list[Report], axis: str, task: str, what: str) -> str:
    known = _of_task(points, axis, task)
    found = slope([size for size, _ in known], [of[what] for _, of in known])
    return "" if found is None else f"{found:.2f}"
