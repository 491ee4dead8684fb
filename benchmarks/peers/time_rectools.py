"""RecTools' SASRec on a hand-over folder: seconds of an epoch, and of `recommend`.

Run by the Python of an environment that has rectools[torch]; knows nothing of this project.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from lightning_fabric import seed_everything
from pytorch_lightning import Callback, Trainer
from rectools import Columns
from rectools.models import SASRecModel
from run_rectools import dataset


class Clock(Callback):  # type: ignore[misc]
    """Seconds of each epoch; of the class, since RecTools trains with a copy of its trainer."""

    seconds: ClassVar[list[float]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Take the time."""
        self.started = now()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Take the time again."""
        self.seconds.append(now() - self.started)


def now() -> float:
    """Seconds on a clock, when a GPU has done what it was asked for."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def main(file: Path) -> None:
    """Train on `train.csv` for `epochs`; score the histories of `validation.csv`; serve `whole.csv`."""
    task = json.loads(file.read_text())
    folder = Path(task["folder"])
    seed_everything(task["random_state"], workers=True)
    precision = task["settings"].pop("precision", "32-true")

    def trainer() -> Trainer:
        return Trainer(
            max_epochs=task["epochs"],
            min_epochs=task["epochs"],
            enable_progress_bar=False,
            enable_model_summary=False,
            logger=False,
            enable_checkpointing=False,
            devices=1,
            precision=precision,
            callbacks=[Clock()],
        )

    model = SASRecModel(**task["settings"], get_trainer_func=trainer)
    model.fit(dataset(folder / "train.csv"))
    history = dataset(folder / "validation.csv")
    users = np.sort(pd.read_csv(folder / "validation.csv")["USER_ID"].unique())
    found = model.recommend(
        users, history, k=task["num_items"], filter_viewed=False, on_unsupported_targets="ignore"
    )
    scores = np.full((len(users), task["num_items"]), -np.inf, np.float32)
    scores[np.searchsorted(users, found[Columns.User]), found[Columns.Item] - 1] = found[Columns.Score]
    np.save(folder / "scores.npy", scores)
    whole, seconds = dataset(folder / "whole.csv"), []
    everyone = np.sort(pd.read_csv(folder / "whole.csv")["USER_ID"].unique())
    for _ in range(1 + task["repeats"]):
        started = now()
        model.recommend(everyone, whole, k=10, filter_viewed=True)
        seconds.append(now() - started)
    result = {"version": version("rectools"), "epoch": Clock.seconds, "recommend": seconds[1:]}
    Path(task["result"]).write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
