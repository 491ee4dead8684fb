"""Training losses, one function each, over the real (not padded) positions of a batch.

All take the score of each position's next item and of its sampled negatives, and return the mean
over positions. The negative part is a mean over a position's negatives, so that its gradient
balances the positive's whatever their number.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def bce(positive: Tensor, negative: Tensor, label: Tensor) -> Tensor:
    """Binary cross-entropy (Kang & McAuley 2018, eq. 7), labels in [0, 1].

    ``-[y log s(r⁺) + (1 - y) log(1 - s(r⁺))] - mean_j log(1 - s(r⁻_j))``, averaged over positions.

    Args:
        positive: (P,) scores of the items that followed.
        negative: (P, K) scores of sampled items.
        label: (P,) 1 for an event that counts fully, less for a soft label.
    """
    at_positive = F.binary_cross_entropy_with_logits(positive, label)
    return at_positive + F.softplus(negative).mean()


def mse(positive: Tensor, negative: Tensor, label: Tensor) -> Tensor:
    """Squared error to the rating at the item that followed and to 0 at sampled items.

    ``(r⁺ - y)² + mean_j (r⁻_j)²``, averaged over positions; shapes as for `bce`.
    """
    return F.mse_loss(positive, label) + negative.square().mean()


LOSSES: dict[str, Loss] = {"bce": bce, "mse": mse}
