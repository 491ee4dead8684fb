"""How fast training and serving are on a GPU, beside RecTools on the same one.

    python benchmarks/gpu.py --source ml-1m.parquet --rectools path/to/python

Writes `results/gpu.json`: the GPU, the versions, and a row per stage and peer with the median second of an epoch
(the first half of them is left out: it starts CUDA and records steps) or of serving, what all epochs took together,
the spread of the runs (largest − smallest, over the median) and the validation NDCG@10 that was reached.
"""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch

sys.path.insert(0, str(Path(__file__).parent))
import process
import speed
from quality import RESULTS, show_progress
from speed_bench import OURS_BCE, OURS_SOFTMAX, RECTOOLS_BCE, RECTOOLS_SOFTMAX, Bench, Row

TRAININGS: dict[str, tuple[Row, list[tuple[str, Row]]]] = {
    "train, BCE": (
        OURS_BCE,
        [
            ("RecTools BCE", RECTOOLS_BCE),
            ("RecTools BCE in bfloat16", {**RECTOOLS_BCE, "precision": "bf16-mixed"}),
        ],
    ),
    "train, BCE, float32": ({**OURS_BCE, "train.precision": "float32"}, [("RecTools BCE", RECTOOLS_BCE)]),
    "train, the pipeline's defaults": (OURS_SOFTMAX, [("RecTools softmax", RECTOOLS_SOFTMAX)]),
}
"""Stage → our settings, and the peers beside."""

SERVE = "serve"


def main() -> None:
    """Measure, and write the file."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--source", required=True, help="interactions as parquet")
    arguments.add_argument("--rectools", help="Python that has rectools[torch]; default: ours alone")
    arguments.add_argument("--stages", nargs="+", default=[*TRAININGS, SERVE], choices=[*TRAININGS, SERVE])
    arguments.add_argument("--epochs", type=int, default=20, help="after which quality is compared")
    arguments.add_argument("--repeats", type=int, default=5, help="of serving")
    arguments.add_argument("--work", type=Path, default=Path(".demo/gpu"), help="folder for runs")
    arguments.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    arguments.set_defaults(scikit_rec=None)
    options = arguments.parse_args()
    gpu = name_of_gpu()
    if gpu is None:
        sys.exit("PyTorch sees no GPU on this machine: there is nothing to measure")
    show_progress()
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    versions = {name: version(name) for name in ("torch", "numpy")}
    for found in measured(Bench(options)):
        print(f"{found['stage']} / {found['peer']}: {found['ours_s']} s, {found['peer_s']} s", flush=True)
        speed.write(found, options.out / "gpu.json", gpu=gpu, versions=versions)


def name_of_gpu() -> str | None:
    """What the driver calls it; None: there is none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def measured(bench: Bench) -> speed.Rows:
    """A row for each stage and peer."""
    epochs, stages, model = bench.options.epochs, bench.options.stages, bench.work / "model"
    for stage, (settings, peers) in TRAININGS.items():
        if stage in stages:
            ours = bench.stage(
                "train_epochs", run=bench.run(), settings=settings, epochs=epochs, model=str(model)
            )
            for name, of_peer in peers if bench.options.rectools else [("", {})]:
                answer = bench.peer(name, of_peer, epochs) if name else None
                yield row(stage, f"one of {epochs} epochs", ours, answer, "epoch")
    if SERVE in stages:
        if not (model / "model.json").exists():
            bench.stage("train_epochs", run=bench.run(), settings=OURS_SOFTMAX, epochs=1, model=str(model))
        ours = bench.stage("serve", run=bench.run(), model=str(model), repeats=bench.options.repeats)
        answer = bench.peer("RecTools softmax", RECTOOLS_SOFTMAX, epochs) if bench.options.rectools else None
        work = f"top 10 of {ours['users']:,} users from their histories; the peer: `recommend`"
        yield {**row(SERVE, work, ours, answer, "recommend"), "quality_peer": None}


def row(stage: str, work: str, ours: process.Result, answer: process.Result | None, of_peer: str) -> Row:
    """Ours beside a peer's answer, or alone."""
    seconds, theirs = ours["seconds"], answer[of_peer] if answer else []
    late, their_late = seconds[len(seconds) // 2 :], theirs[len(theirs) // 2 :]
    return {
        "stage": stage,
        "work": work,
        "peer": answer["name"] if answer else None,
        "ours_s": round(median(late), 4),
        "peer_s": round(median(their_late), 4) if answer else None,
        "ratio": round(median(their_late) / median(late), 2) if answer else None,
        "spread": {
            "ours": speed.spread(late),
            "peer": speed.spread(their_late) if answer else None,
        },
        "all_s": {"ours": round(sum(seconds), 2), "peer": round(sum(theirs), 2) if answer else None},
        "quality_ours": ours["quality"]["full"] if "quality" in ours else None,
        "quality_peer": answer["quality"]["full"] if answer else None,
    }


if __name__ == "__main__":
    main()
