"""What becomes of new items: how well they are ranked, and how often they are recommended at all.

The figures of `evaluate`, by the age of the test item (`item_age`): two models may be equally good on the mean while
one of them never recommends what is new.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sasrec_tasks.config import Settings
from sasrec_tasks.contents import Interactions
from sasrec_tasks.measures import means_of, test_users
from sasrec_tasks.sasrec.metrics import Float64, Ranks
from sasrec_tasks.sasrec.sequences import PADDING, Float32, Int64

AGES = (0, 1, 7, 30, 90)
"""Least ages of the buckets, in days."""

Mask = npt.NDArray[np.bool_]


def by_item_age(
    data: Interactions,
    settings: Settings,
    *,
    ages: Float64,
    trained_on: Float32,
    ranks: dict[str, dict[str, Ranks]],
    served: Mapping[str, Int64],
) -> dict[str, Any]:
    """The figures of each bucket, youngest first, whether it holds items or not; and of items without a training event.

    Args:
        ages: (num_items + 1,) days.
        trained_on: (num_items + 1,) training events per item.
        ranks: scorer → protocol → ranks of the test items; those of "model" come first in a bucket.
        served: scorer → items in the top 10 of the test users, one after another.

    Returns:
        by_item_age: a list of dicts, item_age_days (at least, less than; None: no limit) and the figures.
        never_trained_on: the figures of the items that are nothing but validation or test items, or are below
            `split.min_outcome`, of any age.

        The figures: items, share_of_catalogue, share_of_recent_events (of the newest `evaluate.recent_share` of all
        events), by scorer share_of_recommendations and items_recommended (distinct ones), users (whose test item it
        is), and the means over these users per protocol, for the baselines, too: None without users.
    """
    every = np.arange(data.num_items + 1) != PADDING
    recent = _recent(data, settings.evaluate.recent_share)
    targets = test_users(data, settings).targets
    listed = {name: np.bincount(items, minlength=data.num_items + 1) for name, items in served.items()}

    def figures(chosen: Mask) -> dict[str, Any]:
        users = chosen[targets]
        means = {
            scorer: {
                protocol: means_of(each, users) if users.any() else None for protocol, each in of.items()
            }
            for scorer, of in ranks.items()
        }
        return {
            "items": int(chosen.sum()),
            "share_of_catalogue": _share(every, chosen),
            "share_of_recent_events": _share(recent, chosen),
            "share_of_recommendations": {name: _share(counts, chosen) for name, counts in listed.items()},
            "items_recommended": {
                name: int((chosen & (counts > 0)).sum()) for name, counts in listed.items()
            },
            "users": int(users.sum()),
            **means.pop("model"),
            "baselines": means,
        }

    buckets = []
    for least, less in zip(AGES, (*AGES[1:], None), strict=True):
        chosen = every & (ages >= least) & (ages < (np.inf if less is None else less))
        buckets.append({"item_age_days": [least, less], **figures(chosen)})
    return {"by_item_age": buckets, "never_trained_on": figures(every & (trained_on == 0))}


def _recent(data: Interactions, share: float) -> Int64:
    """(num_items + 1,) events per item among the newest."""
    since = np.quantile(data.timestamps, 1 - share, method="lower")
    newest = data.events.items[data.timestamps >= since]
    return np.bincount(newest, minlength=data.num_items + 1)


def _share(counts: Int64 | Mask, chosen: Mask) -> float:
    return float(counts[chosen].sum() / max(counts.sum(), 1))
