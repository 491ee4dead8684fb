"""Advice where someone asks for it ("auto"): by catalogue and by length of histories."""

from __future__ import annotations

import numpy as np

from sasrec_tasks.sasrec.losses import Loss
from sasrec_tasks.sasrec.sequences import Int64

SHORTEST, LONGEST = 20, 200
COVERED = 0.9

SOFTMAX_ITEMS = 20_000
"""Catalogue up to which the loss looks at all items: beyond, that is most of a training step."""


LIMITS = (
    "It knows items by their id alone: one without a training event is known as a negative only, and comes near the "
    "end of its rankings.",
    "It reads a user's most recent `max_len` events, in order; without a meaningful order it has "
    "little over popularity.",
    "Users of whom it knows no event are not ranked by it, they get the popular items.",
    "The figures are offline ones: what users did while something else was recommended to them. They tell "
    "models apart, they do not foretell clicks.",
    "Figures of different protocols, or of other negatives, can't be compared.",
    "It learns what was shown and chosen before: watch coverage and popularity over time.",
)
"""What a model card warns of."""


def advised_sizes(num_items: int) -> tuple[int, int, int]:
    """hidden_units, num_blocks and num_heads for a catalogue (scikit-rec's table)."""
    if num_items < 10_000:
        return 50, 2, 1
    return (100, 2, 1) if num_items <= 100_000 else (128, 3, 2)


def advised_max_len(lengths: Int64) -> int:
    """The length that nine histories out of ten keep within, but from 20 to 200."""
    wanted = int(np.quantile(lengths, COVERED, method="inverted_cdf")) if len(lengths) else SHORTEST
    return min(max(wanted, SHORTEST), LONGEST)


def advised_loss(num_items: int) -> Loss:
    """Cross-entropy over all items where that is affordable, over a sample of them where it is not."""
    return "softmax" if num_items <= SOFTMAX_ITEMS else "sampled_softmax"
