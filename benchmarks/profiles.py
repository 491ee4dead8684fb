"""Where the processor's time goes in training and in top k: by kind of operation, a bar each.

    python benchmarks/profiles.py --source ml-1m.parquet --name now --set train.blocks=plain

One epoch of binary cross-entropy at the sizes of the paper, and the top 10 of 100,000 items for 4,096 users who
have read 50 each, by PyTorch's profiler, one thread. Writes the shares under a name into `results/profiles.json`,
beside those of other names (another revision of the code, say), and draws all of them.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch._C._profiler import _ExperimentalConfig

sys.path.insert(0, str(Path(__file__).parent))
from quality import RESULTS, machine, show_progress, split_events
from speed_bench import OURS_BCE

from sasrec_tasks import fitting
from sasrec_tasks.naming import from_names
from sasrec_tasks.sasrec.fit import build
from sasrec_tasks.sasrec.model_config import SASRecConfig
from sasrec_tasks.sasrec.scoring import model_scorer
from sasrec_tasks.sasrec.sequences import Sequences
from sasrec_tasks.sasrec.top_k import top_k
from sasrec_tasks.sasrec.trainer import Trainer

KINDS: dict[str, tuple[str, ...]] = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm"),
    "attention": ("scaled_dot_product", "softmax"),
    "masks of dropout": ("random_", "bernoulli", "dropout", "ge"),
    "normalisation, activation": ("layer_norm", "gelu", "silu", "sigmoid"),
    "embedding, gather, scatter": ("embedding", "index", "gather", "scatter", "take", "searchsorted"),
    "sort and top k": ("topk", "sort", "amax", "max"),
    "optimiser": ("adam", "lerp"),
    "copies": ("copy", "cat", "contiguous", "clone"),
}
"""By what is in an operation's name, the first that fits; all others are element-wise."""

ELEMENTWISE, REST = "element-wise", "Python, NumPy, waiting"


def main() -> None:
    """Profile, keep, draw."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--source", required=True, help="interactions as parquet")
    arguments.add_argument("--name", default="now", help="of these figures")
    arguments.add_argument("--items", type=int, default=100_000, help="of the top k")
    arguments.add_argument("--users", type=int, default=4096, help="of the top k")
    arguments.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="one more setting of the training"
    )
    arguments.add_argument("--work", default=".demo/profiles", help="folder for the run")
    arguments.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    options = arguments.parse_args()
    show_progress()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        figures = {
            "train": profiled(epoch_of(options.source, options.work, options.set)),
            "export": profiled(top_10(options.users, options.items)),
        }
    finally:
        torch.set_num_threads(threads)
    file = options.out / "profiles.json"
    report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    report[options.name] = {**figures, "date": datetime.now(UTC).date().isoformat(), "machine": machine()}
    options.out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    draw(report, options.out / "profiles.svg")


def epoch_of(source: str, work: str, assignments: Sequence[str] = ()) -> Callable[[], object]:
    """An epoch of training, not the first."""
    places = {"source": source, "store": f"{work}/runs", "table": f"{work}/table"}
    own = dict(assignment.split("=", 1) for assignment in assignments)
    settings = from_names({**places, **OURS_BCE, **own})
    _, interactions = split_events(settings, Path(source).stem)
    model = fitting.new_model(interactions.num_items, settings)
    trainer = Trainer(model, interactions.split.train, fitting.fit_config(interactions.num_items, settings))
    trainer.epoch(1, math.inf, lambda _: None)
    return lambda: trainer.epoch(2, math.inf, lambda _: None)


def top_10(users: int, items: int) -> Callable[[], object]:
    """Reading the histories of users, and the ten best items that they have not read."""
    random = np.random.default_rng(0)
    histories = Sequences.from_offsets(
        np.arange(users + 1) * 50,
        random.integers(1, items + 1, users * 50).astype(np.int32),
        np.ones(users * 50, np.float32),
    )
    model = build(SASRecConfig(num_items=items, hidden_units=64, max_len=50), 0)
    return lambda: top_k(model_scorer(model, histories), histories, np.arange(users), 10)


def profiled(work: Callable[[], object]) -> dict[str, Any]:
    """Seconds of each kind of operation, of all, and of all without the profiler, which makes each take longer."""
    work()
    started = time.perf_counter()
    work()
    unprofiled = time.perf_counter() - started
    every_thread = _ExperimentalConfig(profile_all_threads=True)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], experimental_config=every_thread
    ) as profile:
        started = time.perf_counter()
        work()
        seconds = time.perf_counter() - started
    kinds = dict.fromkeys([*KINDS, ELEMENTWISE], 0.0)
    for event in profile.key_averages():
        name = event.key.removeprefix("aten::").removeprefix("_").lower()
        if event.key.startswith("aten::") or "adam" in name:
            kinds[kind_of(name)] += event.self_cpu_time_total / 1e6
    kinds[REST] = seconds - sum(kinds.values())
    return {"seconds": seconds, "unprofiled_seconds": unprofiled, "kinds": kinds}


def kind_of(name: str) -> str:
    """The kind of operation by its name, without "aten::" and a leading "_"."""
    for kind, parts in KINDS.items():
        if any(name == part if len(part) <= 3 else part in name for part in parts):
            return kind
    return ELEMENTWISE


def draw(report: dict[str, Any], file: Path) -> None:
    """A bar per name, training to the left, top k to the right."""
    with mpl.rc_context({"svg.hashsalt": "profiles", "font.size": 9}):
        figure, cells = plt.subplots(1, 2, figsize=(11, 1.6 + 0.5 * len(report)), layout="constrained")
        colours = plt.get_cmap("tab10").colors
        for cell, what, title in zip(
            cells, ("train", "export"), ("an epoch of training", "top 10 of many items"), strict=True
        ):
            left = np.zeros(len(report))
            for colour, kind in zip(colours, [*KINDS, ELEMENTWISE, REST], strict=False):
                seconds = np.array([of_name[what]["kinds"][kind] for of_name in report.values()])
                cell.barh(list(report), seconds, left=left, color=colour, label=kind)
                left += seconds
            cell.set(title=title, xlabel="seconds of one thread, the profiler's own included")
            cell.invert_yaxis()
        figure.legend(
            *cells[0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=5,
            frameon=False,
            fontsize=8,
        )
        figure.savefig(file, metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
