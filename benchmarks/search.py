"""Search for a recipe: train with settings drawn by Optuna, look at validation items only.

    python benchmarks/search.py --source ml-1m.parquet --recipe pipeline --minutes 10 --trials 20 \
        --space train.dropout_rate=0.1:0.5 train.learning_rate=0.0005:0.004:log train.loss=softmax,gbce

Each trial trains for at most `--minutes` and is worth its best validation NDCG@10 (full ranking,
unseen items); the test items are not read. A trial that is behind the median of the others at the
same epoch is given up. The study lies in an SQLite file under `--work`: the same command goes on with
it, from several processes if need be. Writes `results/<data>.<recipe>.search.json`: every trial with
its settings, so that it can be said how many a recipe has cost.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import optuna

sys.path.insert(0, str(Path(__file__).parent))
from quality import HERE, RESULTS, data, machine, show_progress, split_events

from sasrec_tasks import fitting, train
from sasrec_tasks.naming import from_names, parse_assignments, read_yaml
from sasrec_tasks.sasrec.checkpoint import Epoch
from sasrec_tasks.sasrec.fit import fit

FIRST_EPOCHS = 5
"""Epochs before a trial may be given up."""


def main() -> None:
    """Go on with the study until it has as many trials as asked for."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--source", required=True, help="interactions as parquet")
    arguments.add_argument("--recipe", default="pipeline", help="what is not searched for")
    arguments.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="one more setting"
    )
    arguments.add_argument("--space", nargs="+", required=True, help="NAME=LOW:HIGH[:log] or NAME=A,B,C")
    arguments.add_argument("--minutes", type=float, default=10, help="training budget of a trial")
    arguments.add_argument("--trials", type=int, default=20, help="of the study in all")
    arguments.add_argument("--work", type=Path, default=Path(".demo/search"))
    arguments.add_argument("--out", type=Path, default=RESULTS)
    options = arguments.parse_args()
    show_progress()
    name = f"{Path(options.source).stem}.{options.recipe}"
    fixed = read_yaml(HERE / "recipes" / f"{options.recipe}.yaml") | parse_assignments(options.set)
    fixed |= {"train.max_minutes": options.minutes, "train.early_stopping_metric": "ndcg@10"}
    places = {"source": options.source, "store": f"{options.work}/runs", "table": f"{options.work}/table"}
    store, interactions = split_events(from_names({**places, **fixed}), name)

    def objective(trial: optuna.Trial) -> float:
        drawn = {
            setting: draw(trial, setting, choices) for setting, choices in map(parse_space, options.space)
        }
        trial.set_user_attr("settings", drawn)
        settings = from_names({**places, **fixed, **drawn})
        best = 0.0

        def on_epoch(epoch: Epoch) -> None:
            nonlocal best
            best = max(best, epoch.metric or 0.0)
            trial.report(best, epoch.epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        model = fitting.new_model(interactions.num_items, settings)
        fit(
            model,
            interactions.split.train,
            fitting.fit_config(interactions.num_items, settings),
            validation=train.some_users(interactions.split.validation, settings),
            on_epoch=on_epoch,
        )
        return best

    study = optuna.create_study(
        study_name=name,
        storage=f"sqlite:///{options.work}/{name}.db",
        load_if_exists=True,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(),  # a fixed seed would draw the same trials at each call
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=FIRST_EPOCHS),
    )
    asked = {"fixed": fixed, "space": options.space}
    if study.user_attrs and study.user_attrs != asked:
        raise SystemExit(f"{options.work}/{name}.db holds a study of {study.user_attrs}: name another --work")
    for key, value in asked.items():
        study.set_user_attr(key, value)
    done = len([trial for trial in study.trials if trial.state.is_finished()])
    study.optimize(objective, n_trials=max(options.trials - done, 0), catch=(FloatingPointError,))
    report = {
        "data": data(store, options.source),
        "split": "leave-last-two-out; validation items only",
        "worth": "best validation NDCG@10, full ranking",
        "fixed": fixed,
        "space": options.space,
        "machine": machine(),
        "trials": [
            {
                "number": trial.number,
                "state": trial.state.name.lower(),
                "value": trial.value,
                "epochs": len(trial.intermediate_values),
                "minutes": trial.duration.total_seconds() / 60 if trial.duration else None,
                "settings": trial.user_attrs.get("settings"),
            }
            for trial in study.trials
        ],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{name}.search.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    best = max(study.trials, key=lambda trial: -1 if trial.value is None else trial.value)
    print(f"{len(study.trials)} trials, best {best.value}: {best.user_attrs.get('settings')}")


def parse_space(text: str) -> tuple[str, list[str]]:
    """`name=low:high[:log]` or `name=a,b,c` → name, and its parts."""
    name, equals, choices = text.partition("=")
    if not equals:
        raise SystemExit(f"--space {text}: write it as NAME=LOW:HIGH, NAME=LOW:HIGH:log or NAME=A,B,C")
    return name, [choices] if ":" in choices else choices.split(",")


def draw(trial: optuna.Trial, name: str, choices: list[str]) -> Any:
    """A value of a setting."""
    if ":" not in choices[0]:
        chosen = trial.suggest_categorical(name, choices)
        return parse_assignments([f"{name}={chosen}"])[name]
    low, high, *log = choices[0].split(":")
    if "." in low + high or "e" in low + high:
        return trial.suggest_float(name, float(low), float(high), log=bool(log))
    return trial.suggest_int(name, int(low), int(high), log=bool(log))


if __name__ == "__main__":
    main()
