"""What the stages of `speed.py` share: the data, and the peers' answers, each asked for once."""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import events
import handover
import process
from peers_quality import PAGE, PEERS
from quality import HERE, data, split_events
from stages import validation_ndcg

from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.contents import Interactions
from sasrec_tasks.naming import from_names, read_yaml

Row = dict[str, Any]

MAX_LEN = 200
SCIKIT_REC = {**PAGE, "max_len": MAX_LEN, "random_state": 42}
RECTOOLS: Row = {
    "n_blocks": 2,
    "session_max_len": MAX_LEN,
    "dropout_rate": 0.2,
    "lr": 0.001,
    "batch_size": 128,
}
RECTOOLS_BCE = {**RECTOOLS, "n_factors": 50, "n_heads": 1, "loss": "BCE", "n_negatives": 1}
RECTOOLS_SOFTMAX = {**RECTOOLS, "n_factors": 64, "n_heads": 2, "loss": "softmax"}

PAPER = read_yaml(HERE / "recipes" / "paper.yaml")
OURS_BCE = {
    **PAPER,
    "train.blocks": "narrow",  # the paper's feed-forward net, and RecTools'
    "train.windows": "last",
    "train.num_negatives": 1,
    "train.negative_sampling": "other",
    "train.dropout_rate": 0.2,
}
"""The same loss, positions and dropout as the peers, but for that on attention weights, and RecTools' sizes:
scikit-rec's feed-forward net is four times as wide."""

OURS_SOFTMAX = read_yaml(HERE / "recipes" / "pipeline.yaml")
"""The pipeline's defaults."""

OURS_QUICK = {
    **OURS_SOFTMAX,
    "train.windows": "last",
    "train.warmup_epochs": 0.25,
    "train.average_decay": 0.99,
}
"""The pipeline's defaults for who has a minute: fewer positions, and a learning rate that is high at once."""


class Bench:
    """The data of all stages, and the peers' answers, each asked for once."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.work: Path = options.work.resolve()
        self._answers: dict[str, process.Result] = {}

    # The real data

    def run(self) -> str:
        """A run that has been split."""
        store, _ = self._split()
        return store.uri

    def _split(self) -> tuple[RunStore, Interactions]:
        settings = from_names(
            {
                "source": self.options.source,
                "store": f"{self.work}/runs",
                "table": f"{self.work}/table",
                "gate.force_publish": True,
                **OURS_BCE,
                "train.epochs": 1,
            }
        )
        return split_events(settings, Path(self.options.source).stem)

    def limits(self) -> process.Result:
        """Operations of the work on the real data, and how many the machine can do a second."""
        if "limits" not in self._answers:
            self._answers["limits"] = self.stage("limits", run=self.run(), settings=OURS_BCE)
        return self._answers["limits"]

    def stage(self, name: str, **task: Any) -> process.Result:
        """One of `stages.py`, in a process of its own."""
        return process.run(sys.executable, str(HERE / "stages.py"), name, **task)

    def repeated(self, name: str, **task: Any) -> process.Result:
        """The same several times: all seconds together, the largest memory."""
        return together([self.stage(name, **task) for _ in range(self.options.repeats)])

    # Peers

    def peer(self, name: str, settings: Row, epochs: int) -> process.Result:
        """Seconds of an epoch, of scoring, of `recommend`; validation NDCG@10 after ``epochs``, if not known.

        Args:
            name: begins with the peer's.
            settings: the peer's own; of RecTools, ``precision`` is its trainer's.
        """
        if name in self._answers:
            return self._answers[name]
        python, distribution, script = {
            "scikit-rec": (self.options.scikit_rec, "scikit-rec", "time_scikit_rec.py"),
            "RecTools": (self.options.rectools, "rectools", "time_rectools.py"),
        }[name.partition(" ")[0]]
        targets_file = self.options.out / "speed.targets.json"
        targets = json.loads(targets_file.read_text(encoding="utf-8")) if targets_file.exists() else {}
        store, interactions = self._split()
        version = self._version(python, distribution)
        about = {
            "peer": name,
            "version": version,
            "settings": settings,
            "epochs": epochs,
            "data": data(store, ""),
        }
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        folder = self.work / "peers" / name
        folder.mkdir(parents=True, exist_ok=True)
        split = interactions.split
        for file, sequences, users in (
            ("train", split.train, np.arange(len(split.train))),
            ("validation", split.validation.history, split.validation.users),
            ("whole", split.whole, np.arange(len(split.whole))),
        ):
            handover.frame(sequences, users).to_csv(folder / f"{file}.csv", index=False)
        handover.catalogue(interactions.num_items).to_csv(folder / "items.csv", index=False)
        is_known = key in targets
        answer = process.run(
            python,
            str(PEERS / script),
            folder=str(folder),
            settings=settings,
            random_state=42,
            num_items=interactions.num_items,
            epochs=min(epochs, self._timed_epochs(name)) if is_known else epochs,
            repeats=self.options.repeats,
        )
        if not is_known:
            scorer = handover.scorer(np.load(folder / "scores.npy"))
            quality = validation_ndcg(scorer, interactions, store.settings())
            targets[key] = {**about, "ndcg@10": quality, "date": datetime.now(UTC).date().isoformat()}
            targets_file.write_text(json.dumps(targets, indent=2) + "\n", encoding="utf-8")
        self._answers[name] = {**answer, "quality": targets[key]["ndcg@10"], "name": f"{name} {version}"}
        return self._answers[name]

    def _timed_epochs(self, name: str) -> int:
        """Epochs that are timed; scikit-rec's first is not, and softmax's take minutes each."""
        repeats: int = self.options.repeats
        return {"scikit-rec": repeats + 1, "RecTools BCE": repeats}.get(name, 1)

    def _version(self, python: str, distribution: str) -> str:
        code = f"from importlib.metadata import version; print(version({distribution!r}))"
        return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()

    # Made-up data

    def big(self) -> Path:
        """The large file."""
        options = self.options
        file = self.work / f"{options.events}.{options.users}.{options.items}.parquet"
        if not file.exists():
            part = file.with_suffix(".part")
            events.write(part, options.events, options.users, options.items, bad=0.01)
            part.rename(file)
        return file


def together(found: list[process.Result]) -> process.Result:
    """Several runs of a stage as one: all seconds, the largest memory."""
    return {
        **found[0],
        "seconds": [second for each in found for second in each["seconds"]],
        "peak_rss_mb": max(each["peak_rss_mb"] for each in found),
    }
