"""A user's k items with the last places kept for items of a given set, new ones for instance."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sasrec_tasks.sasrec.largest import largest
from sasrec_tasks.sasrec.sequences import Int64
from sasrec_tasks.sasrec.top_k import Pick

HELD = 2
"""Tensors of the size of the scores, at most: the scores themselves, and those of the set."""


def reserve(k: int, slots: int, items: Int64, width: int) -> Pick:
    """A `Pick` of the best k, of which the last ``slots`` go to items of a set that are not among those before.

    The first k − slots are the best of all. Then come the best of the set that are left, and, where the set has too
    few, the best of the rest. All of it in order of the scores: what comes later in it scored lower, so that scores
    fall from the first place to the last as in any list.

    Args:
        k: places.
        slots: how many of them, fewer than k.
        items: columns of the scores, without padding's, each once.
        width: columns of the scores, padding's included.
    """
    place_of = np.full(width, -1, dtype=np.int64)
    place_of[items] = np.arange(len(items))

    def pick(scores: Tensor, rows: Int64) -> tuple[Tensor, Tensor]:
        of_set, places = (torch.from_numpy(array).to(scores.device) for array in (items, place_of))
        best, columns = largest(scores, k)
        head = k - slots
        theirs = scores[:, of_set]
        listed, place = columns[:, :head], places[columns[:, :head]]
        user, at = (place >= 0).nonzero(as_tuple=True)
        theirs[user, places[listed[user, at]]] = -torch.inf
        reserved, chosen = largest(theirs, slots)
        rest = best[:, head:].masked_fill(places[columns[:, head:]] >= 0, -torch.inf)
        tail, tail_columns = torch.cat([reserved, rest], 1), torch.cat([of_set[chosen], columns[:, head:]], 1)
        first = (torch.arange(tail.shape[1], device=tail.device) >= reserved.shape[1]).long()
        turn = torch.where(tail > -torch.inf, first, 2)  # the set, then the rest, then what is not there
        taken = turn.argsort(dim=1, stable=True)[:, : columns.shape[1] - head]
        tail, tail_columns = tail.gather(1, taken), tail_columns.gather(1, taken)
        tail, order = tail.sort(dim=1, descending=True, stable=True)
        return (
            torch.cat([best[:, :head], tail], 1),
            torch.cat([columns[:, :head], tail_columns.gather(1, order)], 1),
        )

    return pick
