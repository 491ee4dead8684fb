"""What a report tells of a run: read from the small files of its folder, whatever is there so far."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from sasrec_tasks import checksums, drift
from sasrec_tasks.approval import APPROVAL
from sasrec_tasks.artifacts import MARKER, SETTINGS, Marker, RunStore, as_marker
from sasrec_tasks.config import Settings
from sasrec_tasks.contents import EXAMPLES, EXPORT, HISTORY, METRICS, REPORT, VERDICT
from sasrec_tasks.drift import NAMES
from sasrec_tasks.failures import FAILURE
from sasrec_tasks.naming import as_names
from sasrec_tasks.pipeline import REFIT, TASKS
from sasrec_tasks.report.status import Found, Scheduled, Status, TaskState, not_begun, status, unread
from sasrec_tasks.results import result_of

READ = (
    ("validate", REPORT),
    ("train", HISTORY),
    ("evaluate", METRICS),
    ("gate", VERDICT),
    ("gate", EXAMPLES),
    ("export", EXPORT),
    ("export", EXAMPLES),
)
"""The files of finished tasks that a report needs; none grows with the data."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One row of the table of tasks."""

    name: str
    state: str
    seconds: float | None = None
    peak_mb: int | None = None
    tries: int | None = None
    result: str = ""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A mean over users, and its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """One row of the metrics: whose they are, and protocol → metric → figure."""

    name: str
    figures: Mapping[str, Mapping[str, Figure]]
    run_id: str = ""  # of the champion


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """A run; what it has not come to is None, or empty."""

    run_id: str
    uri: str
    status: Status
    tasks: Sequence[Task]
    settings: Mapping[str, Any]
    changed: Mapping[str, Any]  # settings that are not their default
    protocol: str  # the ranking that is served
    source: Mapping[str, Any] | None = None  # the summary of `ingest`
    checked: Mapping[str, Any] | None = None  # the summary of `validate`
    profile: Sequence[Mapping[str, Any]] = ()  # figure, value, low, high, factor
    rejected: Mapping[str, Any] | None = None  # reasons, examples
    split: Mapping[str, Any] | None = None  # the summary of `split`
    training: Mapping[str, Any] | None = None  # the summary of `train`
    history: Mapping[str, list[Any]] | None = None  # epoch, loss, metric, seconds
    metrics: Mapping[str, Any] | None = None
    ages: Sequence[Mapping[str, Any]] = ()  # of the metrics by age of the item, the buckets that hold any
    scorers: Sequence[Scorer] = ()
    verdict: Mapping[str, Any] | None = None
    approval: Mapping[str, Any] | None = None
    examples: Sequence[Mapping[str, Any]] = ()
    examples_by: str = ""  # the task that made them
    export: Mapping[str, Any] | None = None  # the summary of `export`

    @property
    def seconds(self) -> float:
        """Of all finished tasks."""
        return sum(task.seconds or 0 for task in self.tasks)

    @property
    def longest(self) -> float:
        """Seconds of the longest task."""
        return max((task.seconds or 0 for task in self.tasks), default=0)

    @property
    def peak_mb(self) -> int | None:
        """Of the largest task."""
        return max((task.peak_mb for task in self.tasks if task.peak_mb), default=None)


def read(store: RunStore, scheduled: Scheduled | None = None) -> RunReport:
    """The report of a run.

    Args:
        scheduled: what a scheduler knows of it beside.

    Raises:
        OSError: the store can't be read.
        ValueError: a file of the run is none of this package's.
    """
    names = [SETTINGS, FAILURE, APPROVAL, *(f"{task}/{MARKER}" for task in (*TASKS, REFIT))]
    found = store.read_files([*names, *(f"{task}/{name}" for task, name in READ)])
    settings = checksums.checked(found.get(SETTINGS, b"{}"))
    before = TASKS.index("export")
    tasks = (*TASKS[:before], REFIT, *TASKS[before:]) if settings.get("refit.enabled") else TASKS
    markers = {task: as_marker(found[f"{task}/{MARKER}"]) for task in tasks if f"{task}/{MARKER}" in found}
    files = {
        (task, name): whole
        for task, name in READ
        if task in markers and (whole := _whole(markers[task], name, found.get(f"{task}/{name}"))) is not None
    }

    def value(task: str, name: str) -> Any:
        return json.loads(files[task, name]) if (task, name) in files else None

    summaries = {task: marker.summary for task, marker in markers.items()}
    metrics, verdict = value("evaluate", METRICS), value("gate", VERDICT)
    failure = json.loads(found[FAILURE]) if FAILURE in found else None
    approval = json.loads(found[APPROVAL]) if APPROVAL in found else None
    if approval and verdict and (approval["model"], approval["asks"]) != (verdict["model"], verdict["asks"]):
        approval = None  # of other weights
    defaults = as_names(Settings())
    by = "export" if ("export", EXAMPLES) in files else "gate"
    return RunReport(
        run_id=store.run_id,
        uri=store.uri,
        status=status(
            store,
            Found(
                is_begun=bool(settings), tasks=tasks, summaries=summaries, failure=failure, approval=approval
            ),
            scheduled,
        ),
        tasks=_tasks(tasks, markers, failure, scheduled),
        settings=settings,
        changed={name: value for name, value in settings.items() if defaults.get(name) != value},
        protocol="full" if settings.get("export.exclude_seen", True) else "full_with_seen",
        source=summaries.get("ingest"),
        checked=summaries.get("validate"),
        profile=_profile(summaries.get("validate") or {}),
        rejected=value("validate", REPORT),
        split=summaries.get("split"),
        training=summaries.get("train"),
        history=pq.read_table(io.BytesIO(files["train", HISTORY])).to_pydict()
        if ("train", HISTORY) in files
        else None,
        metrics=metrics,
        ages=[bucket for bucket in (metrics or {}).get("by_item_age", ()) if bucket["items"]],
        scorers=_scorers(metrics, verdict),
        verdict=verdict,
        approval=approval,
        examples=value(by, EXAMPLES) or (),
        examples_by=by,
        export=summaries.get("export"),
    )


