"""How a scorer is measured on the test items: the three protocols, the baselines, the intervals.

`evaluate` measures the new model with it and `gate` the champion, on the same items.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from sasrec_tasks.config import Settings
from sasrec_tasks.contents import Interactions
from sasrec_tasks.sasrec import ranking
from sasrec_tasks.sasrec.metrics import Float64, Ranks, bootstrap, interval, per_user
from sasrec_tasks.sasrec.ranking import Placed
from sasrec_tasks.sasrec.scoring import Scorer
from sasrec_tasks.sasrec.sequences import COUNTED_USERS, Float32, HeldOut, Int64, row_blocks
from sasrec_tasks.sasrec.unseen import sample_unseen

PROTOCOLS = ("sampled", "full", "full_with_seen")
CUT_OFFS = (1, 5, 10, 20)
LENGTHS = (1, 5, 10, 20, 50, 100, 200)
"""Least history lengths of the buckets of `by_history_length`."""


def test_users(data: Interactions, settings: Settings) -> HeldOut:
    """Who is measured: all who have a test item, or `evaluate.test_users` of them, drawn at random, in order."""
    return data.split.test.sample(settings.evaluate.test_users, settings.evaluate.random_state)


def unseen_items(data: Interactions, test: HeldOut, settings: Settings) -> npt.NDArray[np.int64]:
    """(users, negatives) random items outside each test user's whole history; padding where too few."""
    return sample_unseen(
        data.events.select(test.users),
        data.num_items,
        settings.evaluate.negatives,
        random_state=settings.evaluate.random_state,
    )


def popularity(data: Interactions, settings: Settings) -> tuple[Float32, Float32]:
    """Training events per item, all of them and the newest: (num_items + 1,) each.

    Some users are looked at at a time; of each event its timestamp is held.
    """
    counts = data.split.train.item_counts(data.num_items)
    recent = np.zeros_like(counts)
    times = np.empty(int(data.split.train.lengths.sum()), np.int64)
    if not len(times):
        return counts.astype(np.float32), recent.astype(np.float32)
    filled = 0
    for events in _training_events(data, settings):
        times[filled : filled + len(events)] = data.timestamps[events]
        filled += len(events)
    oldest = int((len(times) - 1) * (1 - settings.evaluate.recent_share))
    times.partition(oldest)
    for events in _training_events(data, settings):
        newest = events[data.timestamps[events] >= times[oldest]]
        recent += np.bincount(data.events.items[newest], minlength=len(recent))
    return counts.astype(np.float32), recent.astype(np.float32)


def _training_events(data: Interactions, settings: Settings) -> Iterator[Int64]:
    """Positions, into the arrays of all events, of those that are trained on, some users at a time."""
    least, train = settings.split.min_outcome, data.split.train
    kept = None if least is None else np.flatnonzero(data.events.outcomes >= least)
    for users in row_blocks(len(train), COUNTED_USERS):
        positions = train.select(users).flat()[2]
        yield positions if kept is None else kept[positions]


def rank(scorer: Scorer, test: HeldOut, negatives: npt.NDArray[np.int64]) -> dict[str, Ranks]:
    """The ranks of the test items under each protocol."""
    return by_protocol(ranking.rank(scorer, test, negatives, k=0))


def by_protocol(placed: Placed) -> dict[str, Ranks]:
    """The ranks by the names of the protocols."""
    return {"sampled": placed.sampled, "full": placed.served, "full_with_seen": placed.with_seen}


def summarise(ranks: dict[str, dict[str, Ranks]], settings: Settings) -> dict[str, dict[str, Any]]:
    """Means over users, those at 10 and MRR with 95% bootstrap intervals: scorer → protocol → figures."""
    values: dict[str, Float64] = {
        f"{scorer}/{protocol}/{metric}": column
        for scorer, protocols in ranks.items()
        for protocol, counts in protocols.items()
        for metric, column in per_user(counts).items()
    }
    names, means = bootstrap(
        values, samples=settings.evaluate.bootstrap_samples, random_state=settings.evaluate.random_state
    )
    figures: dict[str, dict[str, Any]] = {
        scorer: {protocol: {"ci95": {}, **averages(counts)} for protocol, counts in protocols.items()}
        for scorer, protocols in ranks.items()
    }
    for index, name in enumerate(names):
        scorer, protocol, metric = name.split("/")
        figures[scorer][protocol]["ci95"][metric] = list(interval(means[:, index]))
    return figures


def averages(ranks: Ranks) -> dict[str, float]:
    """Mean over users of HR@k, NDCG@k, recall@k (one relevant item: the same as HR@k) and MRR."""
    means: dict[str, float] = {}
    for k in CUT_OFFS:
        means |= {metric: float(column.mean()) for metric, column in per_user(ranks, k).items()}
        means[f"recall@{k}"] = means[f"hr@{k}"]
    return means


def by_history_length(ranks: dict[str, dict[str, Ranks]], test: HeldOut) -> list[dict[str, Any]]:
    """HR@10, NDCG@10 and MRR of users with histories of similar length, shortest first.

    Args:
        ranks: scorer → protocol → ranks; those of "model" come first in a bucket, the others are its baselines.
    """
    lengths = test.history.lengths
    figures = []
    for least, more in zip(LENGTHS, (*LENGTHS[1:], np.inf), strict=True):
        chosen = (lengths >= least) & (lengths < more)
        if not chosen.any():
            continue
        bucket: dict[str, Any] = {
            "history_length": [least, None if more == np.inf else more - 1],
            "users": int(chosen.sum()),
        }
        means = {
            scorer: {protocol: means_of(every, chosen) for protocol, every in protocols.items()}
            for scorer, protocols in ranks.items()
        }
        figures.append({**bucket, **means.pop("model"), "baselines": means})
    return figures


def means_of(ranks: Ranks, chosen: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Mean of HR@10, NDCG@10 and MRR over some of the users."""
    some = Ranks(better=ranks.better[chosen], tied=ranks.tied[chosen])
    return {metric: float(column.mean()) for metric, column in per_user(some).items()}


def describe(served: Int64, counts: Float32, users: int) -> dict[str, float]:
    """What recommended items are like.

    Args:
        served: the items of all test users, one after another.
        counts: (num_items + 1,) training events per item.
        users: users with training events.

    Returns:
        coverage@10: share of the catalogue that is in somebody's top 10.
        novelty@10: mean over users and items of −log₂(events of the item / users), in bits: how
            surprising it is to meet the item (Zhou et al., PNAS 2010); an item without an event counts
            as one with one.
        average_popularity@10: mean over users and items of the item's training events, the popularity
            bias (Yin et al., VLDB 2012).
    """
    novelty = -np.log2(np.maximum(counts, 1) / max(users, 1))
    return {
        "coverage@10": len(np.unique(served)) / (len(counts) - 1),
        "novelty@10": float(novelty[served].sum() / max(len(served), 1)),
        "average_popularity@10": float(counts[served].sum() / max(len(served), 1)),
    }
