"""A fortnight of nights through the real DAG, good ones and bad ones, with a consumer that reads all the while.

    python benchmarks/simulate.py

Every night brings new events, users and items, and some items change places. Night 4's data are broken; they are
mended and the night is run again. Night 6 trains a model that knows nothing, which the gate refuses. Night 8 is run
twice on the same data. After night 10 the DAG `sasrec_rollback` goes back to night 9, and night 11 goes on from there.
Night 12 is a backfill of night 5, then itself. Writes `results/simulate.json` and `results/simulate.svg`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))
from nights import Nights
from quality import HERE, RESULTS, machine
from session import session

from sasrec_tasks import runs
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.contents import OWN_ROWS
from sasrec_tasks.tables import Recommendations

ROOT = HERE.parent
QUICK = {"train.epochs": 12, "train.max_len": 50, "evaluate.bootstrap_samples": 200}
WORSE = {"train.epochs": 1, "train.learning_rate": 1e-6}
BROKEN, WORSE_NIGHT, TWICE, ROLLED_BACK, BACKFILL = 4, 6, 8, 10, 12


class Simulation:
    """An Airflow of its own, a source that grows, a table, and what happens to it."""

    def __init__(self, work: Path, nights: int, users: int = 3000, events: int = 90_000) -> None:
        self.work, self.last = work, nights
        self.source = Nights(work / "events", users=users, events=events)
        self.store, self.table = str(work / "runs"), str(work / "recommendations")
        self.events: list[dict[str, Any]] = []
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "SASREC"))
        }
        self.environment = {
            **kept,
            "AIRFLOW_HOME": str(work / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{work}/airflow/airflow.db",
            "SASREC_SOURCE": str(self.source.folder),
            "SASREC_STORE": self.store,
            "SASREC_TABLE": self.table,
        }
        (work / "airflow").mkdir(parents=True)
        self._airflow("db", "migrate", check=True)

    def night(self, night: int, what: str = "", others: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """One run of the DAG, with other settings than usual if need be, and what became of it."""
        started = time.monotonic()
        as_of = self.source.as_of(night)
        conf = {**QUICK, **(others or {}), "as_of": as_of.isoformat()}
        known = set(self._runs())
        self._airflow("dags", "test", "sasrec_nightly", "--conf", json.dumps(conf))
        new = {run_id: row for run_id, row in self._runs().items() if run_id not in known}
        assert len(new) == 1, new
        (row,) = new.values()
        return self._told(night, what, row, time.monotonic() - started)

    def _told(self, night: int, what: str, row: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        event = {
            "night": night,
            "as_of": row["AS_OF"].isoformat(),
            "what": what,
            "run_id": row["RUN_ID"],
            "ending": row["ENDING"],
            "reason": row["REASON"],
            "version": row["VERSION"],
            "ndcg@10": row["NDCG"],
            "interval": [row["NDCG_LOW"], row["NDCG_HIGH"]],
            "popularity": row["POPULARITY_NDCG"],
            "events": row["EVENTS"],
            "users": row["USERS"],
            "items": row["ITEMS"],
            "seconds": round(seconds, 1),
        }
        self.events.append(event)
        print(f"night {night} {what}: {row['ENDING']} {row['REASON'] or ''}"[:150], flush=True)
        return event

    def run(self) -> None:
        """All nights."""
        for night in range(self.last):
            file = self.source.arrive(night)
            if night == BROKEN:
                self._break(file)
                refused = self.night(night, "broken data")
                assert (refused["ending"], refused["version"]) == ("failed", None), refused
                file.unlink()
                self.source.arrive(night)
                self.night(night, "mended")
            elif night == WORSE_NIGHT:
                refused = self.night(night, "worse model", WORSE)
                assert (refused["ending"], refused["version"]) == ("refused", None), refused
            elif night == TWICE:
                first = self.night(night, "first time")
                before = Recommendations(self.table).to_pandas()
                again = self.night(night, "second time")
                same_rows(before, Recommendations(self.table).to_pandas())
                assert first["ending"] == again["ending"] == "published", (first, again)
            elif night == BACKFILL:
                self._backfill(BROKEN + 1)
                self.night(night)
            else:
                assert self.night(night)["ending"] == "published"
            if night == ROLLED_BACK:
                self._roll_back(night)

    def _roll_back(self, night: int) -> None:
        """The publish before the one that is served, again."""
        before = Recommendations(self.table)
        self._airflow("dags", "test", "sasrec_rollback")
        served = Recommendations(self.table)
        assert (served.version, served.as_of < before.as_of) == (before.version + 1, True), served
        event = {"night": night, "what": "rollback", "ending": "rolled back", "version": served.version}
        self.events.append(
            {**event, "run_id": served.run_id, "as_of": served.as_of.isoformat(), "instead_of": before.run_id}
        )

    def written(self) -> dict[int, int]:
        """Version → rows that its run wrote, of those that were published or rolled back to."""
        rows = {}
        for event in self.events:
            if event["ending"] in ("published", "rolled back"):
                marker = RunStore.of(self.store, event["run_id"]).marker("export")
                assert marker is not None, event
                rows[event["version"]] = marker.summary["rows"]
        return rows

    def _backfill(self, past: int) -> None:
        """A past night again, on what had arrived by then: the rows that it gave, but not in the table."""
        then = next(each for each in self.events if each["night"] == past and each["ending"] == "published")
        served = Recommendations(self.table).version
        backfill = self.night(past, "backfill")
        assert backfill["ending"] == "superseded", backfill
        assert Recommendations(self.table).version == served
        own = RunStore.of(self.store, backfill["run_id"]).folder("export") / OWN_ROWS
        rows = pd.read_parquet(own)
        at_the_time = Recommendations(self.table, version=then["version"]).to_pandas()
        same_rows(at_the_time, rows)

    def _break(self, file: Path) -> None:
        """A producer gone wrong: the day's events forty times over, and every second one has lost its user."""
        frame = pd.concat([pd.read_parquet(file)] * 40, ignore_index=True)
        frame.loc[::2, "USER_ID"] = None
        frame.to_parquet(file, index=False)

    def _runs(self) -> dict[str, dict[str, Any]]:
        return {row["RUN_ID"]: row for row in runs.read(f"{self.table}_runs").to_pylist()}

    def _airflow(self, *arguments: str, check: bool = False) -> None:
        airflow = Path(sys.executable).with_name("airflow")
        with (self.work / "airflow.log").open("ab") as log:
            subprocess.run([airflow, *arguments], env=self.environment, stdout=log, stderr=log, check=check)


