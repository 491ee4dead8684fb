"""Training losses, one function each, over the real (not padded) positions of a batch.

All return the mean over positions, each counted once or, if there are ``counts`` (P,), as often as they say. The
sampled ones take the score of each position's next item and those of its negatives, where −inf marks a negative that
happens to be that item: it counts for nothing.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sasrec_tasks.sasrec.products import dot_products

Loss = Literal["bce", "gbce", "mse", "sampled_softmax", "softmax"]

BLOCK_SCORES, BLOCK_SCORES_ON_GPU = 2**20, 2**26
"""Scores held at once by `softmax`: 4 MB, which stay in a core's cache; 256 MB, which keep a GPU busy."""


def weighted(values: Tensor, counts: Tensor | None) -> Tensor:
    """Values (P,) or (P, K) times how often their positions count."""
    return values if counts is None else values * counts.reshape(-1, *(1,) * (values.dim() - 1))


def bce(positive: Tensor, negative: Tensor, label: Tensor, counts: Tensor | None = None) -> Tensor:
    """Binary cross-entropy (Kang & McAuley 2018, eq. 7), labels in [0, 1].

    ``-[y log s(r⁺) + (1 - y) log(1 - s(r⁺))] - mean_j log(1 - s(r⁻_j))``, averaged over positions.
    The negative part is a mean, so that its gradient balances the positive's whatever the number of
    negatives.

    Args:
        positive: (P,) scores of the items that followed.
        negative: (P, K) scores of sampled items.
        label: (P,) 1 for an event that counts fully, less for a soft label.
    """
    at_positive = F.binary_cross_entropy_with_logits(positive, label, counts)
    return at_positive + weighted(F.softplus(negative), counts).mean()


def gbce(
    positive: Tensor,
    negative: Tensor,
    label: Tensor,
    counts: Tensor | None = None,
    *,
    num_items: int,
    t: float,
) -> Tensor:
    """Generalised binary cross-entropy (Petrov & Macdonald, gSASRec, RecSys 2023, eq. 8 and 13).

    Sampling K of many negatives makes a model overconfident; the positive's sigmoid is raised to the
    power β to undo it: ``-1/(K + 1) [y β log s(r⁺) + (1 - y) log(1 - s(r⁺)) + Σ_j log(1 - s(r⁻_j))]``
    with ``β = α (t (1 - 1/α) + 1/α)`` and the sampling rate ``α = K / (num_items - 1)``. With t = 0
    β is 1, with t = 1 scores are calibrated. As in the paper, negatives are summed, not averaged: their
    gradient is K times the positive's at equal scores, unlike that of `bce`. Shapes as for `bce`.
    """
    negatives = negative.shape[1]
    rate = min(negatives / (num_items - 1), 1.0)
    beta = rate * (t * (1 - 1 / rate) + 1 / rate)
    at_positive = label * beta * F.softplus(-positive) + (1 - label) * F.softplus(positive)
    return weighted(at_positive + F.softplus(negative).sum(1), counts).mean() / (negatives + 1)


def mse(positive: Tensor, negative: Tensor, label: Tensor, counts: Tensor | None = None) -> Tensor:
    """Squared error to the rating at the item that followed and to 0 at sampled items.

    ``(r⁺ - y)² + mean_j (r⁻_j)²``, averaged over positions; shapes as for `bce`.
    """
    at_positive = F.mse_loss(positive, label, reduction="mean" if counts is None else "none")
    at_negative = negative.masked_fill(negative == -torch.inf, 0).square()
    return weighted(at_positive, counts).mean() + weighted(at_negative, counts).mean()


def sampled_softmax(positive: Tensor, negative: Tensor, label: Tensor, *, log_q: float) -> Tensor:
    """Cross-entropy over the next item and sampled ones, each weighted by its label.

    ``-y log [exp(r⁺) / (exp(r⁺) + Σ_j exp(r⁻_j - log q))]``, averaged over positions. q is how often an
    item is expected among the K negatives; subtracting its logarithm makes the sum an estimate of that
    over all items (Bengio & Senécal 2008; Jean et al., ACL 2015, section 3).

    Args:
        positive: (P,) scores of the items that followed.
        negative: (P, K) scores of sampled items.
        label: (P,) weights.
        log_q: logarithm of an item's expected number among K uniform negatives.
    """
    scores = torch.cat([positive[:, None], negative - log_q], dim=1)
    return (label * (scores.logsumexp(1) - positive)).mean()


def softmax(hidden: Tensor, items: Tensor, targets: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy over all items, each position weighted by its label.

    ``-y log [exp(r⁺) / Σ_i exp(r_i)]``, averaged over positions (Klenitskiy & Vasilev, RecSys 2023).
    A block of positions at a time, gradients included, so that positions × items is never held.

    Args:
        hidden: (P, D) representations.
        items: (num_items + 1, D), of which the first is padding.
        targets: (P,) items that followed.
        label: (P,) weights.
    """
    loss: Tensor = _Softmax.apply(hidden, items, targets, label)  # type: ignore[no-untyped-call]
    return loss


class _Softmax(torch.autograd.Function):
    """Each block's scores give its loss and, turned into probabilities in place, its gradients."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, items: Tensor, targets: Tensor, label: Tensor) -> Tensor:
        block_scores = BLOCK_SCORES_ON_GPU if hidden.is_cuda else BLOCK_SCORES
        positions, rows = len(hidden), max(block_scores // len(items), 1)
        buffer = hidden.new_empty(min(rows, positions), len(items))  # once: fresh memory is slow to touch
        hidden_gradient, items_gradient = torch.empty_like(hidden), torch.zeros_like(items)
        total = hidden.new_zeros(())
        for start in range(0, positions, rows):
            block = slice(start, start + rows)
            weight = label[block, None] / positions
            target = targets[block, None]
            scores = dot_products(hidden[block], items, out=buffer[: len(target)])
            scores[:, 0] = -torch.inf
            scores -= scores.amax(1, keepdim=True)
            shifted = scores.gather(1, target)
            scores.exp_()
            sums = scores.sum(1, keepdim=True)
            total += (weight * (sums.log() - shifted)).sum()
            scores *= weight / sums
            scores.scatter_add_(1, target, -weight)
            torch.mm(scores, items, out=hidden_gradient[block])
            items_gradient.addmm_(scores.T, hidden[block])
        ctx.save_for_backward(hidden_gradient, items_gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden_gradient, items_gradient = ctx.saved_tensors
        return hidden_gradient * gradients[0], items_gradient * gradients[0], None, None
