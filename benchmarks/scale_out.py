"""What a cluster costs and gives, on this machine: `split` and `export` with one worker and with two, beside the same
tasks without a cluster; and work of known length by workers of known speed.

    python benchmarks/scale_out.py

A Ray cluster is started on this machine; each node gives a core away. Writes `results/scale_out.json` and draws
`results/scale_out.svg`. *Fixed* is what a task takes longer on the cluster where there is next to nothing to do.
Simulated workers wait as long as a real one works on a part, so that there can be more of them than cores. What n of
them need for work of W seconds is fitted by a + b·n + W / n.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import process
from events import write as write_events
from quality import HERE, RESULTS, machine, show_progress
from ray_nodes import Nodes, ray_cluster

from sasrec_tasks import jobs
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.naming import as_names, from_names
from sasrec_tasks.pipeline import TASKS, run_task, start

Report = dict[str, Any]

MEASURED = ("split", "export")
PARTS = 32
"""Of the work of simulated workers."""

MINUTES = 5.0
"""Within which the cluster has to take a job."""

OBJECT_STORE = 3 * 2**30
"""Bytes of each node's, which hold all that is moved."""

SMALL = 10_000
"""Events of the run that has next to nothing to do."""


def main() -> None:
    """Measure, fit and draw."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    arguments.add_argument("--events", type=int, default=20_000_000, help="that are split")
    arguments.add_argument("--users", type=int, default=200_000, help="who get rows, of ten events each")
    arguments.add_argument("--items", type=int, default=20_000)
    arguments.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="of split and export")
    arguments.add_argument("--simulated", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="workers")
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--work", type=Path, default=Path(".demo/scale_out"), help="folder for runs")
    arguments.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    options = arguments.parse_args()
    show_progress()
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    options.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(options.work.resolve(), options.repeats)
    items = min(options.items, 1000)
    small = bench.night("small", events=SMALL, users=SMALL // 10, items=items, upto="gate")
    sizes = {
        "split": {"events": options.events, "users": max(options.events // 50, 10), "items": options.items},
        "export": {"events": 10 * options.users, "users": options.users, "items": options.items},
    }
    large = {task: bench.night(task, **sizes[task], upto=TASKS[TASKS.index(task) - 1]) for task in MEASURED}
    report: Report = {"machine": machine(), "date": datetime.now(UTC).date().isoformat(), "tasks": {}}
    for task in MEASURED:
        report["tasks"][task] = {
            "size": sizes[task],
            "local": bench.seconds(large[task], task),
            "local_small": bench.seconds(small, task),
            "workers": {},
        }
    for workers in options.workers:
        with ray_cluster(workers, object_store_memory=OBJECT_STORE) as nodes:
            by_ray = {"engine": "ray", "ray.address": nodes.address, "ray.workers": workers}
            for task in MEASURED:
                report["tasks"][task]["workers"][workers] = bench.seconds(large[task], task, **by_ray)
                if workers == max(options.workers):
                    report["tasks"][task]["small"] = bench.seconds(small, task, **by_ray)
    for found in report["tasks"].values():
        found["fixed_s"] = round(median(found["small"]) - median(found["local_small"]), 2)
    exported = report["tasks"]["export"]
    one = min(options.workers)
    of_part = max(median(exported["workers"][one]) - exported["fixed_s"], 1.0) * one / PARTS
    with ray_cluster(1, cpus=max(options.simulated)) as nodes:
        points = [
            {"workers": n, "seconds": [bench.simulated(nodes, n, of_part) for _ in range(options.repeats)]}
            for n in options.simulated
        ]
    report["simulated"] = {
        "work_s": round(of_part * PARTS, 2),
        "points": points,
        **fitted(points, of_part * PARTS),
    }
    file = options.out / "scale_out.json"
    file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    draw(report, options.out / "scale_out.svg")
    shutil.rmtree(options.work)


class Bench:
    """Nights, and how long a task of theirs takes."""

    def __init__(self, work: Path, repeats: int) -> None:
        self.work, self.repeats, self._number = work, repeats, 0

    def night(self, name: str, *, events: int, users: int, items: int, upto: str) -> RunStore:
        """A run on made-up interactions, up to a task; its weights have learnt next to nothing."""
        file = self.work / f"{name}.parquet"
        write_events(file, events, users, items)
        settings = {
            "source": str(file),
            "store": f"{self.work}/runs",
            "table": f"{self.work}/table",
            "train.epochs": 1,
            "train.loss": "bce",
            "train.max_minutes": 0.2,
            "gate.force_publish": True,
        }
        store = start(from_names(settings), name)
        for task in TASKS[: TASKS.index(upto) + 1]:
            run_task(task, store.uri)
        return store

    def seconds(self, night: RunStore, task: str, **settings: Any) -> list[float]:
        """Of a task of a run, in processes of its own."""
        return self._repeated(lambda: self._once(night, task, settings))

    def simulated(self, nodes: Nodes, workers: int, seconds: float) -> float:
        """Seconds of a job whose parts take so many each."""
        from ray.job_submission import JobSubmissionClient

        store = self._again("split", self._run("small"), {"ray.workers": workers})
        client = JobSubmissionClient(nodes.address)
        started = time.perf_counter()
        job = f"slow-{self._number}"
        command = ["python", str(HERE / "slow_parts.py"), store.root, str(PARTS), str(seconds)]
        jobs.submit(client, job, command, MINUTES)
        while not client.get_job_status(job).is_terminal():
            if time.perf_counter() - started > 60 * MINUTES:
                raise RuntimeError(f"{job}: has not ended within {MINUTES:g} minutes")
            time.sleep(0.2)
        took = time.perf_counter() - started
        if client.get_job_status(job) != "SUCCEEDED":
            raise RuntimeError(client.get_job_logs(job)[-2000:])
        return took

    def _run(self, name: str) -> RunStore:
        return RunStore(f"{self.work}/runs/{name}")

    def _repeated(self, once: Callable[[], float]) -> list[float]:
        return [round(once(), 3) for _ in range(self.repeats)]

    def _once(self, night: RunStore, task: str, settings: Report) -> float:
        store = self._again(task, night, settings)
        found = process.run(sys.executable, str(HERE / "stages.py"), "task", run=store.uri, name=task)
        shutil.rmtree(store.root)
        seconds: float = found["seconds"][0]
        return seconds

    def _again(self, task: str, night: RunStore, settings: Report) -> RunStore:
        """The same run before a task, with other settings and a table of its own."""
        self._number += 1
        store = RunStore(f"{self.work}/{self._number}/{night.run_id}")
        skipped = shutil.ignore_patterns(*TASKS[TASKS.index(task) :])
        shutil.copytree(night.root, store.root, ignore=skipped)
        places = {"store": f"{self.work}/{self._number}", "table": f"{self.work}/{self._number}/table"}
        return start(from_names({**as_names(night.settings()), **places, **settings}), night.run_id)


def fitted(points: Sequence[Report], work: float) -> Report:
    """a and b of a + b·n + W / n, by least squares, and the n that is fastest by it."""
    workers = np.array([point["workers"] for point in points], dtype=float)
    over = np.array([median(point["seconds"]) for point in points]) - work / workers
    per_worker, fixed = np.polyfit(workers, over, 1) if len(points) > 1 else (0.0, over[0])
    best = (work / per_worker) ** 0.5 if per_worker >= 0.0005 else None  # it is told with three decimals
    return {
        "fixed_s": round(float(fixed), 2),
        "per_worker_s": round(float(per_worker), 3),
        "fastest_workers": None if best is None else round(float(best), 1),
    }


def predicted(simulated: Report, workers: float, work: float | None = None) -> float:
    """Seconds by the fit, for its own work or other."""
    seconds: float = (
        simulated["fixed_s"]
        + simulated["per_worker_s"] * workers
        + (simulated["work_s"] if work is None else work) / workers
    )
    return seconds


def draw(report: Report, file: Path) -> None:
    """Seconds of the tasks, and what more workers give."""
    with mpl.rc_context({"svg.hashsalt": "scale_out", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3}):
        figure, (bars, curve) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
        labels, values = [], []
        for task, found in report["tasks"].items():
            labels += [
                f"{task}\nlocal",
                *(f"{task}\n{n} worker{'s' * (int(n) > 1)}" for n in found["workers"]),
            ]
            values += [median(found["local"]), *(median(each) for each in found["workers"].values())]
        bars.bar(labels, values, color=["#888" if "local" in label else "#3572b0" for label in labels])
        for task, found in report["tasks"].items():
            first, last = (
                labels.index(f"{task}\nlocal"),
                labels.index(f"{task}\nlocal") + len(found["workers"]),
            )
            bars.hlines(found["fixed_s"], first + 0.6, last + 0.4, color="#c44", lw=1.5)
        bars.set(
            ylabel="seconds (red: of which fixed)", title="Tasks on this machine, and on a cluster within it"
        )
        bars.tick_params(axis="x", labelsize=8)
        simulated = report["simulated"]
        workers = [point["workers"] for point in simulated["points"]]
        alone = simulated["work_s"]
        several = np.geomspace(1, 10 * max(workers), 200)
        curve.plot(several, several, color="#888", ls=":", label="no overhead")
        for work, style in ((alone, "-"), (10 * alone, "--"), (100 * alone, "-.")):
            gain = [work / predicted(simulated, n, work) for n in several]
            curve.plot(
                several, gain, color="#3572b0", ls=style, lw=1.4, label=f"fitted, {work:,.0f} s of work"
            )
        gained = [alone / median(point["seconds"]) for point in simulated["points"]]
        curve.plot(workers, gained, "o", color="#3572b0", label="simulated workers")
        exported = report["tasks"]["export"]["workers"]
        real = [alone / median(seconds) for seconds in exported.values()]
        curve.plot([int(n) for n in exported], real, "x", ms=8, mew=2, color="#c44", label="export, measured")
        curve.set(xscale="log", yscale="log", xlabel="workers", ylabel="times as fast as one core")
        curve.set_ylim(bottom=min([0.5, *gained, *real]), top=2 * max(workers) * 10)
        curve.legend(fontsize=7.5, frameon=False)
        figure.suptitle(f"{report['machine']}, {report['date']}", fontsize=9)
        figure.savefig(file, metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
