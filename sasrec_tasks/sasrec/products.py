"""Scores of representations and items: a matrix product of few rows and very many columns."""

from __future__ import annotations

import torch
from torch import Tensor

ITEMS_AT_ONCE = 512
"""Items of a product on a CPU. How the libraries share out one of some hundred rows and a whole catalogue of
columns can take twice as long."""


def dot_products(hidden: Tensor, items: Tensor, out: Tensor) -> Tensor:
    """``hidden @ items.T``, without a gradient.

    Args:
        hidden: (P, D) representations.
        items: (N, D).
        out: (P, N), what is written into.

    Returns:
        ``out``.
    """
    at_once = len(items) if hidden.is_cuda else ITEMS_AT_ONCE
    for start in range(0, len(items), at_once):
        some = slice(start, start + at_once)
        torch.mm(hidden, items[some].T, out=out[:, some])
    return out
