"""Scores → ranks and top-k lists, a block of users at a time; users × items is never held."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sasrec_tasks.sasrec.batches import by_slots
from sasrec_tasks.sasrec.metrics import MISS, Ranks
from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.sequences import PADDING, Float32, HeldOut, Int64, Sequences

BLOCK_USERS = 256
"""Users scored at once: large enough for a matrix product at full speed, small enough that
256 × items scores stay in (or near) the cache."""

ENCODE_SLOTS = 4096
"""Slots (rows × longest row) encoded at once: what passes between layers stays in the cache."""

Scorer = Callable[[Int64], Tensor]
"""Row numbers of users (B,) → scores of every item (B, num_items + 1) float32; column 0 (padding)
is ignored, −inf means "cannot be recommended"."""


@torch.inference_mode()
def encode(model: SASRec, histories: Sequences) -> Tensor:
    """Representation of each user after their most recent item.

    Args:
        histories: what to read; only the last ``max_len`` events are.

    Returns:
        (users, hidden_units) float32 on the model's device; zeros for an empty history.
    """
    device = model.item_embedding.weight.device
    model.eval()
    histories = histories.last(model.config.max_len)
    lengths = histories.lengths
    users = torch.zeros(len(histories), model.config.hidden_units, device=device)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    for rows in by_slots(order, lengths, ENCODE_SLOTS):
        items = torch.from_numpy(histories.select(rows).padded()).to(device)
        last = torch.from_numpy(lengths[rows, None] - 1).to(device)
        users[torch.from_numpy(rows).to(device)] = model(items, last)[:, 0]
    return users


def model_scorer(model: SASRec, histories: Sequences) -> Scorer:
    """Scores by a model that has read ``histories``; −inf where a history is empty."""
    users = encode(model, histories)
    items = model.item_vectors().detach()
    if not (model.is_finite() and torch.isfinite(users).all()):
        raise FloatingPointError("the model's weights are not finite: training has diverged")
    silent = torch.from_numpy(histories.lengths == 0).to(users.device)

    def score(rows: Int64) -> Tensor:
        chosen = torch.from_numpy(rows).to(users.device)
        scores = users[chosen] @ items.T
        scores[silent[chosen]] = -torch.inf
        return scores

    return score


def constant_scorer(scores: Float32) -> Scorer:
    """The same scores (num_items + 1,) for every user, popularity for instance."""
    row = torch.from_numpy(scores)
    return lambda rows: row.repeat(len(rows), 1)


def blocks(users: int, size: int = BLOCK_USERS) -> Iterator[Int64]:
    """Row numbers 0…users − 1 in blocks."""
    for start in range(0, users, size):
        yield np.arange(start, min(start + size, users))


def _seen_slots(seen: Sequences, device: torch.device) -> tuple[Tensor, Tensor]:
    rows, _, positions = seen.flat()
    items = seen.items[positions].astype(np.int64)
    return torch.from_numpy(rows).to(device), torch.from_numpy(items).to(device)


@torch.inference_mode()
def rank_all(score: Scorer, held_out: HeldOut) -> tuple[Ranks, Ranks]:
    """Rank each target among all items.

    Returns:
        As served, with the seen items left out (a target seen before is a miss, it can't be
        served), and with the seen items among the candidates. A target that scores −inf is a miss.
    """
    served, with_seen = _RankCollector(), _RankCollector()
    for rows in blocks(len(held_out)):
        scores = score(rows)
        targets = torch.from_numpy(held_out.targets[rows]).to(scores.device)[:, None]
        scores[:, PADDING] = -torch.inf
        target_scores = scores.gather(1, targets)
        with_seen.add(scores, target_scores)
        scores[_seen_slots(held_out.seen.select(rows), scores.device)] = -torch.inf
        served.add(scores, target_scores, missed=scores.gather(1, targets) == -torch.inf)
    return served.ranks(), with_seen.ranks()


@torch.inference_mode()
def rank_sampled(score: Scorer, held_out: HeldOut, negatives: npt.NDArray[np.int64]) -> Ranks:
    """Rank each target among its own negatives: (users, K) item indices, padding where fewer."""
    collected = _RankCollector()
    for rows in blocks(len(held_out)):
        scores = score(rows)
        scores[:, PADDING] = -torch.inf
        targets = torch.from_numpy(held_out.targets[rows]).to(scores.device)[:, None]
        candidates = torch.from_numpy(negatives[rows]).to(scores.device)
        collected.add(
            torch.cat([scores.gather(1, targets), scores.gather(1, candidates)], 1),
            scores.gather(1, targets),
        )
    return collected.ranks()


class _RankCollector:
    def __init__(self) -> None:
        self.better: list[Tensor] = []
        self.tied: list[Tensor] = []

    def add(self, scores: Tensor, target_scores: Tensor, missed: Tensor | None = None) -> None:
        """Count the candidates (B, n), the target among them, against the targets' scores (B, 1)."""
        better = (scores > target_scores).sum(1)
        tied = (scores == target_scores).sum(1) - 1
        lost = (target_scores == -torch.inf) if missed is None else missed
        lost = lost.squeeze(1)
        self.better.append(better.masked_fill(lost, MISS).cpu())
        self.tied.append(tied.masked_fill(lost, 0).cpu())

    def ranks(self) -> Ranks:
        empty = [torch.empty(0, dtype=torch.int64)]
        return Ranks(
            better=torch.cat(self.better or empty).numpy(), tied=torch.cat(self.tied or empty).numpy()
        )


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
    for block, rows in enumerate(blocks(len(histories))):
        random = np.random.default_rng([random_state, block])
        drawn[rows] = _sample_unseen_block(histories.select(rows), num_items, negatives, random)
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
    taken = np.unique(rows * width + histories.items[positions])  # row and item in one sorted key
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
        taken = np.union1d(taken, keys)
    return result


def _contains(sorted_keys: Int64, keys: Int64) -> npt.NDArray[np.bool_]:
    place = np.searchsorted(sorted_keys, keys)
    return sorted_keys[np.minimum(place, len(sorted_keys) - 1)] == keys if len(sorted_keys) else keys < 0


@torch.inference_mode()
def top_k(score: Scorer, seen: Sequences | None, rows: Int64, k: int) -> tuple[Tensor, Tensor]:
    """The k best items of a block of users.

    Args:
        seen: items to leave out, one sequence per user of ``rows``; None leaves out nothing.

    Returns:
        scores (B, k) float32, best first, −inf where a user has fewer candidates, and item
        indices (B, k) int64.
    """
    scores = candidates(score, seen, rows)
    best, items = scores.topk(min(k, scores.shape[1]), dim=1)
    return best, items


def candidates(score: Scorer, seen: Sequences | None, rows: Int64) -> Tensor:
    """Scores (B, num_items + 1) of a block of users, −inf at padding and at what they have seen."""
    scores = score(rows)
    scores[:, PADDING] = -torch.inf
    if seen is not None:
        scores[_seen_slots(seen, scores.device)] = -torch.inf
    return scores


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
