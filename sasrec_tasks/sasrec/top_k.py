"""Scores → each user's k items: the best, or drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from sasrec_tasks.sasrec.largest import largest
from sasrec_tasks.sasrec.scoring import MOST_USERS, Scorer, ScoresByVectors, candidates, scored_blocks
from sasrec_tasks.sasrec.sequences import Float32, Int64, Sequences, row_blocks
from sasrec_tasks.sasrec.threads import each

DRAWING = 4
"""Tensors of the size of the scores that `sample_k` holds beside them, at most."""

Pick = Callable[[Tensor, Int64], tuple[Tensor, Tensor]]
"""Scores (B, n) of a block, −inf for what can't be had, and its users' row numbers (B,) → scores and
item indices (B, at most k)."""


def top_k(
    score: Scorer,
    seen: Sequences | None,
    users: Int64,
    k: int,
    pick: Pick | None = None,
    held: int = 1,
) -> tuple[Float32, Int64]:
    """k items of each user, a block of users at a time, by several threads.

    Args:
        seen: items to leave out, one sequence per user of ``users``; None leaves out nothing.
        users: row numbers that ``score`` is asked for, by several threads at once.
        pick: which items; default: the best, best first.
        held: tensors of the size of the scores that are held at once, the scores and those of ``pick``.

    Returns:
        scores (users, k) float32, −inf where a user has fewer candidates, and item indices
        (users, k) int64.
    """
    scores = np.full((len(users), k), -np.inf, dtype=np.float32)
    items = np.zeros((len(users), k), dtype=np.int64)

    in_tiles = score.best if not pick and isinstance(score, ScoresByVectors) and score.in_tiles(k) else None

    def choose(part: Int64) -> None:
        left_out = None if seen is None else seen.select(part)
        if in_tiles:
            best, indices = in_tiles(users[part], left_out, k)
        else:
            found = candidates(score, left_out, users[part])
            best, indices = pick(found, users[part]) if pick else largest(found, k)
        scores[part, : best.shape[1]] = best.cpu().numpy()
        items[part, : best.shape[1]] = indices.cpu().numpy()

    blocks = row_blocks(len(users), MOST_USERS) if in_tiles else scored_blocks(score, len(users), held=held)
    each(choose, blocks)
    return scores, items


@torch.inference_mode()
def sample_k(
    scores: Tensor, k: int, *, temperature: float, replace: bool, generators: Sequence[torch.Generator]
) -> tuple[Tensor, Tensor]:
    """k items drawn with probability softmax(scores / temperature), in the order drawn.

    Without replacement by the Gumbel-top-k trick (Kool et al., ICML 2019): the k largest of scores
    plus Gumbel noise are a draw without replacement.

    Args:
        scores: (B, n), −inf for what is never drawn.
        generators: one of each user's own, so that what is drawn for one does not hang on the others.

    Returns:
        scores (B, k) of the drawn items, −inf where a user has fewer candidates, and indices (B, k).
    """
    draws = k if replace else 1
    drawn = []
    for _ in range(draws):
        rows = [torch.rand(scores.shape[1], generator=generator) for generator in generators]
        uniform = torch.stack(rows).clamp_(min=1e-20).to(scores.device)
        noisy = scores - temperature * (-uniform.log()).log()  # times temperature, lest a low one overflow
        drawn.append(noisy.topk(1 if replace else k, dim=1).indices)
    items = torch.cat(drawn, 1)
    return scores.gather(1, items), items
