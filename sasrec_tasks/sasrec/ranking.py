"""Where held-out items come among all items, or among random ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sasrec_tasks.sasrec.metrics import MISS, Ranks
from sasrec_tasks.sasrec.scoring import Memory, Scorer, candidates, leave_out, scored_blocks
from sasrec_tasks.sasrec.sequences import HeldOut, Int64
from sasrec_tasks.sasrec.threads import each


def rank_all(score: Scorer, held_out: HeldOut) -> tuple[Ranks, Ranks]:
    """Rank each target among all items.

    Returns:
        As served, with the seen items left out (a target seen before is a miss, it can't be
        served), and with the seen items among the candidates. A target that scores −inf is a miss.
    """
    count = _Count()

    def rank(rows: Int64) -> tuple[Ranks, Ranks]:
        scores = candidates(score, None, rows)
        targets = torch.from_numpy(held_out.targets[rows]).to(scores.device)[:, None]
        target_scores = scores.gather(1, targets)
        with_seen = count.ranks(scores, target_scores)
        leave_out(scores, held_out.seen.select(rows))
        missed = scores.gather(1, targets) == -torch.inf
        return count.ranks(scores, target_scores, missed), with_seen

    found = each(rank, scored_blocks(score, len(held_out)))
    return _together(served for served, _ in found), _together(with_seen for _, with_seen in found)


def rank_sampled(score: Scorer, held_out: HeldOut, negatives: npt.NDArray[np.int64]) -> Ranks:
    """Rank each target among its own negatives: (users, K) item indices, padding where fewer."""
    count = _Count()

    def rank(rows: Int64) -> Ranks:
        scores = candidates(score, None, rows)
        targets = torch.from_numpy(held_out.targets[rows]).to(scores.device)[:, None]
        among = torch.from_numpy(negatives[rows]).to(scores.device)
        target_scores = scores.gather(1, targets)
        return count.ranks(torch.cat([target_scores, scores.gather(1, among)], 1), target_scores)

    return _together(each(rank, scored_blocks(score, len(held_out))))


class _Count:
    """How many of each row compare, by float32 ones and zeros in one memory for all blocks of a thread.

    To be added up, booleans are first made int64, which takes ten times as long. Exact up to 16 million a row.
    """

    def __init__(self) -> None:
        self._memory = Memory()

    def ranks(self, scores: Tensor, target_scores: Tensor, missed: Tensor | None = None) -> Ranks:
        """Of the candidates (B, n), the target among them, against the targets' scores (B, 1)."""
        better = self._of(torch.gt, scores, target_scores)
        tied = self._of(torch.eq, scores, target_scores) - 1
        lost = ((target_scores == -torch.inf) if missed is None else missed).squeeze(1)
        return Ranks(
            better=better.masked_fill(lost, MISS).cpu().numpy(), tied=tied.masked_fill(lost, 0).cpu().numpy()
        )

    def _of(self, compare: Callable[..., Tensor], scores: Tensor, targets: Tensor) -> Tensor:
        """(B, n) and (B, 1) → (B,) int64."""
        flags = self._memory.rows(scores, scores.shape[1])
        return compare(scores, targets, out=flags).sum(1).long()


def _together(parts: Iterable[Ranks]) -> Ranks:
    empty = np.empty(0, np.int64)
    found = [Ranks(better=empty, tied=empty), *parts]
    return Ranks(
        better=np.concatenate([part.better for part in found]),
        tied=np.concatenate([part.tied for part in found]),
    )
