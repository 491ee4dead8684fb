"""MovieLens-1M, the paper's protocol: HR@10 and NDCG@10 of the pipeline with its default settings.

    python benchmarks/movielens_1m.py --source ml-1m.parquet

Data: MovieLens-1M, items with at least 5 events, order within a user as published. Split:
leave-last-two-out; validation items are seen by early stopping only, test items by the evaluation
only. Settings: the defaults, but max_len 200 as in the paper (Kang & McAuley 2018, section IV-D).
Writes `results/movielens_1m.json` and the training curve `results/movielens_1m.svg` beside this
script.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pyarrow.parquet as pq
import torch

from sasrec_tasks import pipeline
from sasrec_tasks.contents import HISTORY
from sasrec_tasks.naming import as_names, from_names

RESULTS = Path(__file__).parent / "results"
PAPER = {"hr@10": 0.8245, "ndcg@10": 0.5905}  # Kang & McAuley 2018, table III
DIFFERENT = {"train.max_len": 200}


def main() -> None:
    """Run, write the figures, draw the curve."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--source", required=True, help="ML-1M as parquet")
    arguments.add_argument("--work", default=".demo/movielens_1m", help="folder for the run and the table")
    arguments.add_argument("--max-minutes", type=float, default=240)
    arguments.add_argument("--run-id", default="movielens_1m", help="an unfinished run is gone on with")
    options = arguments.parse_args()
    settings = from_names(
        {
            "source": options.source,
            "store": f"{options.work}/runs",
            "table": f"{options.work}/table",
            "train.max_minutes": options.max_minutes,
            **DIFFERENT,
        }
    )
    store = pipeline.start(settings, options.run_id)
    result = pipeline.run_all(store)
    history = pq.read_table(store.folder("train") / HISTORY).to_pydict()
    chosen = as_names(settings)
    report = {
        "data": "MovieLens-1M, items with at least 5 events: 999,611 events, 6,040 users, 3,416 items",
        "split": "leave-last-two-out",
        "protocols": {
            "sampled": "test item among 100 random items the user has not seen",
            "full": "test item among all items but the seen ones",
            "full_with_seen": "test item among all items",
        },
        "settings": {name: value for name, value in chosen.items() if name.startswith("train.")},
        "metrics": result["metrics"],
        "paper_sampled": PAPER,
        "training": {
            **result["tasks"]["train"],
            "seconds": sum(history["seconds"]),
            "seconds_per_epoch_median": sorted(history["seconds"])[len(history["seconds"]) // 2],
        },
        "seconds": result["seconds"],
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}",
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "movielens_1m.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    draw(history, result["metrics"], RESULTS / "movielens_1m.svg")
    sampled = result["metrics"]["sampled"]
    print(f"sampled HR@10 {sampled['hr@10']:.4f}, NDCG@10 {sampled['ndcg@10']:.4f} (paper {PAPER})")


def draw(history: dict[str, list[float]], metrics: dict[str, dict[str, float]], file: Path) -> None:
    """The loss and the validation metric over the epochs."""
    mpl.rcParams["svg.hashsalt"] = "sasrec"  # the same picture is the same file
    figure, left = plt.subplots(figsize=(8, 4.5), layout="constrained")
    right = left.twinx()
    left.plot(history["epoch"], history["loss"], color="tab:gray", label="training loss")
    right.plot(
        history["epoch"], history["metric"], color="tab:blue", label="validation NDCG@10, full ranking"
    )
    best = max(range(len(history["metric"])), key=history["metric"].__getitem__)
    right.axvline(history["epoch"][best], color="tab:blue", linewidth=0.8, linestyle=":")
    left.set(xlabel="epoch", ylabel="binary cross-entropy")
    right.set(ylabel="NDCG@10", ylim=(0, None))
    sampled, full = metrics["sampled"], metrics["full"]
    left.set_title(
        f"MovieLens-1M, max_len 200: best epoch {history['epoch'][best]}; test HR@10 / NDCG@10 "
        f"{sampled['hr@10']:.4f} / {sampled['ndcg@10']:.4f} sampled, "
        f"{full['hr@10']:.4f} / {full['ndcg@10']:.4f} full",
        fontsize=9,
    )
    lines = [*left.get_lines(), right.get_lines()[0]]
    left.legend(lines, [str(line.get_label()) for line in lines], loc="center right")
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    main()
