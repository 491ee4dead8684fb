"""Where held-out items come among all items, or among random ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sasrec_tasks.sasrec.metrics import MISS, Ranks
from sasrec_tasks.sasrec.scoring import Scorer, blocks, candidates, leave_out
from sasrec_tasks.sasrec.sequences import HeldOut


@torch.inference_mode()
def rank_all(score: Scorer, held_out: HeldOut) -> tuple[Ranks, Ranks]:
    """Rank each target among all items.

    Returns:
        As served, with the seen items left out (a target seen before is a miss, it can't be
        served), and with the seen items among the candidates. A target that scores −inf is a miss.
    """
    count = _Count()
    served, with_seen = _RankCollector(count), _RankCollector(count)
    for rows in blocks(len(held_out)):
        scores = candidates(score, None, rows)
        targets = torch.from_numpy(held_out.targets[rows]).to(scores.device)[:, None]
        target_scores = scores.gather(1, targets)
        with_seen.add(scores, target_scores)
        leave_out(scores, held_out.seen.select(rows))
        served.add(scores, target_scores, missed=scores.gather(1, targets) == -torch.inf)
    return served.ranks(), with_seen.ranks()


@torch.inference_mode()
def rank_sampled(score: Scorer, held_out: HeldOut, negatives: npt.NDArray[np.int64]) -> Ranks:
    """Rank each target among its own negatives: (users, K) item indices, padding where fewer."""
    collected = _RankCollector(_Count())
    for rows in blocks(len(held_out)):
        scores = candidates(score, None, rows)
        targets = torch.from_numpy(held_out.targets[rows]).to(scores.device)[:, None]
        among = torch.from_numpy(negatives[rows]).to(scores.device)
        collected.add(
            torch.cat([scores.gather(1, targets), scores.gather(1, among)], 1),
            scores.gather(1, targets),
        )
    return collected.ranks()


class _Count:
    """How many of each row compare, by float32 ones and zeros in one memory for all blocks.

    To be added up, booleans are first made int64, which takes ten times as long. Exact up to 16 million a row.
    """

    def __init__(self) -> None:
        self._flags = torch.empty(0, 0)

    def __call__(self, compare: Callable[..., Tensor], scores: Tensor, targets: Tensor) -> Tensor:
        """(B, n) and (B, 1) → (B,) int64."""
        if self._flags.shape[1] != scores.shape[1] or len(self._flags) < len(scores):
            self._flags = torch.empty_like(scores)
        return compare(scores, targets, out=self._flags[: len(scores)]).sum(1).long()


class _RankCollector:
    def __init__(self, count: _Count) -> None:
        self.count = count
        self.better: list[Tensor] = []
        self.tied: list[Tensor] = []

    def add(self, scores: Tensor, target_scores: Tensor, missed: Tensor | None = None) -> None:
        """Count the candidates (B, n), the target among them, against the targets' scores (B, 1)."""
        better = self.count(torch.gt, scores, target_scores)
        tied = self.count(torch.eq, scores, target_scores) - 1
        lost = (target_scores == -torch.inf) if missed is None else missed
        lost = lost.squeeze(1)
        self.better.append(better.masked_fill(lost, MISS).cpu())
        self.tied.append(tied.masked_fill(lost, 0).cpu())

    def ranks(self) -> Ranks:
        empty = [torch.empty(0, dtype=torch.int64)]
        return Ranks(
            better=torch.cat(self.better or empty).numpy(), tied=torch.cat(self.tied or empty).numpy()
        )
