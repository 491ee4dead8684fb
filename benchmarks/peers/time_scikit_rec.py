"""scikit-rec's SASRec on a hand-over folder: seconds of an epoch, of scoring, and of `recommend`.

Run by the Python of an environment that has scikit-rec; knows nothing of this project.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from skrec.dataset.interactions_dataset import InteractionsDataset
from skrec.dataset.items_dataset import ItemsDataset
from skrec.estimator.sequential import sasrec_estimator
from skrec.estimator.sequential.sasrec_estimator import SASRecClassifierEstimator
from skrec.recommender.sequential.sequential_recommender import SequentialRecommender
from skrec.scorer.sequential import SequentialScorer


class Clock(logging.Handler):
    """The moments at which an epoch was logged as finished."""

    def __init__(self) -> None:
        super().__init__()
        self.moments: list[float] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Take the time."""
        if record.getMessage().startswith("Epoch ["):
            self.moments.append(time.perf_counter())


def main(file: Path) -> None:
    """Train on `train.csv` for `epochs`; score the histories of `validation.csv`; serve `whole.csv`."""
    task = json.loads(file.read_text())
    folder = Path(task["folder"])
    settings = {**task["settings"], "epochs": task["epochs"], "verbose": 1}
    estimator = SASRecClassifierEstimator(**settings)
    recommender = SequentialRecommender(SequentialScorer(estimator), max_len=settings["max_len"])
    clock = Clock()
    sasrec_estimator.logger.addHandler(clock)
    sasrec_estimator.logger.setLevel(logging.INFO)
    recommender.train(
        items_ds=ItemsDataset(data_location=str(folder / "items.csv")),
        interactions_ds=InteractionsDataset(data_location=str(folder / "train.csv")),
    )
    history, whole = pd.read_csv(folder / "validation.csv"), pd.read_csv(folder / "whole.csv")
    scores = recommender.score_items(interactions=history)
    scores.columns = [str(name) for name in scores.columns]
    columns = [str(item) for item in range(1, task["num_items"] + 1)]
    np.save(folder / "scores.npy", scores[columns].to_numpy(np.float32))  # rows: users, in order
    sequences = recommender._build_sequences(whole)
    found: dict[str, Any] = {
        "version": version("scikit-rec"),
        "epoch": list(np.diff(clock.moments)),
        "score": timed(task["repeats"], lambda: estimator.predict_proba_with_embeddings(sequences)),
        "recommend": timed(task["repeats"], lambda: recommender.recommend(interactions=whole, top_k=10)),
    }
    Path(task["result"]).write_text(json.dumps(found))


def timed(repeats: int, call: Callable[[], Any]) -> list[float]:
    """Seconds of each call, after one that is not counted."""
    seconds = []
    for _ in range(1 + repeats):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
