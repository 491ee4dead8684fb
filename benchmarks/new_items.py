"""What it changes to keep places for new items, and what that costs: the same model's lists, with and without.

    python benchmarks/new_items.py

On interactions whose items come into the catalogue one after another (`nights.py`). Writes `results/new_items.json`:
of the exported lists the share of recommendations that is of items younger than a week, and how many of those items
are in any list; of the test items HR@10 and NDCG@10, of all and by item age, as `export` would have listed them for
the users without their test event. The test items choose nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parent))
from nights import Nights
from quality import RESULTS, machine, show_progress

from sasrec_tasks import contents, export, item_age, pipeline, trained
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.by_item_age import AGES
from sasrec_tasks.contents import METRICS
from sasrec_tasks.item_age import age_name
from sasrec_tasks.naming import from_names, parse_assignments
from sasrec_tasks.sasrec.metrics import Float64, bootstrap, interval
from sasrec_tasks.sasrec.reserving import HELD, reserve
from sasrec_tasks.sasrec.scoring import model_scorer
from sasrec_tasks.sasrec.top_k import top_k
from sasrec_tasks.tables import Recommendations

SETTINGS: dict[str, Any] = {"train.epochs": 20, "train.max_len": 50, "gate.force_publish": True}
NEW_DAYS = 7
SLOTS = (0, 1, 2, 3)  # 0: off
K = 10
SAMPLES = 1000


def main() -> None:
    """Train once, export in each way, write the figures."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--night", type=int, default=10, help="of which the run is")
    arguments.add_argument("--users", type=int, default=3000)
    arguments.add_argument("--events", type=int, default=90_000)
    arguments.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="one more setting"
    )
    arguments.add_argument("--work", type=Path, default=Path(".demo/new_items"), help="folder for the run")
    arguments.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    options = arguments.parse_args()
    show_progress()
    work = options.work.resolve()
    shutil.rmtree(work, ignore_errors=True)
    source = Nights(work / "events", users=options.users, events=options.events, drift=0)  # newness alone
    source.arrive(options.night)
    settings = SETTINGS | parse_assignments(options.set)
    places = {"source": str(source.folder), "store": f"{work}/runs", "table": f"{work}/none"}
    as_of = source.as_of(options.night).isoformat()
    store = pipeline.start(from_names({**settings, **places, "as_of": as_of}), "new-items")
    for task in pipeline.TASKS[: pipeline.TASKS.index("export")]:
        pipeline.run_task(task, store.uri)
    metrics = store.read_json("evaluate", METRICS)
    marker = store.marker("split")
    assert marker is not None
    report = {
        "what": f"lists of {K} with so many places kept for items younger than {NEW_DAYS} days",
        "data": {name: marker.summary[name] for name in ("users", "items", "events", "users_evaluated")},
        "settings": settings,
        "new_items": sum(of["items"] for of in metrics["by_item_age"] if of["item_age_days"][0] < NEW_DAYS),
        "by_item_age": metrics["by_item_age"],
        "never_trained_on": metrics["never_trained_on"],
        "slots": {str(slots): exported(store, slots, work) for slots in SLOTS},
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
    }
    for slots, figures in tested(store).items():
        report["slots"][str(slots)] |= {"test": figures}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "new_items.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report["slots"], indent=2))
    shutil.rmtree(work)


def exported(store: RunStore, slots: int, work: Path) -> dict[str, Any]:
    """The rows that `export` publishes: how much of them is new."""
    store.forget("export")
    settings = store.settings()
    own = {"new_item_days": NEW_DAYS, "new_item_slots": slots} if slots else {}
    settings = settings.model_copy(
        update={"export": settings.export.model_copy(update=own), "table": f"{work}/tables/{slots}"}
    )
    export.run(store, settings)
    rows = Recommendations(settings.table).to_pandas()
    data = contents.interactions(store, settings)
    young = np.flatnonzero(item_age.ages(store, settings, data) < NEW_DAYS) - 1
    new = rows["ITEM_ID"].isin(np.array(contents.item_ids(store))[young])
    return {
        "share_of_recommendations": round(float(new.mean()), 5),
        "new_items_in_a_list": int(rows[new]["ITEM_ID"].nunique()),
        "users_with_a_new_item": int(rows[new]["USER_ID"].nunique()),
        "users": int(rows["USER_ID"].nunique()),
    }


def tested(store: RunStore) -> dict[int, dict[str, Any]]:
    """Slots → HR@10 and NDCG@10 of the test items, of all and by their age, and the difference to no slots."""
    settings = store.settings()
    data = contents.interactions(store, settings)
    test, ages = data.split.test, item_age.ages(store, settings, data)
    scorer = model_scorer(trained.model(store, settings), test.history)
    new = np.flatnonzero(ages < NEW_DAYS)
    places = {}
    for slots in SLOTS:
        pick = reserve(K, slots, new, data.num_items + 1) if slots else None
        scores, items = top_k(scorer, test.seen, np.arange(len(test)), K, pick, HELD if pick else 1)
        found = (items == test.targets[:, None]) & (scores > -np.inf)
        places[slots] = np.where(found.any(1), found.argmax(1) + 1, 0)
    target_ages = ages[test.targets]
    bounds = list(zip(AGES, (*AGES[1:], None), strict=True))
    chosen = {"all": np.ones(len(test), dtype=bool)} | {
        age_name([least, less]): (target_ages >= least) & (target_ages < (np.inf if less is None else less))
        for least, less in bounds
    }
    return {
        slots: {
            name: {"users": int(users.sum()), **figures(places[slots][users], places[0][users])}
            for name, users in chosen.items()
            if users.any()
        }
        for slots in SLOTS
    }


def figures(places: npt.NDArray[np.int64], without: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Means over users with 95% intervals, and of the difference to the lists without slots.

    Args:
        places: (users,) of the test item in the user's list, from 1; 0 if it is not in it.
    """
    values: dict[str, Float64] = {}
    for name, of in (("", places), ("without ", without)):
        values[f"{name}hr@10"] = (of > 0).astype(float)
        values[f"{name}ndcg@10"] = np.where(of > 0, 1 / np.log2(np.maximum(of, 1) + 1), 0.0)
    names, means = bootstrap(values, samples=SAMPLES, random_state=0)
    drawn = dict(zip(names, means.T, strict=True))
    found: dict[str, Any] = {"ci95": {}, "difference": {}, "ci95_of_difference": {}}
    for metric in ("hr@10", "ndcg@10"):
        found[metric] = round(float(values[metric].mean()), 5)
        found["ci95"][metric] = [round(bound, 5) for bound in interval(drawn[metric])]
        difference = drawn[metric] - drawn[f"without {metric}"]
        found["difference"][metric] = round(float((values[metric] - values[f"without {metric}"]).mean()), 5)
        found["ci95_of_difference"][metric] = [round(bound, 5) for bound in interval(difference)]
    return found


if __name__ == "__main__":
    main()
