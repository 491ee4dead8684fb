"""The last run's figures as a text file, for the textfile collector of Prometheus's node_exporter.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sasrec_tasks import files, filesystem
from sasrec_tasks.tables import Published

log = logging.getLogger(__name__)

Sample = tuple[Mapping[str, str], float | None]

HELP = {
    "sasrec_run_info": "The last run that came to an end: its id, ending and last task.",
    "sasrec_run_published": "Whether the last run published: 1 or 0.",
    "sasrec_run_finished_timestamp_seconds": "When the last run came to its end.",
    "sasrec_run_as_of_timestamp_seconds": "The last run read events before this moment.",
    "sasrec_run_seconds": "Seconds of work of the last run, of all its tasks.",
    "sasrec_run_rows": "Rows of the source.",
    "sasrec_run_rejected_rows": "Rows that were set aside.",
    "sasrec_run_events": "Events after validation.",
    "sasrec_run_users": "Users.",
    "sasrec_run_items": "Items.",
    "sasrec_run_hr_at_10": "HR@10 of the ranking that is served, on the test items.",
    "sasrec_run_ndcg_at_10": "NDCG@10 of the ranking that is served, on the test items.",
    "sasrec_run_popularity_ndcg_at_10": "NDCG@10 of popularity on the same items.",
    "sasrec_task_seconds": "Seconds of work of a task of the last run.",
    "sasrec_task_peak_bytes": "The most memory that a task's process held.",
    "sasrec_table_version": "Version of the table that is served.",
    "sasrec_table_as_of_timestamp_seconds": "What is served was made of events before this moment.",
}

OF_ROW = {
    "sasrec_run_seconds": "SECONDS",
    "sasrec_run_rows": "ROWS",
    "sasrec_run_rejected_rows": "REJECTED",
    "sasrec_run_events": "EVENTS",
    "sasrec_run_users": "USERS",
    "sasrec_run_items": "ITEMS",
    "sasrec_run_hr_at_10": "HR",
    "sasrec_run_ndcg_at_10": "NDCG",
    "sasrec_run_popularity_ndcg_at_10": "POPULARITY_NDCG",
}
"""Metric → column of the table of runs."""


def write(file: str, row: Mapping[str, Any], table: str, served: Published | None) -> None:
    """Replace the file in one step; a failure is a warning, as the run stands whatever becomes of it.

    Args:
        file: a path that ends in `.prom`; hidden files beside it are not the collector's.
        row: of the table of runs.
        table: what is published to, the label of all samples.
        served: the newest publish.
    """
    try:
        if not file.endswith(".prom"):
            raise ValueError("the collector reads files that end in .prom")
        fs, path = filesystem.opened(file, "metrics.textfile")
        files.replace(fs, path, as_text(row, table, served).encode())
        if files.is_local(fs):
            Path(path).chmod(0o644)  # another user's process reads it
    except (OSError, ValueError) as error:
        log.warning("metrics.textfile=%r: can't be written: %s", file, error)


def as_text(row: Mapping[str, Any], table: str, served: Published | None) -> str:
    """The text format: of each metric its help, its type, and its samples; what is not known is left out."""
    lines: list[str] = []
    for name, samples in _metrics(row, served):
        known = [(labels, value) for labels, value in samples if value is not None]
        if known:
            lines += [f"# HELP {name} {HELP[name]}", f"# TYPE {name} gauge"]
            lines += [
                f"{name}{_labels({'table': table, **labels})} {float(value)!r}" for labels, value in known
            ]
    return "\n".join([*lines, ""])


def _metrics(row: Mapping[str, Any], served: Published | None) -> Iterator[tuple[str, list[Sample]]]:
    yield (
        "sasrec_run_info",
        [({"run_id": row["RUN_ID"], "ending": row["ENDING"], "task": row["TASK"]}, 1)],
    )
    yield "sasrec_run_published", [({}, row["ENDING"] == "published")]
    yield "sasrec_run_finished_timestamp_seconds", [({}, _seconds(row["FINISHED_AT"]))]
    yield "sasrec_run_as_of_timestamp_seconds", [({}, _seconds(row["AS_OF"]))]
    for name, column in OF_ROW.items():
        yield name, [({}, row[column])]
    tasks = json.loads(row["TASKS"])
    yield "sasrec_task_seconds", [({"task": task}, each["seconds"]) for task, each in tasks.items()]
    yield (
        "sasrec_task_peak_bytes",
        [({"task": task}, each["peak_mb"] and each["peak_mb"] * 1e6) for task, each in tasks.items()],
    )
    if served:
        yield "sasrec_table_version", [({}, served.version)]
        yield "sasrec_table_as_of_timestamp_seconds", [({}, _seconds(served.as_of))]


def _seconds(moment: datetime) -> float:
    return moment.timestamp()


def _labels(labels: Mapping[str, str]) -> str:
    escaped = {
        name: value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        for name, value in labels.items()
    }
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped.items()) + "}"
