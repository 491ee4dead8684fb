"""Nights in a folder whose every step can be broken."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import fault_state
import pyarrow as pa
import pyarrow.parquet as pq
from fault_harness import Outcome, Point, Processes, Saved

from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.naming import from_names
from sasrec_tasks.pipeline import tasks_of

SETTINGS: dict[str, Any] = {
    "train.epochs": 2,
    "train.hidden_units": 16,
    "train.max_len": 20,
    "train.learning_rate": 0.01,
    "train.device": "cpu",
    "evaluate.bootstrap_samples": 100,
    "gate.force_publish": True,
    "prune.keep_versions": 2,
    "prune.keep_days": 0,
    "prune.keep_runs_days": 2,
}
NIGHTS = {"older": "2026-01-01", "yesterday": "2026-01-02", "tonight": "2026-01-03", "rival": "2026-01-03"}
START, PRUNE, ROLLBACK, FORGET = "start", "prune", "rollback", "forget"
FORGOTTEN = "user 9"


class Kept(Protocol):
    """A state that can be put back."""

    def restore(self) -> None:
        """Put it back."""
        ...

    def forget(self) -> None:
        """Keep it no longer."""
        ...


class Elsewhere(Protocol):
    """What of a night lies outside of its folder, such as a database."""

    def keep(self) -> Kept:
        """Keep it as it is now."""
        ...

    def listing(self) -> list[str]:
        """Names of what there is."""
        ...


class Night:
    """Some nights are published, and tonight's steps are done one by one, each from what it begins with.

    Args:
        tables: their URLs, `{folder}` for the folder.
        earlier: the nights that are published before.
        settings: others than the usual ones.
    """

    def __init__(
        self,
        folder: Path,
        processes: Processes,
        tables: Sequence[str],
        *,
        earlier: Sequence[str] = ("older", "yesterday"),
        elsewhere: Elsewhere | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        folder.mkdir()
        self.folder, self.processes, self.earlier = folder, processes, earlier
        self.tables = [table.format(folder=folder) for table in tables]
        self.settings = SETTINGS | {
            "source": f"{folder}/source.parquet",
            "store": f"{folder}/runs",
            "table": ", ".join(self.tables),
            "export.eligible_items": f"{folder}/eligible.parquet",
            "metrics.textfile": f"{folder}/figures/sasrec.prom",
            **(settings or {}),
        }
        self.elsewhere = elsewhere
        self.watch = [str(folder), *(["socket:["] if elsewhere else [])]
        self.saved: dict[str, list[Kept]] = {}
        self.points: dict[str, tuple[Point, ...]] = {}
        self.after: dict[str, fault_state.State] = {}

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of a run, in order."""
        return tasks_of(from_names(self.settings))

    @property
    def steps(self) -> tuple[str, ...]:
        """All that is done, in order."""
        return (START, *self.tasks, PRUNE, ROLLBACK, FORGET)

    def run_folder(self, run_id: str = "tonight") -> Path:
        """Of one of the nights."""
        return self.folder / "runs" / run_id

    def run_url(self, run_id: str) -> str:
        """URL of one of the runs, as tasks are given it."""
        return str(self.run_folder(run_id))

    def call(self, call: str, *arguments: Any, processes: Processes | None = None, **faults: Any) -> Outcome:
        """Make a call in a process of its own, all of whose changes to the folder are points."""
        faults = {"watch": self.watch, "environment": {"TMPDIR": f"{self.folder}/tmp"}} | faults
        return (processes or self.processes).run(call, *arguments, **faults)

    def step(self, step: str, run_id: str = "tonight", **faults: Any) -> Outcome:
        """Do a step in a process of its own."""
        if step == START:
            values = self.settings | {
                "as_of": NIGHTS[run_id],
                "train.random_state": list(NIGHTS).index(run_id),
            }
            return self.call("fault_calls:start", values, run_id, **faults)
        if step == ROLLBACK:
            return self.call("fault_calls:roll_back", self.settings["table"], "yesterday", **faults)
        if step == FORGET:
            places = self.settings["table"], self.settings["store"]
            return self.call("fault_calls:forget", FORGOTTEN, *places, **faults)
        return self.call("sasrec_tasks.pipeline:run_task", step, self.run_url(run_id), **faults)

    def well(self, step: str, run_id: str = "tonight", **faults: Any) -> Outcome:
        """Do a step, which must end well."""
        outcome = self.step(step, run_id, **faults)
        assert outcome.status == 0, f"{step}: {outcome.status}: {outcome.log}"
        assert not outcome.error, f"{step}: {outcome.log}"
        return outcome

    def prepare(self, events: pa.Table, upto: str = FORGET, *, of: Collection[str] | None = None) -> None:
        """Publish the earlier nights, then do tonight's steps, and keep what each began with and led to.

        Args:
            of: the steps that are to be broken; None is all.
        """
        self.write(events)
        items = events["ITEM_ID"].unique().slice(0, 50)
        pq.write_table(pa.table({"ITEM_ID": items}), self.settings["export.eligible_items"])
        for name in ("figures", "tmp"):
            (self.folder / name).mkdir()
        for run_id in self.earlier:
            for step in (START, *self.tasks):
                self.well(step, run_id, watch=None)
            fault_state.age(self.folder, 100)
        for step in self.steps[: self.steps.index(upto) + 1]:
            if of is not None and step not in of:
                self.well(step, watch=None)
                continue
            self.saved[step] = self.keep()
            self.points[step] = self.well(step).points
            self.after[step] = self.state()

    def write(self, events: pa.Table) -> None:
        """Put the interactions where the runs read them."""
        pq.write_table(events, self.settings["source"])

    def keep(self) -> list[Kept]:
        """Keep all as it is now."""
        return [Saved(self.folder), *([self.elsewhere.keep()] if self.elsewhere else [])]

    def restore(self, step: str) -> None:
        """Make all what it was before a step."""
        for kept in self.saved[step]:
            kept.restore()

    def served(self) -> list[Any]:
        """What a consumer reads of each table."""
        return [fault_state.served(table) for table in self.tables]

    def state(self, *, last: bool = False) -> fault_state.State:
        """All that may be compared of two ways to the same end.

        Files are those that are there when, days later, what is left over was pruned.

        Args:
            last: nothing more is done from here, and so nothing need be put back.
        """
        folders = sorted((self.folder / "runs").glob("[a-z]*"))
        runs = [RunStore(str(folder)) for folder in folders]
        found = {
            "artifacts": {run.run_id: fault_state.artifacts(Path(run.root)) for run in runs},
            "served": self.served(),
        }
        before = [] if last else self.keep()
        fault_state.age(self.folder, 3)
        if self.run_folder().exists():
            self.well(PRUNE, watch=None)
        found["files"] = fault_state.listing(self.folder)
        if self.elsewhere:
            found["elsewhere"] = self.elsewhere.listing()
        for kept in before:
            kept.restore()
            kept.forget()
        return found
