"""A fortnight of nights, each trained cold and warm: how long until the cold start's quality, and how good.

    python benchmarks/warm_starts.py

The warm nights go on from the night before (`train.cold_start_every` larger than the nights); the cold ones begin
anew on the same data. Both by the pipeline's defaults but for a smaller model, early stopping by the validation items,
test items seen by the evaluation alone. Writes `results/warm_starts.json`: per night the seconds of training until the
cold start's best validation NDCG@10, and the test NDCG@10 of both with 95% intervals.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent))
from nights import Nights
from quality import RESULTS, machine, show_progress

from sasrec_tasks import pipeline
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.contents import HISTORY, METRICS
from sasrec_tasks.naming import from_names

SETTINGS: dict[str, Any] = {"train.max_len": 50, "gate.force_publish": True}
STARTS = {"cold": 1, "warm": 1000}  # train.cold_start_every


def main() -> None:
    """Run the nights, and write down how long each took to become as good."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--nights", type=int, default=14)
    arguments.add_argument("--users", type=int, default=3000)
    arguments.add_argument("--events", type=int, default=90_000)
    arguments.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="one more setting"
    )
    arguments.add_argument("--work", type=Path, default=Path(".demo/warm_starts"))
    arguments.add_argument("--out", type=Path, default=RESULTS)
    options = arguments.parse_args()
    show_progress()
    shutil.rmtree(options.work, ignore_errors=True)
    source = Nights(options.work / "events", users=options.users, events=options.events)
    settings = SETTINGS | dict(assignment.split("=", 1) for assignment in options.set)
    nights = []
    for night in range(options.nights):
        source.arrive(night)
        found = {
            start: trained(source, options.work / start, night, {**settings, "train.cold_start_every": every})
            for start, every in STARTS.items()
        }
        target = max(found["cold"]["curve"])
        for start in STARTS:
            found[start]["seconds_to_target"] = seconds_until(found[start], target)
        nights.append({"night": night, "target": target, **found})
        shown = {start: (found[start]["seconds_to_target"], found[start]["test"]) for start in STARTS}
        print(
            f"night {night}: validation NDCG@10 {target:.4f}, seconds and test NDCG@10: {shown}", flush=True
        )
    later = nights[1:]  # the first has nothing to go on from
    shares = [share_of_time(each) for each in later]
    report = {
        "machine": machine(),
        "date": datetime.now(UTC).date().isoformat(),
        "settings": settings,
        "share_of_time": {
            "median": round(median(inf if share is None else share for share in shares), 3),
            "nights": [None if share is None else round(share, 3) for share in shares],
        },
        "not_reached": shares.count(None),
        "worse": sum(each["warm"]["interval"][1] < each["cold"]["interval"][0] for each in later),
        "nights": nights,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "warm_starts.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: report[name] for name in ("share_of_time", "not_reached", "worse")}))


def trained(source: Nights, work: Path, night: int, settings: dict[str, Any]) -> dict[str, Any]:
    """A whole run of the night: its curve, and what the test items say."""
    places = {"source": str(source.folder), "store": f"{work}/runs", "table": f"{work}/table"}
    as_of = source.as_of(night).isoformat()
    store: RunStore = pipeline.start(from_names({**settings, **places, "as_of": as_of}), f"night-{night}")
    pipeline.run_all(store)
    history = pq.read_table(store.folder("train") / HISTORY).to_pydict()
    figures = store.read_json("evaluate", METRICS)["full"]
    marker = store.marker("train")
    assert marker is not None
    return {
        "curve": [round(value, 5) for value in history["metric"]],
        "seconds": [round(value, 3) for value in history["seconds"]],
        "best_epoch": marker.summary["best_epoch"],
        "warm_from": marker.summary["warm_start"]["run_id"],
        "test": round(figures["ndcg@10"], 5),
        "interval": [round(bound, 5) for bound in figures["ci95"]["ndcg@10"]],
    }


def seconds_until(found: dict[str, Any], target: float) -> float | None:
    """Seconds of training until the validation metric reached the target; None if it never did."""
    passed = 0.0
    for value, seconds in zip(found["curve"], found["seconds"], strict=True):
        passed += seconds
        if value >= target:
            return float(round(passed, 3))
    return None


def share_of_time(night: dict[str, Any]) -> float | None:
    """The warm start's time to the target, as a share of the cold one's."""
    warm: float | None = night["warm"]["seconds_to_target"]
    cold: float = night["cold"]["seconds_to_target"]
    return None if warm is None else float(warm / cold)


if __name__ == "__main__":
    main()
