"""The gradient of a batch, its rows shared out among threads (see `threads`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from sasrec_tasks.sasrec.batches import Batch
from sasrec_tasks.sasrec.blocks import drawing
from sasrec_tasks.sasrec.fit_config import FitConfig, Precision
from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.objective import Objective
from sasrec_tasks.sasrec.threads import pool, workers

LEAST_SLOTS = 1024
"""Of a part: with fewer, starting an operation takes as long as the operation."""


class Gradient:
    """Puts a batch's gradient into the parameters of a model.

    What dropout draws hangs on ``random_state``, the epoch and the number of threads.
    """

    def __init__(self, model: SASRec, config: FitConfig) -> None:
        self.model, self.config = model, config
        self.parameters = list(model.parameters())
        device = self.parameters[0].device
        self.half = is_half(config.precision, device)
        self.parts = workers() if device.type == "cpu" else 1

    @contextmanager
    def threads(self, epoch: int) -> Iterator[None]:
        """In here calls are allowed, and the threads are kept."""
        seeds = np.random.SeedSequence([self.config.random_state, epoch]).generate_state(self.parts)
        self._random = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        with torch.random.fork_rng(), pool(self.parts) as self._pool:
            torch.manual_seed(int(seeds[0]))  # of a GPU
            yield

    def __call__(self, batch: Batch) -> Tensor:
        """Set ``.grad`` to the gradient of the loss times the batch's weight.

        Returns:
            The mean loss over positions, a scalar.
        """
        self.model.zero_grad(set_to_none=True)
        parts = batch.parts(min(self.parts, max(batch.inputs.numel() // LEAST_SLOTS, 1)))
        if len(parts) == 1:
            found = [self._part(0, batch)]
        else:
            found = list(self._pool.map(self._part, range(len(parts)), parts))
        losses, gradients = zip(*found, strict=True)
        for parameter, *of_parts in zip(self.parameters, *gradients, strict=True):
            first, *others = of_parts
            parameter.grad = sum(others, start=first)
        positions = len(batch.targets)
        return sum(
            (loss * (len(part.targets) / positions) for loss, part in zip(losses, parts, strict=True)),
            start=torch.zeros((), device=losses[0].device),
        )

    def _part(self, number: int, part: Batch) -> tuple[Tensor, tuple[Tensor, ...]]:
        drawing.generator = self._random[number]
        try:
            loss = batch_loss(self.model, part, self.config.objective, self.half)
        finally:
            drawing.generator = None
        return loss.detach(), torch.autograd.grad(loss * part.weight, self.parameters)


def batch_loss(model: SASRec, batch: Batch, objective: Objective, half: bool = False) -> Tensor:
    """The loss of a batch, a scalar; only real slots count.

    Args:
        half: multiply matrices of the model in bfloat16; what is added up over slots or items stays float32.
    """
    with torch.autocast(batch.inputs.device.type, torch.bfloat16, enabled=half):
        hidden = model(batch.inputs)  # (B, T, D)
    hidden = hidden.float().flatten(0, 1).index_select(0, batch.slots)  # (P, D)
    return objective(model, hidden, batch.targets, batch.negatives, batch.labels)


def is_half(precision: Precision, device: torch.device) -> bool:
    """Whether training multiplies in bfloat16."""
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return precision == "bfloat16"
