"""What a cluster costs and gives, what it has survived, and what large data would need, as Markdown tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from tables.markdown import RESULTS, Report, in_seconds, read_report, table

EPOCHS = 10
"""Of training, in the forecast."""

NIGHTS = ((10**7, 5 * 10**8), (10**8, 5 * 10**9), (10**9, 10**10))
"""Users and events of the forecast."""


def scale_out(folder: Path = RESULTS) -> str:
    """A row per task: seconds without a cluster, and with each number of workers."""
    report = read_report(folder / "scale_out.json")
    tasks: Report = report.get("tasks", {})
    if not tasks:
        return ""
    workers = list(next(iter(tasks.values()))["workers"])
    head = [
        "task",
        "of",
        "no cluster, s",
        *(f"{n} worker{'s' * (n != '1')}, s" for n in workers),
        "of which fixed, s",
    ]
    rows = []
    for task, found in tasks.items():
        size = found["size"]
        of = (
            f"{size['events']:,} events"
            if task == "split"
            else f"{size['users']:,} users, {size['items']:,} items"
        )
        seconds = [median(found["local"]), *(median(found["workers"][n]) for n in workers), found["fixed_s"]]
        rows.append([f"`{task}`", of, *map(in_seconds, seconds)])
    return table(head, rows)


def scale_faults(folder: Path = RESULTS) -> str:
    """A row per fault: tasks, how often, how it ended, and the longest time."""
    report = read_report(folder / "scale.json")
    found: dict[tuple[str, str], list[Report]] = {}
    for each in report.get("faults", []):
        found.setdefault((each["fault"], each["ended"]), []).append(each)
    ends = {
        "equal": "with the equal result",
        "told": "as it should",
        "hangs": "not in time",
        "otherwise": "otherwise",
    }
    rows = []
    for (fault, ended), tries in found.items():
        tasks = ", ".join(dict.fromkeys(f"`{each['task']}`" for each in tries))
        slowest = max(each["seconds"] for each in tries)
        rows.append([fault, tasks, str(len(tries)), ends[ended], in_seconds(slowest)])
    if not rows:
        return ""
    told = (
        f"Of one whole run of `make test-scale`, {report['date']}, on {report['cores']} cores: "
        f"{report['faults_tried']} faults, {report['ended_equal']} ended with the equal result, "
        f"{report['ended_told']} as they should, {report['hangs']} hung."
    )
    return table(["what is done", "in", "times", "ended", "after at most, s"], rows) + "\n\n" + told


def one_run(folder: Path = RESULTS) -> str:
    """A row per task of a single large run: seconds, peak memory, what it leaves."""
    report = read_report(folder / "scaling.one.json")
    rows = [
        [
            f"`{task}`",
            in_seconds(found["seconds"]),
            f"{found['peak_rss_mb']:,}",
            f"{found['bytes'] / 1e6:,.0f}",
        ]
        for task, found in report.get("tasks", {}).items()
    ]
    return table(["task", "seconds", "peak MB", "leaves, MB"], rows) if rows else ""


class Rates:
    """What a core does in a second, and bytes, by a single large run."""

    def __init__(self, report: Report) -> None:
        self._tasks: dict[str, Any] = report["tasks"]
        self._cores: int = report["cores"]
        size = report["size"]
        self.events, self.users, self.items = size["events"], size["users"], size["items"]
        self.tested: int = report["settings"]["evaluate.test_users"] or self.users

    def a_second(self, task: str, work: float) -> float:
        """Of so much work, what one core did in a second; cores that waited count as if they had worked."""
        rate: float = work / (self._tasks[task]["seconds"] * self._cores)
        return rate

    def left(self, task: str) -> float:
        """Bytes that a task has left."""
        found: float = self._tasks[task]["bytes"]
        return found


def rates(folder: Path = RESULTS) -> str:
    """A row per task: what a core does in a second, and the bytes that are left of it."""
    report = read_report(folder / "scaling.one.json")
    if not report:
        return ""
    of = Rates(report)
    work: dict[str, tuple[float, str, float, str]] = {
        "ingest": (of.events, "events", of.events, "an event"),
        "validate": (of.events, "events", of.events, "an event"),
        "split": (of.events, "events", of.events, "an event"),
        "train": (of.events, "events of an epoch", of.items, "an item"),
        "evaluate": (of.tested * of.items, "pairs of test user and item", of.tested, "a test user"),
        "export": (of.users * of.items, "pairs of user and item", of.users, "a user"),
    }
    rows = [
        [
            f"`{task}`",
            f"{in_seconds(of.a_second(task, amount) / 1e6)} million {what}",
            "" if task == "validate" else f"{in_seconds(of.left(task) / parts)} {a_part}",
        ]
        for task, (amount, what, parts, a_part) in work.items()
    ]
    return table(["task", "a core-second does", "leaves, bytes"], rows)


def forecast(folder: Path = RESULTS) -> str:
    """A row per task: core-hours for larger data, in proportion to what was measured."""
    report = read_report(folder / "scaling.one.json")
    if not report:
        return ""
    of = Rates(report)

    def hours(task: str, had: float) -> Callable[[float], float]:
        return lambda wanted: wanted / of.a_second(task, had) / 3600

    def cost(users: int, events: int) -> dict[str, float]:
        return {
            "ingest, validate, split": sum(
                hours(task, of.events)(events) for task in ("ingest", "validate", "split")
            ),
            f"train, {EPOCHS} epochs": hours("train", of.events)(EPOCHS * events),
            f"evaluate, {of.tested:,} test users": hours("evaluate", of.tested)(of.tested),
            "export": hours("export", of.users)(users),
        }

    nights = [cost(users, events) for users, events in NIGHTS]
    head = [
        "core-hours",
        *(f"{users / 1e6:,.0f} million users, {events / 1e9:g} billion events" for users, events in NIGHTS),
    ]
    rows = [[name, *(in_seconds(night[name]) for night in nights)] for name in nights[0]]
    stored = [
        of.left("ingest") / of.events * events
        + of.left("split") / of.events * events
        + of.left("train")
        + of.left("export") / of.users * users
        for users, events in NIGHTS
    ]
    rows.append(["all", *(in_seconds(sum(night.values())) for night in nights)])
    rows.append(["files of a run and its table, GB", *(in_seconds(each / 1e9) for each in stored)])
    return table(head, rows)
