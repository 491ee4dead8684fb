"""Where held-out items come among all items, or among random ones, and what would be served in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sasrec_tasks.sasrec.largest import largest
from sasrec_tasks.sasrec.metrics import MISS, Ranks
from sasrec_tasks.sasrec.scoring import Memory, Scorer, candidates, cells, scored_blocks
from sasrec_tasks.sasrec.sequences import PADDING, HeldOut, Int64, Sequences, row_blocks
from sasrec_tasks.sasrec.threads import each

TILE = 2**17
"""Scores that are compared at once on a CPU: they and what comes of it stay in the cache."""

USERS_AT_ONCE = 1024
"""Of `rank_constant`."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Where the targets of n users came, and what would be served."""

    sampled: Ranks  # among random items
    served: Ranks  # among all items but the seen ones; a target that was seen before can't be served: a miss
    with_seen: Ranks  # among all items
    best: Int64  # (n, k) the best items that were not seen, best first, padding where there are fewer


def rank(score: Scorer, held_out: HeldOut, negatives: npt.NDArray[np.int64], k: int) -> Placed:
    """Rank each target in all ways; scores are computed once. A target that scores −inf is a miss.

    Args:
        negatives: (users, K) item indices for each target to be ranked among, padding where fewer.
        k: how many of the best items to find; 0 looks for none.
    """
    count, count_among = _Count(), _Count()

    def place(rows: Int64) -> Placed:
        scores, targets, target_scores = _scored(score, held_out, rows)
        sampled = _among(count_among, scores, target_scores, negatives[rows])
        served, with_seen = _all(count, scores, targets, target_scores, held_out.seen.select(rows))
        best = np.full((len(rows), k), PADDING, np.int64)
        if k:
            values, items = largest(scores, k)
            best[:, : items.shape[1]] = torch.where(values > -torch.inf, items, PADDING).cpu().numpy()
        return Placed(sampled=sampled, served=served, with_seen=with_seen, best=best)

    return _together(each(place, scored_blocks(score, len(held_out))), k)


def rank_all(score: Scorer, held_out: HeldOut) -> tuple[Ranks, Ranks]:
    """Rank each target among all items.

    Returns:
        As served, with the seen items left out (a target seen before is a miss, it can't be
        served), and with the seen items among the candidates. A target that scores −inf is a miss.
    """
    count = _Count()

    def place(rows: Int64) -> tuple[Ranks, Ranks]:
        return _all(count, *_scored(score, held_out, rows), held_out.seen.select(rows))

    found = each(place, scored_blocks(score, len(held_out)))
    return _joined(served for served, _ in found), _joined(with_seen for _, with_seen in found)


def rank_sampled(score: Scorer, held_out: HeldOut, negatives: npt.NDArray[np.int64]) -> Ranks:
    """Rank each target among its own negatives: (users, K) item indices, padding where fewer."""
    count = _Count()

    def place(rows: Int64) -> Ranks:
        scores, _, target_scores = _scored(score, held_out, rows)
        return _among(count, scores, target_scores, negatives[rows])

    return _joined(each(place, scored_blocks(score, len(held_out))))


def rank_constant(
    scores: npt.NDArray[np.float32], held_out: HeldOut, negatives: npt.NDArray[np.int64], k: int
) -> Placed:
    """As `rank`, where all users have the same scores (num_items + 1,), popularity for instance.

    All is told by the places of items in one order, best first, so that a user costs as much as they have seen, not as
    there are items. Of items with the same score, those of lower index are served first.
    """
    values = np.concatenate([np.array([-np.inf], np.float32), scores[1:]])
    order = np.argsort(-values[1:], kind="stable") + 1
    place_of = np.empty(len(values), np.int64)
    place_of[order] = np.arange(len(order))
    ascending, items = values[order][::-1], len(order)
    available = int((values > -np.inf).sum())

    def place(rows: Int64) -> Placed:
        some, targets = held_out.select(rows), held_out.targets[rows]
        of_target = values[targets]
        better = items - np.searchsorted(ascending, of_target, side="right")
        last = items - np.searchsorted(ascending, of_target, side="left")
        lost = of_target == -np.inf
        users, _, events = some.seen.flat()
        # An item seen twice is seen once. (np.unique takes five times as long.)
        seen = np.sort(users * items + place_of[some.seen.items[events]])
        seen = seen[np.diff(seen, prepend=-1) > 0]
        users, places = seen // items, seen % items

        def seen_where(chosen: npt.NDArray[np.bool_]) -> Int64:
            return np.bincount(users[chosen], minlength=len(rows))

        was_seen = seen_where(places == place_of[targets][users]) > 0
        # Before a user's i-th seen place there are so many less i that were not: the j-th of those comes as many
        # places later as there are seen ones with at most j before them.
        before = places - (np.arange(len(seen)) - np.searchsorted(users, users))
        best = np.full((len(rows), k), PADDING, np.int64)
        for j in range(k):
            at = j + seen_where(before <= j)
            best[at < available, j] = order[at[at < available]]
        among = values[negatives[rows]]
        return Placed(
            sampled=_ranks((among > of_target[:, None]).sum(1), (among == of_target[:, None]).sum(1), lost),
            served=_ranks(
                better - seen_where(places < better[users]),
                last - better - 1 - seen_where((places >= better[users]) & (places < last[users])),
                lost | was_seen,
            ),
            with_seen=_ranks(better, last - better - 1, lost),
            best=best,
        )

    return _together([place(rows) for rows in row_blocks(len(held_out), USERS_AT_ONCE)], k)


