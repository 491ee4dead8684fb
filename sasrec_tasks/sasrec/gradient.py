"""The gradient of a batch, its rows shared out among threads (see `threads`)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sasrec_tasks.sasrec.batches import Batch
from sasrec_tasks.sasrec.blocks import drawing
from sasrec_tasks.sasrec.fit_config import FitConfig, Precision
from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.objective import Objective
from sasrec_tasks.sasrec.parallel import ALONE, Group
from sasrec_tasks.sasrec.recorded import Recorded
from sasrec_tasks.sasrec.threads import pool, workers

PARTS = 2
"""Of a batch, each with masks of its own, so that weights don't hang on how many threads there are but by
rounding. More parts are smaller, and take a sixth longer all together with four; more threads share the
operations of these."""

LEAST_SLOTS = 1024
"""Of a part: with fewer, starting an operation takes as long as the operation."""

ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Kernels of attention: not cuDNN's, which on a GPU plan for some ten milliseconds for each new shape of batch."""


class Gradient:
    """Puts a batch's gradient into the parameters of a model.

    What dropout draws hangs on ``random_state`` and the epoch alone.
    """

    def __init__(self, model: SASRec, config: FitConfig, group: Group = ALONE) -> None:
        self.model, self.config, self.group = model, config, group
        self.parameters = [each for each in model.parameters() if each.requires_grad]
        device = self.parameters[0].device
        self.half = is_half(config.precision, device)
        self.parts = PARTS if device.type == "cpu" else 1
        # (gradients of a large catalogue are of the batch's items, whose number a recording cannot know)
        can_record = device.type == "cuda" and not model.item_embedding.sparse
        self.recorded = Recorded(self._of, device) if can_record else None
        self._device = device
        self._pool: ThreadPoolExecutor | None = None
        self._random: list[torch.Generator] = []

    @contextmanager
    def epoch(self, number: int) -> Iterator[None]:
        """Calls are allowed in here; what they draw begins anew."""
        entropy = [self.config.random_state, number, *([self.group.rank] if self.group.size > 1 else [])]
        seeds = np.random.SeedSequence(entropy).generate_state(self.parts)
        self._random = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        with (
            torch.random.fork_rng(),
            sdpa_kernel(ATTENTION),
            pool(min(self.parts, workers())) as self._pool,
        ):
            torch.manual_seed(int(seeds[0]))  # for dropout on a GPU; on a CPU each part has a generator
            try:
                yield
            finally:
                self._pool = None

    def __call__(self, batch: Batch) -> Tensor:
        """Set ``.grad`` to the gradient of the loss times the batch's weight, over the rows of all processes.

        Returns:
            The mean loss over the positions of this one, a scalar; 0 where there are none.

        Raises:
            RuntimeError: outside of `epoch`.
        """
        if self._pool is None:
            raise RuntimeError("a gradient is computed within epoch()")
        self.model.zero_grad(set_to_none=True)
        loss = self._own(batch) if len(batch.targets) else self._none()
        if self.group.size > 1:
            self.group.add_up([each.grad for each in self.parameters if each.grad is not None])
        return loss

    def _none(self) -> Tensor:
        embedding = self.model.item_embedding
        for parameter in self.parameters:
            if not (embedding.sparse and parameter is embedding.weight):
                parameter.grad = torch.zeros_like(parameter)
        if embedding.sparse:
            nowhere = torch.empty(1, 0, dtype=torch.int64, device=self._device)
            nothing = embedding.weight.new_empty(0, embedding.weight.shape[1])
            embedding.weight.grad = torch.sparse_coo_tensor(nowhere, nothing, embedding.weight.shape)
        return torch.zeros((), device=self._device)

    def _own(self, batch: Batch) -> Tensor:
        assert self._pool is not None
        if self.recorded is not None:
            loss, found = self.recorded(batch)
            for parameter, gradient in zip(self.parameters, found, strict=True):
                parameter.grad = gradient
            return loss
        is_whole = self.parts == 1 or batch.inputs.numel() < self.parts * LEAST_SLOTS
        parts = [batch] if is_whole else batch.parts(self.parts)
        run = map if is_whole else self._pool.map
        losses, gradients = zip(*run(self._part, range(len(parts)), parts), strict=True)
        for parameter, first, *others in zip(self.parameters, *gradients, strict=True):
            parameter.grad = sum(others, start=first)
        shares = [len(part.targets) / len(batch.targets) for part in parts]
        return torch.stack([loss * share for loss, share in zip(losses, shares, strict=True)]).sum()

    def _part(self, number: int, part: Batch) -> tuple[Tensor, tuple[Tensor, ...]]:
        drawing.generator = self._random[number]
        try:
            return self._of(part.to(self._device))
        finally:
            drawing.generator = None

    def _of(self, part: Batch) -> tuple[Tensor, tuple[Tensor, ...]]:
        loss = batch_loss(self.model, part, self.config.objective, self.half)
        return loss.detach(), torch.autograd.grad(loss * part.weight, self.parameters)


def batch_loss(model: SASRec, batch: Batch, objective: Objective, half: bool = False) -> Tensor:
    """The loss of a batch, a scalar; only real slots count.

    Args:
        half: multiply matrices of the model in bfloat16; what is added up over slots or items stays float32.
    """
    with torch.autocast(batch.inputs.device.type, torch.bfloat16, enabled=half, cache_enabled=False):
        hidden = model(batch.inputs)  # (B, T, D)
    hidden = hidden.float().flatten(0, 1).index_select(0, batch.slots)  # (P, D)
    return objective(model, hidden, batch.targets, batch.negatives, batch.labels, batch.counts)


def is_half(precision: Precision, device: torch.device) -> bool:
    """Whether training multiplies in bfloat16."""
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return precision == "bfloat16"
