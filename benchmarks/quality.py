"""HR@10, NDCG@10 and the rest of the pipeline on a parquet file, by a named recipe.

    python benchmarks/quality.py --recipe paper --source ml-1m.parquet

A recipe is a file of settings in `recipes/`; what it does not name has its default. Split:
leave-last-two-out; validation items are seen by early stopping only, test items by the evaluation
only. Runs ingest to evaluate and writes, beside this script, `results/<data>.<recipe>.json` (settings,
fingerprint of the data, seed, versions, seconds, curve, metrics with 95% intervals) and the curve as
`results/<data>.<recipe>.svg`. An unfinished run is gone on with.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pyarrow.parquet as pq
import torch

from sasrec_tasks import contents, pipeline
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.config import Settings
from sasrec_tasks.contents import HISTORY, METRICS, Interactions
from sasrec_tasks.naming import as_names, from_names, parse_assignments, read_yaml

HERE = Path(__file__).parent
RESULTS = HERE / "results"
TASKS = ("ingest", "validate", "split", "train", "evaluate")

PROTOCOLS = {
    "sampled": "test item among 100 random items the user has not seen",
    "full": "test item among all items but the seen ones, as served",
    "full_with_seen": "test item among all items",
}


def main() -> None:
    """Run a recipe, write its figures, draw its curve."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    recipes = sorted(file.stem for file in (HERE / "recipes").glob("*.yaml"))
    arguments.add_argument("--recipe", default="pipeline", choices=recipes)
    arguments.add_argument("--source", required=True, help="interactions as parquet")
    arguments.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="one more setting"
    )
    arguments.add_argument("--name", help="of the results; default: data and recipe")
    arguments.add_argument("--work", default=".demo/quality", help="folder for the run")
    arguments.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    options = arguments.parse_args()
    if options.set and not options.name:
        arguments.error("--set makes another recipe of it: give the results a --name of their own")
    show_progress()
    name = options.name or f"{Path(options.source).stem}.{options.recipe}"
    report = run(
        options.source,
        read_yaml(HERE / "recipes" / f"{options.recipe}.yaml") | parse_assignments(options.set),
        work=options.work,
        run_id=name,
    )
    report = {"recipe": options.recipe, **report}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    draw(report, options.out / f"{name}.svg")
    for protocol in PROTOCOLS:
        figures, popular = report["metrics"][protocol], report["metrics"]["baselines"]["popularity"][protocol]
        print(
            f"{protocol:<15} HR@10 {figures['hr@10']:.4f}, NDCG@10 {figures['ndcg@10']:.4f} "
            f"(popularity {popular['hr@10']:.4f}, {popular['ndcg@10']:.4f})"
        )


def show_progress() -> None:
    """Log lines of the tasks, on stderr."""
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("sasrec_tasks").setLevel(logging.INFO)


def run(source: str, settings: dict[str, Any], *, work: str, run_id: str) -> dict[str, Any]:
    """Ingest to evaluate; what a result file holds."""
    chosen = from_names({"source": source, "store": f"{work}/runs", "table": f"{work}/table", **settings})
    store = pipeline.start(chosen, run_id)
    summaries = {task: pipeline.run_task(task, store.uri) for task in TASKS}
    history = pq.read_table(store.folder("train") / HISTORY).to_pydict()
    names = as_names(chosen)
    return {
        "data": data(store, source),
        "split": "leave-last-two-out",
        "protocols": PROTOCOLS,
        "settings": {key: value for key, value in names.items() if key.startswith(("train.", "split."))},
        "seed": names["train.random_state"],
        "training": {**summaries["train"], "minutes": sum(history["seconds"]) / 60},
        "curve": {key: history[key] for key in ("epoch", "loss", "metric", "seconds")},
        "metrics": store.read_json("evaluate", METRICS),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "versions": {name: version(name) for name in ("sasrec-tasks", "torch", "numpy", "duckdb")},
    }


def split_events(settings: Settings, run_id: str) -> tuple[RunStore, Interactions]:
    """Ingest to split, and what came of it."""
    store = pipeline.start(settings, run_id)
    for task in ("ingest", "validate", "split"):
        pipeline.run_task(task, store.uri)
    return store, contents.interactions(store, store.settings())


def data(store: RunStore, source: str) -> dict[str, Any]:
    """What tells the data from other data."""
    marker = store.marker("split")
    assert marker is not None
    return {
        "file": Path(source).name,
        **{name: marker.summary[name] for name in ("users", "items", "events") if name in marker.summary},
        "sha256_of_split": {name: marker.files[name]["sha256"] for name in ("items.npy", "offsets.npy")},
    }


def machine() -> str:
    """Cores, threads of PyTorch, processor, Python."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{cores} cores, {torch.get_num_threads()} threads, {processor()}, Python {platform.python_version()}"
    )


def processor() -> str:
    """Name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def draw(report: dict[str, Any], file: Path) -> None:
    """The loss and the validation metric over the minutes of training."""
    mpl.rcParams["svg.hashsalt"] = "sasrec"  # the same picture is the same file
    curve, metrics = report["curve"], report["metrics"]
    minutes, total = [], 0.0
    for seconds in curve["seconds"]:
        total += seconds / 60
        minutes.append(total)
    figure, left = plt.subplots(figsize=(8, 4.5), layout="constrained")
    right = left.twinx()
    by = report["settings"]["train.early_stopping_metric"]
    metric = "NDCG@10, full ranking" if by == "ndcg@10" else by
    left.plot(minutes, curve["loss"], color="tab:gray", label=f"training loss ({report['training']['loss']})")
    right.plot(minutes, curve["metric"], color="tab:blue", label=f"validation {metric}")
    best = report["training"]["best_epoch"]
    right.axvline(minutes[best - 1], color="tab:blue", linewidth=0.8, linestyle=":")
    left.set(xlabel="minutes of training", ylabel="loss", xlim=(0, None))
    right.set(ylabel=metric, ylim=(0, None))
    left.set_title(
        f"{report['data']['file']}, recipe {report['recipe']}: best epoch {best}; test HR@10 / NDCG@10 "
        + ", ".join(
            f"{metrics[p]['hr@10']:.4f} / {metrics[p]['ndcg@10']:.4f} {p}" for p in ("sampled", "full")
        ),
        fontsize=9,
    )
    lines = [*left.get_lines(), right.get_lines()[0]]
    left.legend(lines, [str(line.get_label()) for line in lines], loc="center right")
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    main()
