"""Advice on sizes where someone asks for it: by catalogue and by length of histories."""

from __future__ import annotations

import numpy as np

from sasrec_tasks.sasrec.sequences import Int64

SHORTEST, LONGEST = 20, 200
COVERED = 0.9


def advised_sizes(num_items: int) -> tuple[int, int, int]:
    """hidden_units, num_blocks and num_heads for a catalogue (scikit-rec's table)."""
    if num_items < 10_000:
        return 50, 2, 1
    return (100, 2, 1) if num_items <= 100_000 else (128, 3, 2)


def advised_max_len(lengths: Int64) -> int:
    """The length that nine histories out of ten keep within, but from 20 to 200."""
    wanted = int(np.quantile(lengths, COVERED, method="inverted_cdf")) if len(lengths) else SHORTEST
    return min(max(wanted, SHORTEST), LONGEST)
