"""What each part of a recipe gives: the recipe, and the recipe with one thing changed.

    python benchmarks/ablation.py --source ml-100k.parquet --seeds 1 2 3

Every variant is trained by the same budget with every seed, early stopping on validation items: of minutes,
so that speed counts where the budget ends training, or with ``--epochs`` of epochs, for machines that have
other work. Writes `results/<data>.<recipe>.ablation.json`
beside this script, a row per variant with the mean and the spread over seeds of the validation NDCG@10
(what settings are chosen by) and of the test figures (reported, chosen by nothing). Variants that are in
the file already are not run again; a file of another recipe or budget is refused.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from quality import HERE, RESULTS, data, machine, show_progress, split_events

from sasrec_tasks import fitting, train
from sasrec_tasks.config import Settings
from sasrec_tasks.contents import Interactions
from sasrec_tasks.measures import rank, unseen_items
from sasrec_tasks.naming import as_names, from_names, read_yaml
from sasrec_tasks.sasrec.fit import fit
from sasrec_tasks.sasrec.metrics import per_user
from sasrec_tasks.sasrec.scoring import model_scorer

Changes = dict[str, Any]

VARIANTS: dict[str, Changes] = {
    "recipe": {},
    "loss: bce, 1 negative": {"loss": "bce", "num_negatives": 1, "negative_sampling": "other"},
    "loss: bce, 256 shared negatives": {"loss": "bce", "num_negatives": 256},
    "loss: gbce, 256 shared negatives": {"loss": "gbce", "num_negatives": 256},
    "loss: gbce, 256 shared negatives, dot products, patience 50": {
        "loss": "gbce",
        "num_negatives": 256,
        "temperature": None,
        "early_stopping_patience": 50,
    },
    "loss: sampled softmax, 256 shared negatives": {"loss": "sampled_softmax", "num_negatives": 256},
    "loss: sampled softmax, 1,024 shared negatives": {"loss": "sampled_softmax", "num_negatives": 1024},
    "plain blocks": {"blocks": "plain"},
    "learned positions": {"positions": "learned"},
    "plain blocks, learned positions": {"blocks": "plain", "positions": "learned"},
    "no convolution": {"conv_width": 1},
    "scores: dot products": {"temperature": None},
    "scores: temperature 0.05": {"temperature": 0.05},
    "scores: temperature 0.08": {"temperature": 0.08},
    "no average of weights": {"average_decay": None},
    "no warm-up": {"warmup_epochs": 0},
    "cosine decay of the learning rate": {"learning_rate_schedule": "cosine"},
    "learning rate 0.001": {"learning_rate": 0.001},
    "β₂ = 0.999": {"adam_beta2": 0.999},
    "last windows": {"windows": "last"},
    "dropout on attention weights": {"attention_dropout": True},
    "dropout 0.2": {"dropout_rate": 0.2},
    "dropout 0": {"dropout_rate": 0.0},
    "d = 50, 1 head": {"hidden_units": 50, "num_heads": 1},
    "d = 128": {"hidden_units": 128},
    "3 blocks": {"num_blocks": 3},
    "batches of 128 users": {"batch_slots": None},
    "batches of 1,024 slots": {"batch_slots": 1024},
}
"""By name: the settings of `train` that are changed."""


def main() -> None:
    """Measure the variants that are not in the file yet."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--source", required=True, help="interactions as parquet")
    arguments.add_argument("--recipe", default="pipeline", help="what is changed")
    arguments.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    arguments.add_argument("--minutes", type=float, default=10, help="training budget of each")
    arguments.add_argument("--epochs", type=int, help="the budget instead of minutes")
    arguments.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    arguments.add_argument("--work", default=".demo/ablation", help="folder for the run")
    arguments.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    options = arguments.parse_args()
    show_progress()
    recipe = read_yaml(HERE / "recipes" / f"{options.recipe}.yaml")
    places = {"source": options.source, "store": f"{options.work}/runs", "table": f"{options.work}/table"}
    settings = from_names({**places, **recipe})
    store, interactions = split_events(settings, Path(options.source).stem)
    file = options.out / f"{Path(options.source).stem}.{options.recipe}.ablation.json"
    report: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"rows": {}}
    if options.epochs is None:
        budget: Changes = {"minutes": options.minutes}
        limit: Changes = {"train.max_minutes": options.minutes}
    else:
        budget = {"epochs": options.epochs}
        limit = {"train.epochs": options.epochs, "train.max_minutes": None}
    asked = {"settings": as_names(from_names(recipe)), **budget}
    if report["rows"]:
        # a setting that is newer than the file has its default
        found: Changes = {name: report[name] for name in ("minutes", "epochs") if name in report}
        found["settings"] = as_names(from_names(report["settings"]))
        if found != asked:
            raise SystemExit(
                f"{file} is of other settings or another budget: remove it, or name another --out"
            )
    report |= {
        "data": data(store, options.source),
        "split": "leave-last-two-out",
        "recipe": options.recipe,
        **asked,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
    }
    for name in options.variants:
        done = report["rows"].setdefault(name, {"changes": VARIANTS[name], "runs": {}})
        for seed in options.seeds:
            if str(seed) in done["runs"]:
                continue
            changes = {f"train.{key}": value for key, value in VARIANTS[name].items()}
            settings = from_names({**places, **recipe, **changes, **limit, "train.random_state": seed})
            done["runs"][str(seed)] = measured(interactions, settings)
            done |= summary(list(done["runs"].values()))
            options.out.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            print(f"{name}, seed {seed}: {done['runs'][str(seed)]}", flush=True)


def measured(interactions: Interactions, settings: Settings) -> dict[str, float]:
    """Train once: validation NDCG@10 of the best epoch, and the test figures of its weights."""
    model = fitting.new_model(interactions.num_items, settings)
    split = interactions.split
    validation = train.some_users(split.validation, settings)
    result = fit(
        model, split.train, fitting.fit_config(interactions.num_items, settings), validation=validation
    )
    ranks = rank(
        model_scorer(model, split.test.history), split.test, unseen_items(interactions, split.test, settings)
    )
    figures = {
        f"{protocol} {metric}": float(column.mean())
        for protocol in ("full", "sampled")
        for metric, column in per_user(ranks[protocol]).items()
        if metric != "mrr"
    }
    return {
        "validation ndcg@10": result.history[result.best_epoch - 1].metric or 0.0,
        **figures,
        "epochs": len(result.history),
        "minutes": sum(epoch.seconds for epoch in result.history) / 60,
    }


def summary(runs: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and spread (standard deviation over seeds) of each figure."""
    return {
        "mean": {name: statistics.fmean(run[name] for run in runs) for name in runs[0]},
        "spread": {
            name: statistics.stdev(run[name] for run in runs) if len(runs) > 1 else 0.0 for name in runs[0]
        },
    }


if __name__ == "__main__":
    main()