def without_folder(run_id: str, scheduled: Scheduled, problem: str = "") -> RunReport:
    """The report of a run that has no folder, since it failed before it had one or is about to begin.

    Args:
        problem: why the folder that it has can't be read.
    """
    return RunReport(
        run_id=run_id,
        uri="",
        status=unread(scheduled, problem) if problem else not_begun(scheduled),
        tasks=_tasks(TASKS, {}, None, scheduled),
        settings={},
        changed={},
        protocol="full",
    )


def _whole(marker: Marker, name: str, content: bytes | None) -> bytes | None:
    """A file's content if it is what the task wrote: not damaged, and not of a try that is committing now."""
    if content is None or name not in marker.files:
        return None
    return content if hashlib.sha256(content).hexdigest() == marker.files[name]["sha256"] else None


def _tasks(
    own: Sequence[str],
    markers: Mapping[str, Marker],
    failure: Mapping[str, Any] | None,
    scheduled: Scheduled | None,
) -> list[Task]:
    """The run's tasks, then what a scheduler runs beside them."""
    known = scheduled.tasks if scheduled else {}
    others = [name for name in known if name not in own]
    return [_task(name, markers.get(name), failure, known.get(name)) for name in (*own, *others)]


def _task(
    name: str, marker: Marker | None, failure: Mapping[str, Any] | None, known: TaskState | None
) -> Task:
    state = "done" if marker else "not begun"
    if known:
        state = "done" if known.state == "success" else (known.state or "not begun").replace("_", " ")
    if failure and failure["task"] == name and (known is None or known.state == "failed"):
        state = failure["ending"]  # refused, rather than failed
    return Task(
        name=name,
        state=state,
        seconds=marker.seconds if marker else None,
        peak_mb=marker.peak_rss_mb if marker else None,
        tries=known.tries if known else None,
        result=result_of(name, marker.summary) if marker else "",
    )


def _profile(checked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Tonight's figures beside what was usual, where nights before are known."""
    usual = {each.figure: each for each in drift.of(checked)} if "drift" in checked else {}
    tonight: dict[str, float] = dict(checked.get("profile") or {})
    return [
        {
            "name": NAMES.get(name, name),
            "value": value,
            "low": usual[name].low if name in usual else None,
            "high": usual[name].high if name in usual else None,
            "factor": usual[name].factor if name in usual else None,
        }
        for name, value in tonight.items()
    ]


def _scorers(metrics: Mapping[str, Any] | None, verdict: Mapping[str, Any] | None) -> list[Scorer]:
    """The model, the champion on the same items, and the baselines."""
    if not metrics:
        return []
    champion = (verdict or {}).get("champion")
    of = {"this run": metrics}
    if champion:
        of["champion"] = champion["metrics"]
    of |= {name.replace("_", " "): figures for name, figures in reversed(metrics["baselines"].items())}
    return [
        Scorer(
            name=name,
            run_id=champion["run_id"] if champion and name == "champion" else "",
            figures={
                protocol: {
                    metric: Figure(value=figures[protocol][metric], low=low, high=high)
                    for metric, (low, high) in figures[protocol]["ci95"].items()
                }
                for protocol in ("full", "full_with_seen", "sampled")
                if protocol in figures
            },
        )
        for name, figures in of.items()
    ]
