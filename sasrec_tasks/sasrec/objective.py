"""From representations to a loss: which items are scored, and by which loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sasrec_tasks.sasrec import losses
from sasrec_tasks.sasrec.losses import Loss
from sasrec_tasks.sasrec.model import SASRec


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What training makes small."""

    loss: Loss
    gbce_t: float  # calibration of gbce: 0 none, 1 full

    def __call__(
        self,
        model: SASRec,
        hidden: Tensor,
        targets: Tensor,
        negatives: Tensor,
        labels: Tensor,
        counts: Tensor | None = None,
    ) -> Tensor:
        """The mean loss over positions, a scalar.

        Args:
            hidden: (P, D) representations.
            targets: (P,) items that followed.
            negatives: (P, K) items for each position, or (K,) distinct ones for all of them.
            labels: (P,) float32.
            counts: (P,) how much of the mean a position is, 1 on average; None: all the same.
        """
        if self.loss == "softmax":
            return losses.softmax(hidden, model.item_vectors(), targets, losses.weighted(labels, counts))
        positive = (hidden * model.item_vectors(targets)).sum(-1)  # (P,)
        if negatives.dim() == 1:
            negatives = negatives.sort().values
            negative = without_own(hidden @ model.item_vectors(negatives).T, negatives, targets)  # (P, K)
        else:
            negative = (model.item_vectors(negatives) @ hidden.unsqueeze(-1)).squeeze(-1)  # (P, K)
        num_items = model.config.num_items
        if self.loss == "gbce":
            return losses.gbce(positive, negative, labels, counts, num_items=num_items, t=self.gbce_t)
        if self.loss == "sampled_softmax":
            others = num_items if negatives.dim() == 1 else num_items - 1
            log_q = math.log(negatives.shape[-1] / others)
            return losses.sampled_softmax(positive, negative, losses.weighted(labels, counts), log_q=log_q)
        return (losses.mse if self.loss == "mse" else losses.bce)(positive, negative, labels, counts)


def without_own(scores: Tensor, negatives: Tensor, targets: Tensor) -> Tensor:
    """Scores of shared negatives, −inf where one is the position's own target: at most one of them is.

    Args:
        scores: (P, K); to compare all of them with the targets would take as long as to compute them.
        negatives: (K,) distinct, rising.
        targets: (P,).
    """
    if len(negatives) == 0:
        return scores
    place = torch.searchsorted(negatives, targets).clamp(max=len(negatives) - 1)[:, None]  # (P, 1)
    is_own = negatives[place] == targets[:, None]
    return scores.scatter(1, place, scores.gather(1, place).masked_fill(is_own, -torch.inf))
