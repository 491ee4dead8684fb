"""What it costs to narrow an export: the same model's, with and without tables of what may be recommended.

    python benchmarks/eligible.py --source ml-1m.parquet

Exports of one run, each as a new table; the tables that narrow it are read anew each time. The ways take turns, so
that whatever else the machine does meets all of them. Users without events are as many as the run's, and have as many
pairs; those to whom a popular item is left out get rows of their own, which an export that is not narrowed does not
write. Writes `results/eligible.json`: seconds (medians), their ratio to an export that is not narrowed, and the users
who have rows.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent))
from quality import RESULTS, data, machine, show_progress
from speed import spread

from sasrec_tasks import contents, export, pipeline
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.contents import USERS
from sasrec_tasks.naming import from_names

WARM_UP = 1  # exports of each way that are not counted


def main() -> None:
    """Train a little, export in turns, write the figures."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--source", required=True, help="interactions as parquet")
    arguments.add_argument(
        "--pairs",
        type=int,
        default=100_000,
        help="user-item pairs that are left out, and where users without events have some, as many again",
    )
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--work", type=Path, default=Path(".demo/eligible"), help="folder for runs")
    arguments.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    options = arguments.parse_args()
    show_progress()
    work = options.work.resolve()
    shutil.rmtree(work, ignore_errors=True)
    store = trained(options.source, work)
    seconds, users = exports(store, ways(store, options.pairs, work), options.repeats, work)
    plain = median(seconds["all items, no pairs"])
    report = {
        "what": "seconds of an export, medians; ratio to that of all items without pairs",
        "data": data(store, options.source),
        "pairs": options.pairs,
        "repeats": options.repeats,
        "seconds": {way: round(median(each), 3) for way, each in seconds.items()},
        "spread": {way: spread(each) for way, each in seconds.items()},
        "ratio": {way: round(median(each) / plain, 3) for way, each in seconds.items()},
        "users_with_rows": users,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "eligible.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report["ratio"], indent=2))
    shutil.rmtree(work)


def trained(source: str, work: Path) -> RunStore:
    """A run up to the gate; an epoch makes a model that takes as long to serve as any other."""
    places = {"source": source, "store": f"{work}/runs", "table": f"{work}/none"}
    settings = from_names({**places, "train.epochs": 1, "gate.force_publish": True})
    store = pipeline.start(settings, "eligible")
    for task in pipeline.TASKS[: pipeline.TASKS.index("export")]:
        pipeline.run_task(task, store.uri)
    return store


def ways(store: RunStore, pairs: int, work: Path) -> dict[str, dict[str, Any]]:
    """Settings of `export` by what they are called."""
    random = np.random.default_rng(0)
    items = np.array(contents.item_ids(store))
    users = pq.read_table(store.folder("split") / USERS)["USER_ID"].to_numpy(zero_copy_only=False)
    half = random.permutation(items)[: len(items) // 2]
    drawn = {"USER_ID": random.choice(users, pairs), "ITEM_ID": random.choice(items, pairs)}
    strangers: dict[str, Any] = {
        "USER_ID": [f"stranger-{number}" for number in random.integers(len(users), size=pairs)],
        "ITEM_ID": random.choice(items, pairs),
    }
    both = {name: [*drawn[name], *strangers[name]] for name in drawn}
    tables: dict[str, dict[str, Any]] = {
        "half": {"ITEM_ID": half},
        "all": {"ITEM_ID": items},
        "pairs": drawn,
        "more_pairs": both,
    }
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), work / f"{name}.parquet")
    excluded, more = ({"excluded_pairs": f"{work}/{name}.parquet"} for name in ("pairs", "more_pairs"))
    return {
        "all items, no pairs": {},
        "half of the items and pairs": {"eligible_items": f"{work}/half.parquet", **excluded},
        "half of the items": {"eligible_items": f"{work}/half.parquet"},
        "pairs": excluded,
        "all items named and pairs": {"eligible_items": f"{work}/all.parquet", **excluded},
        "pairs, as many of users without events": more,
        "half of the items and these pairs": {"eligible_items": f"{work}/half.parquet", **more},
    }


def exports(
    store: RunStore, ways: dict[str, dict[str, Any]], repeats: int, work: Path
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Seconds of the exports of each way, and the users who have rows."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    users: dict[str, int] = {}
    for number in range(WARM_UP + repeats):
        for place, (way, narrowed) in enumerate(ways.items()):
            for task in ("export", "eligible"):  # as if neither had been done
                store.forget(task)
            settings = store.settings()
            own = settings.export.model_copy(update=narrowed)
            settings = settings.model_copy(update={"export": own, "table": f"{work}/tables/{number}-{place}"})
            started = time.perf_counter()
            done = export.run(store, settings)
            seconds[way].append(time.perf_counter() - started)
            users[way] = done["users"] - done["users_by_origin"]["none"]
    return {way: each[WARM_UP:] for way, each in seconds.items()}, users


if __name__ == "__main__":
    main()
