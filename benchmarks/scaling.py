"""How seconds and memory of each task grow with events, users, items and the length that the model reads.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --one 20_000_000 1_000_000 1_000_000

Whole runs on made-up interactions (`events.py`), one epoch of training each, every task in a process of its
own. Writes `results/scaling.json` and draws `results/scaling.svg`, on log axes, with the slope of what comes on
top of the smallest size's figure (`tables.slope`): 1 is linear. With `--one`, a single run of so many events, users and
items goes to `results/scaling.one.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

sys.path.insert(0, str(Path(__file__).parent))
import events
import process
from quality import HERE, RESULTS, machine, show_progress
from tables import slope

from sasrec_tasks.pipeline import TASKS

Report = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Size:
    """Of the interactions, and of the model."""

    events: int = 1_000_000
    users: int = 20_000
    items: int = 10_000
    max_len: int = 50


def by_events(largest: int) -> list[Size]:
    """Fifty events a user."""
    sizes = [10**4, 10**5, 10**6, 10**7, 5 * 10**7]
    return [Size(events=n, users=n // 50) for n in sizes if n <= largest]


def by_users(largest: int) -> list[Size]:
    """The same events, of few users with long histories up to many with five each."""
    base = _base(largest)
    return [replace(base, users=base.events // n) for n in (500, 100, 20, 5)]


def by_items(largest: int) -> list[Size]:
    """Of twice as many events as elsewhere, by few users: to rank a million items takes a while for each."""
    base = _base(largest, 2 * Size.events)
    base = replace(base, users=base.users // 10)
    return [replace(base, items=n) for n in (10**3, 10**4, 10**5, 10**6) if 2 * n <= base.events]


def by_max_len(largest: int) -> list[Size]:
    """Five times as many events a user, so that long histories are there to be read."""
    base = _base(largest)
    return [replace(base, users=base.users // 5, max_len=n) for n in (25, 50, 100, 200)]


def _base(largest: int, most: int = Size.events) -> Size:
    events = min(most, largest)
    return Size(events=events, users=events // 50)


AXES = {"events": by_events, "users": by_users, "items": by_items, "max_len": by_max_len}
LABELS = {
    "events": "events",
    "users": "users (of the same events)",
    "items": "items",
    "max_len": "items read of a history (max_len)",
}


def main() -> None:
    """Measure the axes asked for, and draw what is in the file."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--axes", nargs="*", default=list(AXES), choices=list(AXES))
    arguments.add_argument("--largest", type=int, default=50_000_000, help="events")
    arguments.add_argument(
        "--trained", type=int, default=10_000_000, help="events up to which tasks after split run"
    )
    arguments.add_argument("--one", type=int, nargs=3, metavar=("EVENTS", "USERS", "ITEMS"))
    arguments.add_argument("--test-users", type=int, help="measured ones of --one")
    arguments.add_argument("--work", type=Path, default=Path(".demo/scaling"), help="folder for runs")
    arguments.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    options = arguments.parse_args()
    show_progress()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.one:
        number, users, items = options.one
        one(Size(events=number, users=users, items=items), options.test_users, options.work, options.out)
        return
    file = options.out / "scaling.json"
    report: Report = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"axes": {}}
    for axis in options.axes:
        points = report["axes"][axis] = []
        for size in AXES[axis](options.largest):
            tasks = TASKS if size.events <= options.trained else TASKS[: TASKS.index("train")]
            points.append({"size": asdict(size), "tasks": measured(size, tasks, options.work.resolve())})
            print(axis, getattr(size, axis), "done", flush=True)
        report |= {"date": datetime.now(UTC).date().isoformat(), "machine": machine()}
        file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    draw(report, options.out / "scaling.svg")


def one(size: Size, test_users: int | None, work: Path, out: Path) -> None:
    """A single run."""
    settings = {"evaluate.test_users": test_users}
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "cores": os.cpu_count(),
        "size": asdict(size),
        "settings": settings,
        "tasks": measured(size, TASKS, work.resolve(), settings),
    }
    (out / "scaling.one.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def measured(size: Size, tasks: tuple[str, ...], work: Path, more: Mapping[str, Any] | None = None) -> Report:
    """Seconds, peak memory, and bytes that are left, of the tasks of one run."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    events.write(
        work / "events.parquet",
        size.events,
        size.users,
        size.items,
        every_item=size.events >= 2 * size.items,
    )
    stages = str(HERE / "stages.py")
    settings = {
        "source": str(work / "events.parquet"),
        "store": f"{work}/runs",
        "table": f"{work}/table",
        "train.epochs": 1,
        "train.max_len": size.max_len,
        "gate.force_publish": True,
        **(more or {}),
    }
    run = process.run(sys.executable, stages, "start", settings=settings, run="run")["run"]
    found = {}
    for name in tasks:
        result = process.run(sys.executable, stages, "task", run=run, name=name)
        left = [work / "runs" / "run" / name, *([work / "table"] if name == "export" else [])]
        found[name] = {
            "seconds": round(result["seconds"][0], 3),
            "peak_rss_mb": result["peak_rss_mb"],
            "bytes": sum(f.stat().st_size for folder in left for f in folder.rglob("*") if f.is_file()),
        }
        print(name, found[name], flush=True)
    shutil.rmtree(work)
    return found


def draw(report: Report, file: Path) -> None:
    """A row per axis: seconds, and memory."""
    with mpl.rc_context({"svg.hashsalt": "scaling", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3}):
        axes = [axis for axis in AXES if axis in report["axes"]]
        figure, cells = plt.subplots(
            len(axes), 2, figsize=(11, 3.1 * len(axes)), squeeze=False, layout="constrained"
        )
        for row, axis in zip(cells, axes, strict=True):
            points = report["axes"][axis]
            for cell, what, label in zip(
                row, ("seconds", "peak_rss_mb"), ("seconds", "peak memory, MB"), strict=True
            ):
                for task in TASKS:
                    known = [point for point in points if task in point["tasks"]]
                    sizes = [point["size"][axis] for point in known]
                    values = [point["tasks"][task][what] for point in known]
                    found = slope(sizes, values)
                    cell.plot(sizes, values, marker="o", ms=3.5, lw=1.4,
                              label=task + ("" if found is None else f"  (slope {found:.2f})"))  # fmt: skip
                cell.set(xscale="log", yscale="log", xlabel=LABELS[axis], ylabel=label)
                cell.legend(fontsize=7.5, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
        figure.suptitle(
            f"Growth of each task, one epoch of training; {report['machine']}, {report['date']}", fontsize=10
        )
        figure.savefig(file, metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
