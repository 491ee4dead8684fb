"""This pipeline's SASRec beside scikit-rec's and RecTools', on one split and by one evaluator.

    python benchmarks/peers_quality.py --source ml-100k.parquet \
        --scikit-rec path/to/python --rectools path/to/python

Each peer is run by the Python of an environment of its own (`pip install scikit-rec==0.4.2
torch==2.13.0`, `pip install "rectools[torch]==0.19.0" torch==2.13.0`). It gets each user's training
events, numbered in order so that ties can't be broken otherwise, then scores all items after the
events before the test item; what ranks the test items, and the random negatives, are this project's.

Set-ups, as on scikit-rec's page: `positives` (binary cross-entropy on events of OUTCOME ≥ 4), `soft`
(binary cross-entropy, OUTCOME / 5 as label), `rating` (squared error), and `implicit` (all events are
positives; the one for data without ratings). All with the page's sizes and settings.

Columns: *honest* has trained on no test item. *leaked* is the page's own protocol: trained on all
events, the test item included; its figures say what a leak is worth and nothing else.

Writes `results/<data>.peers.json` beside this script.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))
import handover
import process
from quality import HERE, RESULTS, data, machine, show_progress, split_events

from sasrec_tasks import fitting
from sasrec_tasks.api import SASRecClassifierEstimator
from sasrec_tasks.config import Settings, Train
from sasrec_tasks.measures import popularity, rank, summarise, unseen_items
from sasrec_tasks.naming import from_names, read_yaml
from sasrec_tasks.sasrec.fit import fit
from sasrec_tasks.sasrec.scoring import Scorer, constant_scorer, model_scorer
from sasrec_tasks.sasrec.sequences import Int64, Sequences

PEERS = Path(__file__).parent / "peers"

PAGE: dict[str, Any] = {
    "hidden_units": 50, "num_blocks": 2, "num_heads": 1, "dropout_rate": 0.2, "num_negatives": 1,
    "learning_rate": 0.001, "batch_size": 128, "weight_decay": 0.0,
}  # fmt: skip
"""Settings of the page, the same in every set-up."""

OURS: dict[str, Any] = {
    name: value
    for name, value in SASRecClassifierEstimator(**PAGE).settings.items()
    if name in Train.model_fields and name not in ("loss", "device")
}
"""The same for this project, where there is more to choose: the notebook API's defaults."""

SETUPS: dict[str, dict[str, Any]] = {
    "positives": {"split.min_outcome": 4, "train.outcome": "implicit", "train.loss": "bce"},
    "soft": {"train.loss": "bce"},
    "rating": {"train.outcome": "rating", "train.loss": "mse"},
    "implicit": {"train.outcome": "implicit", "train.loss": "bce"},
}

MODELS = ["page", "rectools", "popularity"]
"""What can be asked for: both of the page's settings, RecTools' defaults, the two kinds of popularity."""

SAME = ("setup", "protocol", "model", "seed")
"""What tells the rows of a file apart."""


