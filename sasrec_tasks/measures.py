"""How a scorer is measured on the test items: the three protocols, the baselines, the intervals.

`evaluate` measures the new model with it and `gate` the champion, on the same items.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sasrec_tasks.config import Settings
from sasrec_tasks.contents import Interactions
from sasrec_tasks.sasrec.metrics import Float64, Ranks, bootstrap, interval, per_user
from sasrec_tasks.sasrec.ranking import Scorer, blocks, rank_all, rank_sampled, sample_unseen, top_k
from sasrec_tasks.sasrec.sequences import Float32, HeldOut, Int64

PROTOCOLS = ("sampled", "full", "full_with_seen")


def unseen_items(data: Interactions, settings: Settings) -> npt.NDArray[np.int64]:
    """(users, negatives) random items outside each test user's whole history; padding where too few."""
    return sample_unseen(
        data.events.select(data.split.test.users),
        data.num_items,
        settings.evaluate.negatives,
        random_state=settings.evaluate.random_state,
    )


def popularity(data: Interactions, settings: Settings) -> tuple[Float32, Float32]:
    """Training events per item, all of them and the newest: (num_items + 1,) each."""
    events = training_events(data, settings)
    counts = np.bincount(data.events.items[events], minlength=data.num_items + 1)
    times = data.timestamps[events]
    since = np.quantile(times, 1 - settings.evaluate.recent_share, method="lower")
    recent = np.bincount(data.events.items[events[times >= since]], minlength=data.num_items + 1)
    return counts.astype(np.float32), recent.astype(np.float32)


def training_events(data: Interactions, settings: Settings) -> Int64:
    """Positions, into the arrays of all events, of those that are trained on."""
    if settings.split.min_outcome is None:
        return data.split.train.flat()[2]
    kept = np.flatnonzero(data.events.outcomes >= settings.split.min_outcome)
    return kept[data.split.train.flat()[2]]


def rank(scorer: Scorer, test: HeldOut, negatives: npt.NDArray[np.int64]) -> dict[str, Ranks]:
    """The ranks of the test items under each protocol."""
    served, with_seen = rank_all(scorer, test)
    return {
        "sampled": rank_sampled(scorer, test, negatives),
        "full": served,
        "full_with_seen": with_seen,
    }


def summarise(ranks: dict[str, dict[str, Ranks]], settings: Settings) -> dict[str, dict[str, Any]]:
    """Means over users with 95% bootstrap intervals: scorer → protocol → figures."""
    values: dict[str, Float64] = {
        f"{scorer}/{protocol}/{metric}": column
        for scorer, protocols in ranks.items()
        for protocol, counts in protocols.items()
        for metric, column in per_user(counts).items()
    }
    names, means = bootstrap(
        values, samples=settings.evaluate.bootstrap_samples, random_state=settings.evaluate.random_state
    )
    figures: dict[str, dict[str, Any]] = {}
    for index, name in enumerate(names):
        scorer, protocol, metric = name.split("/")
        block = figures.setdefault(scorer, {}).setdefault(protocol, {"ci95": {}})
        block[metric] = float(values[name].mean())
        block["ci95"][metric] = list(interval(means[:, index]))
    return figures


def coverage(scorer: Scorer, test: HeldOut, num_items: int, k: int = 10) -> float:
    """Share of the catalogue that is in at least one user's top k, seen items left out."""
    shown = np.zeros(num_items + 1, dtype=bool)
    for rows in blocks(len(test)):
        scores, items = top_k(scorer, test.seen.select(rows), rows, k)
        shown[items[scores > -np.inf].cpu().numpy()] = True
    return float(shown[1:].mean())
