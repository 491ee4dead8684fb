"""Random items that a user has not seen, to rank a held-out item among."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sasrec_tasks.sasrec.sequences import PADDING, Int64, Sequences, distinct, row_blocks
from sasrec_tasks.sasrec.threads import each

DRAWN_AT_ONCE = 256
"""Users of one generator: with another number, other items would be drawn from the same seed."""


def sample_unseen(
    histories: Sequences, num_items: int, negatives: int, *, random_state: int
) -> npt.NDArray[np.int64]:
    """Random distinct items that each user has not seen, for sampled ranking.

    Args:
        histories: everything each user has seen, the target included.

    Returns:
        (users, negatives) item indices, in random order. Where a user has fewer unseen items, all
        of them, then padding.
    """
    drawn = np.full((len(histories), negatives), PADDING, dtype=np.int64)

    def draw(block: tuple[int, Int64]) -> None:
        number, rows = block
        random = np.random.default_rng([random_state, number])
        drawn[rows] = _sample_unseen_block(histories.select(rows), num_items, negatives, random)

    each(draw, enumerate(row_blocks(len(histories), DRAWN_AT_ONCE)))
    return drawn


def _sample_unseen_block(
    histories: Sequences, num_items: int, negatives: int, random: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Draw, reject what is seen or drawn already, and draw again where too few are left.

    Where a user has seen most items, nearly all draws would be rejected, so that their unseen
    items are listed instead.
    """
    width = num_items + 1
    rows, _, positions = histories.flat()
    taken = distinct(rows * width + histories.items[positions])  # row and item in one sorted key
    unseen = num_items - np.bincount(taken // width, minlength=len(histories))
    wanted = np.minimum(unseen, negatives)
    got = np.zeros(len(histories), dtype=np.int64)
    result = np.full((len(histories), negatives), PADDING, dtype=np.int64)
    for row in np.flatnonzero(unseen < num_items / 2):
        of_row = taken[np.searchsorted(taken, row * width) : np.searchsorted(taken, (row + 1) * width)]
        left = np.setdiff1d(np.arange(1, width), of_row % width, assume_unique=True)
        result[row, : wanted[row]] = random.permutation(left)[: wanted[row]]
        got[row] = wanted[row]
    while len(short := np.flatnonzero(got < wanted)):
        draws = random.integers(1, width, size=(len(short), 2 * negatives))
        keys = (short[:, None] * width + draws).ravel()
        keys = keys[~_contains(taken, keys)]
        _, first = np.unique(keys, return_index=True)
        keys = keys[np.sort(first)]  # distinct, in the order drawn
        owner = keys // width  # rising, since rows were drawn in order
        place = got[owner] + np.arange(len(keys)) - np.searchsorted(owner, owner)
        keep = place < wanted[owner]
        result[owner[keep], place[keep]] = keys[keep] % width
        got = np.minimum(got + np.bincount(owner, minlength=len(got)), wanted)
        taken = np.sort(np.concatenate([taken, keys]))
    return result


def _contains(sorted_keys: Int64, keys: Int64) -> npt.NDArray[np.bool_]:
    place = np.searchsorted(sorted_keys, keys)
    return sorted_keys[np.minimum(place, len(sorted_keys) - 1)] == keys if len(sorted_keys) else keys < 0