def main() -> None:
    """Run the set-ups asked for."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--source", required=True, help="interactions as parquet")
    arguments.add_argument("--scikit-rec", help="Python that has scikit-rec")
    arguments.add_argument("--rectools", help="Python that has rectools[torch]")
    arguments.add_argument("--setups", nargs="+", default=list(SETUPS)[:3], choices=list(SETUPS))
    arguments.add_argument(
        "--protocols", nargs="+", default=["honest", "leaked"], choices=["honest", "leaked"]
    )
    arguments.add_argument(
        "--models",
        nargs="+",
        default=MODELS,
        choices=MODELS,
        help="`page`: ours and scikit-rec, as on the page",
    )
    arguments.add_argument(
        "--rectools-epochs", nargs="*", type=int, default=[], help="rows of RecTools beside its own 3 epochs"
    )
    arguments.add_argument("--recipes", nargs="*", default=[], help="of this project, honest only")
    arguments.add_argument("--seeds", nargs="+", type=int, default=[42], help="of training")
    arguments.add_argument(
        "--windows",
        default="all",
        choices=["all", "last"],
        help="of *ours* by the page's settings; scikit-rec's are the last",
    )
    arguments.add_argument("--max-len", type=int, default=200)
    arguments.add_argument("--epochs", type=int, default=200)
    arguments.add_argument("--patience", type=int, help="of early stopping by loss; default: all epochs")
    arguments.add_argument("--work", default=".demo/peers", help="folder for runs and hand-overs")
    arguments.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    options = arguments.parse_args()
    show_progress()
    for seed in options.seeds:
        for setup in options.setups:
            bench = Bench(options, setup, seed)
            for measure in measures_of(bench, options):
                row = measure()
                print(*(row[name] for name in SAME), row["sampled"], flush=True)
                write(row, bench, options)


def measures_of(bench: Bench, options: argparse.Namespace) -> Iterator[Callable[[], dict[str, Any]]]:
    """What is measured in a set-up, one row each."""
    if "page" in options.models:
        for protocol in options.protocols:
            yield partial(bench.ours, protocol)
            if options.scikit_rec:
                yield partial(bench.scikit_rec, protocol)
    if "honest" in options.protocols:
        yield from (partial(bench.recipe, name) for name in options.recipes)
        if options.rectools and "rectools" in options.models:
            yield from (partial(bench.rectools, epochs) for epochs in [None, *options.rectools_epochs])
        if "popularity" in options.models and bench.seed == options.seeds[0]:
            yield bench.popularity
            yield bench.recent_popularity


def write(row: dict[str, Any], bench: Bench, options: argparse.Namespace) -> None:
    """Put a row into the file, in the place of an earlier one of the same set-up, protocol, model and seed."""
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / f"{Path(options.source).stem}.peers.json"
    rows = json.loads(file.read_text())["rows"] if file.exists() else []
    rows = [each for each in rows if any(each[name] != row[name] for name in SAME)]
    rows.append({**row, "date": datetime.now(UTC).date().isoformat(), "machine": machine()})
    order = [*SETUPS]
    rows.sort(key=lambda each: (order.index(each["setup"]), each["protocol"]))
    report = {
        "data": data(bench.store, options.source),
        "split": "leave-last-two-out",
        "rows": rows,
    }
    file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


class Bench:
    """One set-up and seed: the split, and the models measured on it."""

    def __init__(self, options: argparse.Namespace, setup: str, seed: int) -> None:
        self.options, self.setup, self.seed = options, setup, seed
        settings = from_names(
            {
                "source": options.source,
                "store": f"{options.work}/runs",
                "table": f"{options.work}/table",
                **SETUPS[setup],
                **{f"train.{name}": value for name, value in OURS.items()},
                "train.random_state": seed,
                "train.windows": options.windows,
                "train.max_len": options.max_len,
                "train.epochs": options.epochs,
                "train.early_stopping_patience": options.patience,
                "train.early_stopping_metric": "loss",
            }
        )
        self.store, self.interactions = split_events(settings, f"{Path(options.source).stem}.{setup}.{seed}")
        self.settings = self.store.settings()
        self.negatives = unseen_items(self.interactions, self.interactions.split.test, self.settings)

    @property
    def is_labelled(self) -> bool:
        """Whether outcomes are trained on."""
        return self.setup in ("soft", "rating")

    def ours(self, protocol: str) -> dict[str, Any]:
        """This project's model, by the settings of the page."""
        name = "ours" if self.options.windows == "all" else "ours, last windows"
        return self._ours(name, protocol, self.settings)

    def recipe(self, name: str) -> dict[str, Any]:
        """This project's model, by a recipe, the loss included."""
        places = {place: getattr(self.settings, place) for place in ("source", "store", "table")}
        setup = {key: value for key, value in SETUPS[self.setup].items() if key != "train.loss"}
        values = {
            **places,
            **read_yaml(HERE / "recipes" / f"{name}.yaml"),
            **setup,
            "train.random_state": self.seed,
        }
        return self._ours(f"ours, recipe {name}", "honest", from_names(values))

    def _ours(self, name: str, protocol: str, settings: Settings) -> dict[str, Any]:
        split = self.interactions.split
        model = fitting.new_model(self.interactions.num_items, settings)
        result = fit(
            model,
            self._labelled(split.train if protocol == "honest" else split.whole),
            replace(fitting.fit_config(self.interactions.num_items, settings), implicit=not self.is_labelled),
            validation=split.validation if settings.train.early_stopping_patience else None,
        )
        seconds = sum(epoch.seconds for epoch in result.history)
        about = {
            "version": version("sasrec-tasks"),
            "settings": settings.train.model_dump(mode="json"),
            "seconds": seconds,
            "epochs": len(result.history),
        }
        return self._row(name, protocol, model_scorer(model, split.test.history), **about)

    def scikit_rec(self, protocol: str) -> dict[str, Any]:
        """scikit-rec, by the settings of the page; it validates on events that it has trained on."""
        split = self.interactions.split
        task = {
            "loss": self.settings.train.loss,
            "settings": {
                **PAGE,
                "random_state": self.seed,
                "max_len": self.options.max_len,
                "epochs": self.options.epochs,
                "early_stopping_patience": self.options.patience,
            },
        }
        trained_on = split.train if protocol == "honest" else split.whole
        return self._peer(
            "scikit-rec", "run_scikit_rec.py", self.options.scikit_rec, protocol, task, trained_on
        )

    def rectools(self, epochs: int | None) -> dict[str, Any]:
        """RecTools with its defaults, of which three epochs are one, or with other epochs."""
        task = {"random_state": self.seed, "settings": {} if epochs is None else {"epochs": epochs}}
        name = "RecTools" if epochs is None else f"RecTools, {epochs} epochs"
        train = self.interactions.split.train
        return self._peer(name, "run_rectools.py", self.options.rectools, "honest", task, train)

    def popularity(self) -> dict[str, Any]:
        """Training events per item."""
        counts, _ = popularity(self.interactions, self.settings)
        return self._row("popularity", "honest", constant_scorer(counts))

    def recent_popularity(self) -> dict[str, Any]:
        """The newest training events per item."""
        _, recent = popularity(self.interactions, self.settings)
        return self._row("recent popularity", "honest", constant_scorer(recent))

    def _labelled(self, sequences: Sequences) -> Sequences:
        outcomes = sequences.outcomes / 5 if self.setup == "soft" else sequences.outcomes
        return Sequences(
            starts=sequences.starts,
            ends=sequences.ends,
            items=sequences.items,
            outcomes=np.asarray(outcomes, dtype=np.float32),
        )

    def _peer(
        self, name: str, script: str, python: str, protocol: str, task: dict[str, Any], train: Sequences
    ) -> dict[str, Any]:
        folder = Path(self.options.work) / "peers" / f"{self.store.run_id}.{protocol}.{name}"
        folder.mkdir(parents=True, exist_ok=True)
        num_items = self.interactions.num_items
        test = self.interactions.split.test
        self._frame(train, np.arange(len(train))).to_csv(folder / "train.csv", index=False)
        self._frame(test.history, test.users).to_csv(folder / "history.csv", index=False)
        handover.catalogue(num_items).to_csv(folder / "items.csv", index=False)
        (folder / "task.json").write_text(json.dumps({**task, "num_items": num_items}))
        subprocess.run(
            [python, str(PEERS / script), str(folder)], check=True, env=process.environment(python)
        )
        about = json.loads((folder / "peer.json").read_text())
        about["settings"] = task["settings"]
        return self._row(name, protocol, handover.scorer(np.load(folder / "scores.npy")), **about)

    def _frame(self, sequences: Sequences, users: Int64) -> pd.DataFrame:
        _, _, positions = sequences.flat()
        labels = self._labelled(sequences).outcomes[positions] if self.is_labelled else None
        return handover.frame(sequences, users, labels)

    def _row(self, name: str, protocol: str, scorer: Scorer, **about: Any) -> dict[str, Any]:
        test = self.interactions.split.test
        figures = summarise({name: rank(scorer, test, self.negatives)}, self.settings)[name]
        return {
            "setup": self.setup, "protocol": protocol, "model": name, "seed": self.seed,
            "users": len(test), **about,
            "sampled": _short(figures["sampled"]), "full": _short(figures["full"]),
        }  # fmt: skip


def _short(figures: dict[str, Any]) -> dict[str, Any]:
    names = ("hr@10", "ndcg@10")
    return {
        **{name: figures[name] for name in names},
        "ci95": {name: figures["ci95"][name] for name in names},
    }


if __name__ == "__main__":
    main()
