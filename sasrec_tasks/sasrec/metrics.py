"""Ranking metrics with honest ties, and their confidence intervals.

A rank is kept as two counts: how many candidates score *better* than the target and how many
*tie* with it. A tie counts at its expected value under random order, so a model that returns a
constant gets what chance gets, and one that orders ties by item id gains nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sasrec_tasks.sasrec.sequences import Int64

Float64 = npt.NDArray[np.float64]

MISS = 2**62
"""`Ranks.better` of a target that cannot be recommended at all: every metric is 0, however few the
candidates are."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Where each user's target came out, (users,) each."""

    better: Int64  # candidates with a higher score, or MISS
    tied: Int64  # other candidates with the same score

    def __len__(self) -> int:
        return len(self.better)


def per_user(ranks: Ranks, k: int = 10) -> dict[str, Float64]:
    """``hr@k``, ``ndcg@k`` and ``mrr`` of each user, (users,) float64 in [0, 1].

    One relevant item per user, so HR@k is recall@k, and NDCG@k is 1 / log2(rank + 1) where
    rank ≤ k, else 0 (Kang & McAuley 2018, section IV-C).
    """
    found = ranks.better < MISS
    first = np.where(found, ranks.better, 0)
    last = first + ranks.tied
    rank = np.arange(1, int(last.max(initial=0)) + 2)

    def expected(gain: Float64) -> Float64:
        """Mean gain over the ranks a target can take: better + 1 … better + tied + 1."""
        total = np.concatenate([[0.0], np.cumsum(gain)])
        mean: Float64 = np.where(found, (total[last + 1] - total[first]) / (ranks.tied + 1), 0.0)
        return mean

    return {
        f"hr@{k}": expected((rank <= k).astype(float)),
        f"ndcg@{k}": expected((rank <= k) / np.log2(rank + 1)),
        "mrr": expected(1 / rank),
    }


def bootstrap(values: Mapping[str, Float64], *, samples: int, random_state: int) -> tuple[list[str], Float64]:
    """Means of the columns over users drawn with replacement, the same users for every column.

    Args:
        values: per-user figures, (users,) each.

    Returns:
        The columns' names, and (samples, columns) means. Being paired, the difference of two
        columns has the paired-bootstrap distribution.
    """
    names = list(values)
    table = np.stack([values[name] for name in names], axis=1)  # (users, columns)
    users = len(table)
    random = np.random.default_rng(random_state)
    means = np.empty((samples, len(names)))
    for sample in range(samples):
        drawn = np.bincount(random.integers(0, users, users), minlength=users)
        means[sample] = drawn @ table / users
    return names, means


def interval(means: Float64) -> tuple[float, float]:
    """The 95% percentile interval of bootstrap means, (samples,)."""
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