def _scored(score: Scorer, held_out: HeldOut, rows: Int64) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (B, num_items + 1), targets and their scores (B, 1) of a block of users."""
    scores = candidates(score, None, rows)
    targets = torch.from_numpy(held_out.targets[rows]).to(scores.device)[:, None]
    return scores, targets, scores.gather(1, targets)


def _among(count: _Count, scores: Tensor, target_scores: Tensor, negatives: npt.NDArray[np.int64]) -> Ranks:
    """Among random items (B, K)."""
    among = scores.gather(1, torch.from_numpy(negatives).to(scores.device))
    better, tied = count.of(among, target_scores)
    return _ranks(better.cpu().numpy(), tied.cpu().numpy(), _is_lost(target_scores))


def _all(
    count: _Count, scores: Tensor, targets: Tensor, target_scores: Tensor, seen: Sequences
) -> tuple[Ranks, Ranks]:
    """As served, and with the seen items; afterwards the scores of these are −inf."""
    better, tied = count.of(scores, target_scores)
    tied -= 1
    rows, items = cells(seen, scores.device)
    of_seen = scores[rows, items]
    # An item that was seen twice is left out once: of the numbers that are written into its cell, one stays.
    numbers, as_integers = (
        torch.arange(len(rows), dtype=torch.int32, device=scores.device),
        scores.view(torch.int32),
    )
    as_integers[rows, items] = numbers
    once = as_integers[rows, items] == numbers
    scores[rows, items] = -torch.inf
    of_target = target_scores[rows, 0]
    none = torch.zeros_like(better)
    better_seen = none.index_add(0, rows, ((of_seen > of_target) & once).long())
    tied_seen = none.index_add(0, rows, ((of_seen == of_target) & once).long())
    with_seen = _ranks(better.cpu().numpy(), tied.cpu().numpy(), _is_lost(target_scores))
    served = _ranks(
        (better - better_seen).cpu().numpy(),
        (tied - tied_seen).cpu().numpy(),
        _is_lost(scores.gather(1, targets)),
    )
    return served, with_seen


def _is_lost(target_scores: Tensor) -> npt.NDArray[np.bool_]:
    lost: npt.NDArray[np.bool_] = (target_scores[:, 0] == -torch.inf).cpu().numpy()
    return lost


def _ranks(better: Int64, tied: Int64, lost: npt.NDArray[np.bool_]) -> Ranks:
    return Ranks(better=np.where(lost, MISS, better), tied=np.where(lost, 0, tied))


class _Count:
    """How many of each row compare, by float32 ones and zeros in one memory for all blocks of a thread.

    To be added up, booleans are first made int64, which takes ten times as long. Exact up to 16 million a row.
    """

    def __init__(self) -> None:
        self._memory = Memory()

    def of(self, scores: Tensor, target_scores: Tensor) -> tuple[Tensor, Tensor]:
        """Of scores (B, n), against the targets' (B, 1): how many are better, how many are the same; (B,) int64."""
        columns = scores.shape[1]
        width = columns if scores.is_cuda else max(min(TILE // max(len(scores), 1), columns), 1)
        flags = self._memory.rows(scores, width)
        better, tied = scores.new_zeros(2, len(scores))
        for first in range(0, columns, width):
            tile = scores[:, first : first + width]
            better += self._sum(torch.gt, tile, target_scores, flags)
            tied += self._sum(torch.eq, tile, target_scores, flags)
        return better.long(), tied.long()

    @staticmethod
    def _sum(compare: Callable[..., Tensor], tile: Tensor, target_scores: Tensor, flags: Tensor) -> Tensor:
        return compare(tile, target_scores, out=flags[:, : tile.shape[1]]).sum(1)


def _joined(parts: Iterable[Ranks]) -> Ranks:
    empty = np.empty(0, np.int64)
    found = [Ranks(better=empty, tied=empty), *parts]
    return Ranks(
        better=np.concatenate([part.better for part in found]),
        tied=np.concatenate([part.tied for part in found]),
    )


def _together(parts: list[Placed], k: int) -> Placed:
    return Placed(
        sampled=_joined(part.sampled for part in parts),
        served=_joined(part.served for part in parts),
        with_seen=_joined(part.with_seen for part in parts),
        best=np.concatenate([np.empty((0, k), np.int64), *(part.best for part in parts)]),
    )
