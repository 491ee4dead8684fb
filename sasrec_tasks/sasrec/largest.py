"""The largest of very many numbers: of scores that are there, or of products that are not held at once. None is missed,
but that products which differ by their rounding alone may be taken for each other.

Both go in two stages. The largest of each chunk of a row come first: what is in none of the k chunks that are best by
it is behind k others.
"""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 64
"""Numbers that are represented by the largest of them in the first stage."""

TILE = 16 * CHUNK
"""Columns of products that are in the cache at once."""

SECOND_STAGE = 2**19
"""Numbers of items' vectors that the second stage holds at once, 2 MB."""


LEAST_SCORES, LEAST_PRODUCTS = 16 * CHUNK, 48 * CHUNK
"""Numbers in a row, for each that is looked for, from which two stages take less time than one."""


def largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row, as `torch.topk` finds them, in less time where rows are long.

    Args:
        scores: (B, n).

    Returns:
        (B, min(k, n)), largest first, and their columns.
    """
    n = scores.shape[1]
    in_chunks = n - n % CHUNK
    if in_chunks < LEAST_SCORES * k:
        return scores.topk(min(k, n), dim=1)
    best_of_chunk = scores[:, :in_chunks].reshape(len(scores), in_chunks // CHUNK, CHUNK).amax(2)
    columns = _columns(best_of_chunk.topk(k, dim=1, sorted=False).indices, in_chunks, n)
    best, places = scores.gather(1, columns).topk(k, dim=1)
    return best, columns.gather(1, places)


def largest_products(
    users: Tensor, items: Tensor, left_out: tuple[Tensor, Tensor], k: int
) -> tuple[Tensor, Tensor]:
    """As `largest` of ``users @ items.T``, without a gradient; each product is read where it is made, in the cache.

    Products of the chunks that are left after the first stage are computed a second time.

    Args:
        users: (B, D) float32; some hundred, so that to read the items costs less than to multiply them.
        items: (N, D), contiguous, N ≥ `LEAST_PRODUCTS` · k.
        left_out: rows and columns of the products that count as −inf, a pair for each.

    Returns:
        (B, k), largest first, and their columns; −inf where a row has fewer.
    """
    n, in_chunks = len(items), len(items) - len(items) % CHUNK
    order = left_out[1].argsort()
    rows, columns = (each[order] for each in left_out)
    chunks = largest(_best_of_chunks(users, items[:in_chunks], rows, columns), k)[1]
    scores = torch.cat([_of_chunks(users, items[:in_chunks], chunks), users @ items[in_chunks:].T], 1)
    scores[_places(chunks, rows, columns, in_chunks)] = -torch.inf
    best, places = scores.topk(k, dim=1)
    return best, _columns(chunks, in_chunks, n).gather(1, places)


def _places(chunks: Tensor, rows: Tensor, columns: Tensor, in_chunks: int) -> tuple[Tensor, Tensor]:
    """Rows and places within `_columns` of the columns that are there."""
    k, rest = chunks.shape[1], in_chunks // CHUNK
    order = torch.full((len(chunks), rest + 1), -1, dtype=torch.int32, device=chunks.device)
    order.scatter_(1, chunks, torch.arange(k, dtype=torch.int32, device=chunks.device).expand_as(chunks))
    order[:, rest] = k
    place = order[rows, columns // CHUNK]
    found = place >= 0
    return rows[found], place[found] * CHUNK + columns[found] % CHUNK


def _columns(chunks: Tensor, in_chunks: int, n: int) -> Tensor:
    """(B, k · CHUNK + the rest) columns of each row's chunks (B, k), and of what is behind the last whole chunk."""
    within = torch.arange(CHUNK, device=chunks.device)
    rest = torch.arange(in_chunks, n, device=chunks.device).expand(len(chunks), -1)
    return torch.cat([(chunks[..., None] * CHUNK + within).flatten(1), rest], 1)


def _best_of_chunks(users: Tensor, items: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, N / CHUNK) the largest product of each chunk; what is left out, in order of its columns, is not counted."""
    best = users.new_empty(len(users), len(items) // CHUNK)
    memory = users.new_empty(len(users), TILE)
    starts = range(0, len(items), TILE)
    bounds = torch.searchsorted(columns, torch.tensor([*starts, len(items)])).tolist()
    for start, first, last in zip(starts, bounds, bounds[1:], strict=False):
        some = items[start : start + TILE]
        scores = torch.mm(users, some.T, out=memory[:, : len(some)])
        if first < last:
            scores[rows[first:last], columns[first:last] - start] = -torch.inf
        chunk = start // CHUNK
        torch.amax(scores.view(len(scores), -1, CHUNK), 2, out=best[:, chunk : chunk + len(some) // CHUNK])
    return best


def _of_chunks(users: Tensor, items: Tensor, chunks: Tensor) -> Tensor:
    """(B, k · CHUNK) products with all items of each user's k chunks."""
    (number, k), width = chunks.shape, items.shape[1]
    vectors = items.view(-1, CHUNK * width)
    at_once = max(SECOND_STAGE // (k * CHUNK * width), 1)
    memory = items.new_empty(at_once * k, CHUNK * width)
    products = users.new_empty(number, 1, k * CHUNK)
    for start in range(0, number, at_once):
        some = chunks[start : start + at_once]
        found = torch.index_select(vectors, 0, some.flatten(), out=memory[: some.numel()])
        torch.bmm(
            users[start : start + at_once, None],
            found.view(len(some), k * CHUNK, width).transpose(1, 2),
            out=products[start : start + at_once],
        )
    return products[:, 0]
