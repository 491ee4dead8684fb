"""Histories → scores of all items, a block of users at a time; users × items is never held."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from sasrec_tasks.sasrec.batches import by_slots
from sasrec_tasks.sasrec.largest import LEAST_PRODUCTS, largest_products
from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.products import dot_products
from sasrec_tasks.sasrec.sequences import PADDING, Float32, Int64, Sequences, row_blocks
from sasrec_tasks.sasrec.threads import each

BLOCK_SCORES = 2**25
"""Scores that a thread holds at once, 128 MB, unless those of `LEAST_USERS` are more."""

MOST_USERS, LEAST_USERS = 256, 16
"""Users scored at once: more don't make a matrix product faster, with fewer it is mostly a reading of all items."""

ENCODE_SLOTS = 4096
"""Slots (rows × longest row) encoded at once: what passes between layers stays in the cache."""

MOST_USERS_ON_GPU, ENCODE_SLOTS_ON_GPU = 8192, 2**17
"""The same on a GPU, which small pieces leave idle."""

Scorer = Callable[[Int64], Tensor]
"""Row numbers of users (B,) → scores of every item (B, num_items + 1) float32; column 0 (padding)
is ignored, −inf means "cannot be recommended". The caller may write into them; the thread's next call
may too. It is called by several threads at once, and may be asked for no rows."""


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

    def read(rows: Int64) -> None:
        items = torch.from_numpy(histories.select(rows).padded()).to(device)
        last = torch.from_numpy(lengths[rows, None] - 1).to(device)
        users[torch.from_numpy(rows).to(device)] = model(items, last)[:, 0]

    each(read, by_slots(order, lengths, ENCODE_SLOTS_ON_GPU if users.is_cuda else ENCODE_SLOTS))
    return users


def model_scorer(model: SASRec, histories: Sequences, among: Int64 | None = None) -> ScoresByVectors:
    """Scores by a model that has read ``histories``; −inf where a history is empty.

    Args:
        among: (n + 1,) items to score, padding first: column j of the scores is of item ``among[j]``; None is all.
    """
    users = encode(model, histories)
    chosen = None if among is None else torch.from_numpy(among).to(users.device)
    items = model.item_vectors(chosen).detach()
    if not (model.is_finite() and torch.isfinite(users).all()):
        raise FloatingPointError("the model's weights are not finite: training has diverged")
    return ScoresByVectors(users, items, torch.from_numpy(histories.lengths == 0).to(users.device))


class ScoresByVectors:
    """A `Scorer` by dot products, which also finds the best of very many items without holding all scores.

    Args:
        users: (n, D) float32.
        items: (num_items + 1, D).
        silent: (n,) bool, users whose scores are −inf; None is nobody.
    """

    def __init__(self, users: Tensor, items: Tensor, silent: Tensor | None = None) -> None:
        self._users, self._items, self._silent = users, items.contiguous(), silent
        # One memory for all blocks of a thread: to be given a fresh one costs as much time as the matrix product.
        self._memory = Memory()

    def __call__(self, rows: Int64) -> Tensor:
        """Scores of all items."""
        users, silent = self._chosen(rows)
        scores = dot_products(users, self._items, out=self._memory.rows(users, len(self._items)))
        scores[silent] = -torch.inf
        return scores

    def in_tiles(self, k: int) -> bool:
        """Whether `best` is worth its while; a GPU's memory is as fast as its products."""
        return not self._items.is_cuda and 0 < LEAST_PRODUCTS * k <= len(self._items)

    def best(self, rows: Int64, seen: Sequences | None, k: int) -> tuple[Tensor, Tensor]:
        """Scores and indices (B, k) of the best items, best first; −inf where there are fewer.

        Args:
            rows: `MOST_USERS` or fewer.
            seen: as of `candidates`.
        """
        users, silent = self._chosen(rows)
        at, items = torch.arange(len(rows)), torch.full((len(rows),), PADDING)
        if seen is not None:
            at_seen, of_seen = cells(seen, users.device)
            at, items = torch.cat([at, at_seen]), torch.cat([items, of_seen])
        scores, best = largest_products(users, self._items, (at, items), k)
        scores[silent] = -torch.inf
        return scores, best

    def _chosen(self, rows: Int64) -> tuple[Tensor, Tensor]:
        at = torch.from_numpy(rows).to(self._users.device)
        silent = at.new_empty(0) if self._silent is None else self._silent[at].nonzero()[:, 0]
        return self._users[at], silent


class Memory(threading.local):
    """A tensor that is used again and again, each thread its own."""

    _tensor: Tensor | None = None

    def rows(self, like: Tensor, width: int) -> Tensor:
        """(len(like), width) of the same type and device, of any content."""
        if self._tensor is None or len(self._tensor) < len(like) or self._tensor.shape[1] != width:
            self._tensor = like.new_empty(len(like), width)
        return self._tensor[: len(like)]


def constant_scorer(scores: Float32) -> Scorer:
    """The same scores (num_items + 1,) for every user, popularity for instance."""
    row = torch.from_numpy(scores)
    # Fresh tensors would leave holes between the small results that stay, which fill the memory in the end.
    memory = Memory()

    def score(rows: Int64) -> Tensor:
        return memory.rows(row.expand(len(rows), -1), len(row)).copy_(row)

    return score


def users_at_once(items: int, on_gpu: bool = False) -> int:
    """How many users are scored at once, of so many items."""
    most = MOST_USERS_ON_GPU if on_gpu else MOST_USERS
    return min(max(BLOCK_SCORES // max(items, 1), LEAST_USERS), most)


def scored_blocks(score: Scorer, users: int, held: int = 1) -> Iterator[Int64]:
    """Row numbers 0…users − 1 in the blocks that ``score`` is asked for.

    Args:
        held: tensors of the size of the scores that are held at once.
    """
    none = score(np.arange(0))
    return row_blocks(users, users_at_once(none.shape[1] * held, none.is_cuda))


def candidates(score: Scorer, seen: Sequences | None, rows: Int64) -> Tensor:
    """Scores (B, num_items + 1) of a block of users, −inf at padding and at what they have seen.

    Args:
        seen: one sequence per user of ``rows``; None leaves out nothing.
    """
    scores = score(rows)
    scores[:, PADDING] = -torch.inf
    if seen is not None:
        leave_out(scores, seen)
    return scores


def leave_out(scores: Tensor, seen: Sequences) -> None:
    """Set the scores (B, num_items + 1) of what each user has seen to −inf."""
    scores[cells(seen, scores.device)] = -torch.inf


def cells(seen: Sequences, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where the scores of seen items are: rows and columns, a pair for each event."""
    rows, _, positions = seen.flat()
    items = seen.items[positions].astype(np.int64)
    return torch.from_numpy(rows).to(device), torch.from_numpy(items).to(device)
