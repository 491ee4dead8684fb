"""What the harness calls in the processes that it kills, where the package's own functions take no JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sasrec_tasks import forget as forgetting
from sasrec_tasks import pipeline, prune, rollback
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.config import Prune
from sasrec_tasks.naming import from_names
from sasrec_tasks.tables import Recommendations


def start(values: dict[str, Any], run_id: str) -> str:
    """Start a run; its URL."""
    return pipeline.start(from_names(values), run_id).uri


def run_all(run: str) -> dict[str, Any]:
    """All tasks of a run, and `prune`."""
    return pipeline.run_all(RunStore(run))


def roll_back(table: str, run_id: str = "") -> dict[str, Any]:
    """Serve an earlier publish again."""
    return rollback.roll_back(table, run_id=run_id)


def prune_at(table: str, store: str, settings: dict[str, Any], moment: str) -> dict[str, Any]:
    """Prune as if it were another time, in ISO 8601."""
    now = datetime.fromisoformat(moment).astimezone(UTC)
    return prune.prune(table, store, Prune(**settings), now=now).as_dict()


def forget(user: str, table: str, store: str) -> None:
    """Forget a user; nothing may be found of them afterwards."""
    report = forgetting.forget([user], table=table, store=store)
    if report.searched.found or any(cleaned.discarded for cleaned in report.runs):
        raise AssertionError(str(report))


def read(table: str) -> dict[str, Any]:
    """What a consumer gets who reads all of the newest version."""
    recommendations = Recommendations(table)
    rows = recommendations.to_pandas()
    return {
        "version": recommendations.version,
        "run_id": recommendations.run_id,
        "runs": sorted(rows["RUN_ID"].unique()),
        "rows": len(rows),
        "popular": sorted(recommendations.popular()["RUN_ID"].unique()),
    }


def run_from(run: str, first: str) -> None:
    """The tasks of a run from one of them on."""
    tasks = pipeline.tasks_of(RunStore(run).settings())
    for task in tasks[tasks.index(first) :]:
        pipeline.run_task(task, run)
