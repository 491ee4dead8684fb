"""What became of a run so far, and why: from its folder, and from what a scheduler knows beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sasrec_tasks.artifacts import RunStore

Kind = Literal[
    "published", "superseded", "refused", "failed", "waiting", "at work", "not finished", "unknown"
]

LEFT = "The table is left as it is."
ASKS_IN_AIRFLOW = "A person is asked whether to publish: Required Actions in Airflow's menu."
ASKS = "A person is asked whether to publish: sasrec-tasks approve."
KILLED = "no reason was written down. It was killed, ran out of time, or its machine was lost: see its log."


@dataclass(frozen=True, kw_only=True)
class TaskState:
    """What a scheduler knows of a task."""

    state: str | None  # "running", "failed", …; None: not yet scheduled
    tries: int = 0


@dataclass(frozen=True, kw_only=True)
class Scheduled:
    """What a scheduler knows of a run; a run from the command line has none."""

    state: str  # "queued", "running", "success" (Airflow 3.3's word for one that was marked failed, too), "failed"
    tasks: Mapping[str, TaskState] = field(default_factory=dict)
    failure: str = ""  # why the run could not be started

    @property
    def is_at_work(self) -> bool:
        """Whether more is to come."""
        return self.state in ("queued", "running")

    @property
    def waits(self) -> bool:
        """Whether the task that asks a person waits for the answer."""
        asking = self.tasks.get("approve")
        return asking is not None and asking.state in ("awaiting_input", "deferred", "running")

    def named(self, state: str) -> str:
        """Tasks in a state, with commas between."""
        return ", ".join(name for name, task in self.tasks.items() if task.state == state)


@dataclass(frozen=True, kw_only=True)
class Status:
    """What became of a run so far."""

    kind: Kind
    sentence: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What of a run's folder its status hangs on."""

    is_begun: bool  # the settings are there
    tasks: Sequence[str]  # of the run, in order
    summaries: Mapping[str, Mapping[str, Any]]  # of finished tasks
    failure: Mapping[str, Any] | None  # failure.json
    approval: Mapping[str, Any] | None  # approval.json, if it is for these weights

    @property
    def left(self) -> list[str]:
        """Tasks that have not finished."""
        return [task for task in self.tasks if task not in self.summaries]

    @property
    def asks(self) -> Sequence[str]:
        """What a person is asked, and has not answered."""
        asks: Sequence[str] = self.summaries.get("gate", {}).get("asks", ())
        return () if self.approval or "export" not in self.left else asks

    @property
    def reason(self) -> str:
        """Why the last try failed."""
        return (
            f"{self.failure['task']}: {self.failure['reason'] or self.failure['error']}"
            if self.failure
            else ""
        )


def status(store: RunStore, found: Found, scheduled: Scheduled | None) -> Status:
    """What is at work comes first, then what went wrong, then what was done."""
    if scheduled and scheduled.is_at_work:
        return _at_work(found, scheduled)
    if not found.is_begun:
        return Status(kind="unknown", sentence="The run's folder is not there any more; old ones are pruned.")
    if found.asks and (not found.failure or found.failure["task"] == "export"):
        return Status(kind="waiting", sentence=ASKS, reason="; ".join(found.asks))
    if found.failure:
        ended = f"{LEFT} The run ended at {found.failure['task']}."
        return Status(kind=found.failure["ending"], sentence=ended, reason=found.reason)
    if not found.left:
        return _exported(found.summaries["export"])
    if scheduled and (scheduled.state == "failed" or scheduled.named("failed")):
        failed = scheduled.named("failed") or found.left[0]
        return Status(kind="failed", sentence=LEFT, reason=f"{failed}: {KILLED}")
    if store.is_at_work():
        return Status(kind="at work", sentence=f"At work on this machine: {found.left[0]}.")
    if scheduled:  # no task has failed: they, or the run, were marked
        sentence = f"{LEFT} Airflow calls the run a {scheduled.state}, but {found.left[0]} has not finished."
    else:
        sentence = f"Next is {found.left[0]}; whether it is at work can't be seen from the run's folder."
    return Status(kind="not finished", sentence=sentence)


def unread(scheduled: Scheduled, problem: str) -> Status:
    """The status of a run whose folder can't be read from here."""
    sentence = f"Airflow says: {scheduled.state}. The run's folder could not be read."
    return Status(kind="at work" if scheduled.is_at_work else "unknown", sentence=sentence, reason=problem)


def not_begun(scheduled: Scheduled) -> Status:
    """The status of a run that has no folder."""
    if scheduled.is_at_work:
        return Status(kind="at work", sentence="The run has no folder yet.", reason=scheduled.failure)
    reason = scheduled.failure or f"{scheduled.named('failed') or 'ingest'}: {KILLED}"
    return Status(kind="failed", sentence=f"{LEFT} The run ended before it had a folder.", reason=reason)


def _at_work(found: Found, scheduled: Scheduled) -> Status:
    if found.asks and scheduled.waits:
        return Status(kind="waiting", sentence=ASKS_IN_AIRFLOW, reason="; ".join(found.asks))
    running = scheduled.named("running")
    return Status(
        kind="at work",
        sentence=f"At work: {running}." if running else "The next task is about to begin.",
        reason=f"The last try failed. {found.reason}" if found.reason else "",
    )


def _exported(export: Mapping[str, Any]) -> Status:
    if export["published"]:
        return Status(kind="published", sentence=f"Version {export['version']} of {export['table']}.")
    sentence = (
        f"{export['table']} holds a later as_of and was left as it is; the rows are in the run's folder."
    )
    return Status(kind="superseded", sentence=sentence)