def same_rows(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """That two frames are alike but for RUN_ID."""
    order = ["USER_ID", "RANK"]
    left, right = (
        frame.drop(columns="RUN_ID").sort_values(order, ignore_index=True).astype({"USER_ID": str})
        for frame in (one, other)
    )
    pd.testing.assert_frame_equal(left, right, check_dtype=False)


MARKS = {  # marker, colour
    "published": ("o", "C0"),
    "superseded": ("D", "C2"),
    "refused": ("X", "C3"),
    "failed": ("s", "C3"),
    "rolled back": ("<", "C1"),
}


def draw(report: Mapping[str, Any], file: Path) -> None:
    """One after another what happened: NDCG@10, what is served, and how the data grew."""
    events = list(enumerate(report["events"]))
    runs_ = [(at, each) for at, each in events if each["ending"] != "rolled back"]
    measured = [(at, each) for at, each in runs_ if each["ndcg@10"] is not None]
    grown = [(at, each) for at, each in measured if each["ending"] == "published"]
    with mpl.rc_context({"svg.hashsalt": "", "font.size": 9}):
        figure, (above, served, below) = plt.subplots(
            3, 1, figsize=(8, 6.5), sharex=True, height_ratios=[3, 2, 1.5], layout="constrained"
        )
        places, found = zip(*grown, strict=True)
        above.fill_between(places, *zip(*(each["interval"] for each in found), strict=True), alpha=0.2, lw=0)
        above.plot(places, [each["ndcg@10"] for each in found], color="C0", lw=1)
        above.plot(places, [each["popularity"] for each in found], color="0.6", ls=":", label="popularity")
        for ending, (marker, colour) in MARKS.items():
            chosen = [(at, each["ndcg@10"]) for at, each in measured if each["ending"] == ending]
            if chosen:
                above.scatter(*zip(*chosen, strict=True), marker=marker, c=colour, label=ending, zorder=3)
        above.set_ylabel("NDCG@10, full ranking")
        above.set_ylim(bottom=0)
        above.legend(loc="center right", frameon=False)
        version, versions = -1, []
        for _, each in events:
            version = each["version"] if each["version"] is not None else version
            versions.append(version)
        served.step(range(len(versions)), versions, where="mid", color="0.6", lw=1)
        for ending, (marker, colour) in MARKS.items():
            chosen = [(at, versions[at]) for at, each in events if each["ending"] == ending]
            if chosen:
                served.scatter(*zip(*chosen, strict=True), marker=marker, c=colour, label=ending, zorder=3)
        served.set_ylabel("version served")
        served.legend(loc="upper left", frameon=False, ncols=2)
        for name in ("users", "items"):
            below.plot(places, [each[name] for each in found], label=name)
        below.set_ylim(bottom=0)
        below.legend(frameon=False, loc="lower right", ncols=2)
        labels = [f"night {each['night']}{', ' if each['what'] else ''}{each['what']}" for _, each in events]
        below.set_xticks(range(len(labels)), labels, rotation=60, ha="right", rotation_mode="anchor")
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
        plt.close(figure)


def main() -> None:
    """Run the nights beside the reader, and write down what happened."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--nights", type=int, default=14)
    arguments.add_argument("--users", type=int, default=3000)
    arguments.add_argument("--events", type=int, default=90_000)
    arguments.add_argument("--work", type=Path, default=Path(".demo/simulate"))
    arguments.add_argument("--out", type=Path, default=RESULTS)
    options = arguments.parse_args()
    work: Path = options.work.resolve()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    started = time.monotonic()
    simulation = Simulation(work, options.nights, options.users, options.events)
    stop = work / "stop"
    reader = subprocess.Popen(
        [sys.executable, str(HERE / "reader.py"), simulation.table, str(stop)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        simulation.run()
    finally:
        stop.touch()
        said, _ = reader.communicate()
    read = json.loads(said)
    written = simulation.written()
    read["torn"] += [version for version, _, rows in read["versions"] if written[version] != rows]
    report = {
        "machine": machine(),
        "date": datetime.now().astimezone().date().isoformat(),
        "seconds": round(time.monotonic() - started),
        "nights": options.nights,
        "published": sum(each["ending"] == "published" for each in simulation.events),
        "refused": [
            {name: each[name] for name in ("night", "what", "ending", "reason")}
            for each in simulation.events
            if each["ending"] in ("refused", "failed")
        ],
        "rows": len(Recommendations(simulation.table).to_pandas()),
        "reader": {**read, "versions": len(read["versions"])},
        "events": simulation.events,
        "session": session(work),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    told = json.dumps(report, indent=2, ensure_ascii=False).replace(f"{work}/", "")
    (options.out / "simulate.json").write_text(told + "\n", encoding="utf-8")
    draw(report, options.out / "simulate.svg")
    print(json.dumps({name: report[name] for name in ("seconds", "published", "rows", "reader")}))
    if read["errors"] or read["torn"] or read["stale"]:
        sys.exit("the reader met what a consumer must not meet")


if __name__ == "__main__":
    main()
