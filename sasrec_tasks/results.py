"""What came of a finished task, in a few words: for its log, the terminal and the report."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

RESULTS = {
    "ingest": "{rows:,} rows in {files:,} file(s)",
    "validate": "{rejected:,} of {rows:,} rows rejected",
    "split": "{events:,} events of {users:,} users and {items:,} items",
    "train": "best epoch {best_epoch} of {epochs}, on {device}",
    "evaluate": "{users_evaluated:,} users",
    "refit": "{epochs} epochs on all {events:,} events, on {device}",
    "export": "{rows:,} rows for {users:,} users",
}
"""Task → its result, from its summary; of `gate`, see `result_of`."""

COUNTED = {
    "ingest": ("rows", "rows"),
    "validate": ("rows", "rows"),
    "split": ("events", "events"),
    "evaluate": ("users_evaluated", "users"),
    "export": ("rows", "rows"),
}
"""Task → what of its summary it has done so many of a second, and what that is; of a training, the log says it."""

FILES = {
    "ingest": "manifest.json",
    "validate": "report.json",
    "train": "model.safetensors",
    "evaluate": "metrics.json",
    "gate": "verdict.json",
    "refit": "model.safetensors",
    "export": "export.json",
}
"""Task → the file of its folder that one looks for first."""


def result_of(task: str, summary: Mapping[str, Any]) -> str:
    """What came of a finished task; nothing of what is no task of a run."""
    if task == "gate":
        verdict = (
            "forced"
            if summary["forced"]
            else "asks for approval"
            if summary["asks"]
            else "passed"
            if summary["publish"]
            else "refused"
        )
        return f"{verdict}, {'champion ' + summary['champion'] if summary['champion'] else 'no champion yet'}"
    return RESULTS.get(task, "").format(**summary)


def closing_line(
    task: str, summary: Mapping[str, Any], *, seconds: float, peak_mb: int | None, folder: str
) -> str:
    """The last line of a task's log: what came of it, how long it took, and where that is.

    What a summary does not say is left out: the work is done, and no line of a log fails it.

    Args:
        folder: the task's, as people name it.
    """
    result, cost = "", [f"{seconds:,.1f} s"]
    with suppress(KeyError):
        result = result_of(task, summary)
        name, unit = COUNTED[task]
        cost.append(f"{summary[name] / max(seconds, 0.001):,.0f} {unit}/s")
    if peak_mb is not None:
        cost.append(f"at most {peak_mb:,} MB of memory")
    place = f"{folder}/{FILES[task]}" if task in FILES else folder
    return f"{task}: {'; '.join(filter(None, (result, ', '.join(cost), place)))}"
