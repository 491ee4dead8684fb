"""RecTools' SASRec on a hand-over folder: trains, then scores every item for every history.

Run by the Python of an environment that has rectools[torch]; knows nothing of this project.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from lightning_fabric import seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel


def main(folder: Path) -> None:
    """Read `task.json`, `train.csv` and `history.csv`; write `scores.npy` and `peer.json`."""
    task = json.loads((folder / "task.json").read_text())
    seed_everything(task["random_state"], workers=True)
    model = SASRecModel(deterministic=True, **task["settings"])
    started = time.monotonic()
    model.fit(dataset(folder / "train.csv"))
    seconds = time.monotonic() - started
    history = dataset(folder / "history.csv")
    users = np.sort(pd.read_csv(folder / "history.csv")["USER_ID"].unique())
    found = model.recommend(
        users=users,
        dataset=history,
        k=task["num_items"],
        filter_viewed=False,
        on_unsupported_targets="ignore",
    )
    scores = np.full((len(users), task["num_items"]), -np.inf, np.float32)
    scores[np.searchsorted(users, found[Columns.User]), found[Columns.Item] - 1] = found[Columns.Score]
    np.save(folder / "scores.npy", scores)
    (folder / "peer.json").write_text(json.dumps({"version": version("rectools"), "seconds": seconds}))


def dataset(file: Path) -> Dataset:
    """The interactions as RecTools takes them."""
    frame = pd.read_csv(file)
    return Dataset.construct(
        pd.DataFrame(
            {
                Columns.User: frame["USER_ID"],
                Columns.Item: frame["ITEM_ID"],
                Columns.Weight: frame["OUTCOME"],
                Columns.Datetime: pd.to_datetime(frame["TIMESTAMP"], unit="s"),
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
