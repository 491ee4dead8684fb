"""What a peer's script is handed as CSV, and its scores as a scorer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from sasrec_tasks.sasrec.scoring import Scorer
from sasrec_tasks.sasrec.sequences import Float32, Int64, Sequences


def frame(sequences: Sequences, users: Int64, labels: Float32 | None = None) -> pd.DataFrame:
    """USER_ID, ITEM_ID (index), OUTCOME, and TIMESTAMP: events are numbered, so that none tie.

    Args:
        users: (len(sequences),) whose each sequence is.
        labels: OUTCOME of each event, in order; default: 1.
    """
    rows, columns, positions = sequences.flat()
    return pd.DataFrame(
        {
            "USER_ID": users[rows],
            "ITEM_ID": sequences.items[positions],
            "OUTCOME": np.ones(len(rows), np.float32) if labels is None else labels,
            "TIMESTAMP": columns,
        }
    )


def catalogue(num_items: int) -> pd.DataFrame:
    """ITEM_ID of all items: their indices."""
    return pd.DataFrame({"ITEM_ID": range(1, num_items + 1)})


def scorer(scores: npt.NDArray[np.float32]) -> Scorer:
    """Scores (users, num_items) that a peer has left, padding in front."""

    def score(rows: Int64) -> torch.Tensor:
        table = np.full((len(rows), scores.shape[1] + 1), -np.inf, np.float32)
        table[:, 1:] = scores[rows]
        return torch.from_numpy(table)

    return score
