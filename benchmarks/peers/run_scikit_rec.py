"""scikit-rec's SASRec on a hand-over folder: trains, then scores every item for every history.

Run by the Python of an environment that has scikit-rec; knows nothing of this project.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from skrec.dataset.interactions_dataset import InteractionsDataset
from skrec.dataset.items_dataset import ItemsDataset
from skrec.estimator.sequential.sasrec_estimator import SASRecClassifierEstimator, SASRecRegressorEstimator
from skrec.recommender.sequential.sequential_recommender import SequentialRecommender
from skrec.scorer.sequential import SequentialScorer


def main(folder: Path) -> None:
    """Read `task.json`, `train.csv` and `history.csv`; write `scores.npy` and `peer.json`."""
    task = json.loads((folder / "task.json").read_text())
    kind = SASRecRegressorEstimator if task["loss"] == "mse" else SASRecClassifierEstimator
    recommender = SequentialRecommender(
        SequentialScorer(kind(**task["settings"])), max_len=task["settings"]["max_len"]
    )
    started = time.monotonic()
    recommender.train(
        items_ds=ItemsDataset(data_location=str(folder / "items.csv")),
        interactions_ds=InteractionsDataset(data_location=str(folder / "train.csv")),
        use_validation=task["settings"].get("early_stopping_patience") is not None,
    )
    seconds = time.monotonic() - started
    history = pd.read_csv(folder / "history.csv")
    scores = recommender.score_items(interactions=history)
    columns = [str(item) for item in range(1, task["num_items"] + 1)]
    scores.columns = [str(name) for name in scores.columns]
    np.save(folder / "scores.npy", scores[columns].to_numpy(np.float32))  # rows: users, in order
    (folder / "peer.json").write_text(json.dumps({"version": version("scikit-rec"), "seconds": seconds}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
