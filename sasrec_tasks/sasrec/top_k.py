"""Scores → each user's k items: the best, or drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from sasrec_tasks.sasrec.scoring import Scorer, candidates, scored_blocks
from sasrec_tasks.sasrec.sequences import Float32, Int64, Sequences
from sasrec_tasks.sasrec.threads import each

CHUNK = 64
"""Items that are represented by the best of them in the first pass of `largest`."""

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

    def choose(part: Int64) -> None:
        found = candidates(score, None if seen is None else seen.select(part), users[part])
        best, indices = pick(found, users[part]) if pick else largest(found, k)
        scores[part, : best.shape[1]] = best.cpu().numpy()
        items[part, : best.shape[1]] = indices.cpu().numpy()

    each(choose, scored_blocks(score, len(users), held=held))
    return scores, items


def largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row, as `torch.topk` finds them, in less time where rows are long.

    The largest of each chunk of a row come first: what is in none of the k chunks that are best by it
    is behind k others.

    Args:
        scores: (B, n).

    Returns:
        (B, min(k, n)), largest first, and their columns.
    """
    n = scores.shape[1]
    in_chunks = n - n % CHUNK
    if in_chunks < 16 * CHUNK * k:  # too few chunks to leave out
        return scores.topk(min(k, n), dim=1)
    best_of_chunk = scores[:, :in_chunks].reshape(len(scores), in_chunks // CHUNK, CHUNK).amax(2)
    chunks = best_of_chunk.topk(k, dim=1, sorted=False).indices
    columns = (chunks[..., None] * CHUNK + torch.arange(CHUNK, device=scores.device)).flatten(1)
    rest = torch.arange(in_chunks, n, device=scores.device).expand(len(scores), -1)
    columns = torch.cat([columns, rest], 1)
    best, places = scores.gather(1, columns).topk(k, dim=1)
    return best, columns.gather(1, places)


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
