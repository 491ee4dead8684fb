"""On a GPU: what is done to a batch is recorded, once for each shape of batch, and then played.

A step of a model of this size is some three hundred operations of a few microseconds each, and to start one takes the
processor longer than the GPU needs for it. A recording (a CUDA graph) starts all of them at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sasrec_tasks.sasrec.batches import Batch

RECORDED_AT = 2
"""Which batch of a shape is recorded: not the first, since what an operation prepares when it is new cannot be."""

MOST = 96
"""Recordings that are kept, since each holds the gradient that it leaves."""

Found = tuple[Tensor, tuple[Tensor, ...]]
"""The loss of a batch and the gradients of its parameters."""


class Recorded:
    """The same as ``work``, which has to be on ``device`` alone, never to wait for it, and to draw by its generator."""

    def __init__(self, work: Callable[[Batch], Found], device: torch.device) -> None:
        self._work, self._device = work, device
        self._seen: Counter[tuple[torch.Size, ...]] = Counter()
        self._recordings: dict[tuple[torch.Size, ...], _Recording] = {}
        self._memory = torch.cuda.graph_pool_handle()  # one for all, since they take turns

    def __len__(self) -> int:
        """How many recordings there are."""
        return len(self._recordings)

    def __call__(self, batch: Batch) -> Found:
        """Of a batch on the CPU; the next call may overwrite what this one returns."""
        shapes = tuple(part.shape for part in batch.tensors.values())
        self._seen[shapes] += 1
        if recording := self._recordings.get(shapes):
            return recording(batch)
        on_device = batch.to(self._device)
        if self._seen[shapes] < RECORDED_AT or len(self._recordings) == MOST:
            return self._work(on_device)
        self._recordings[shapes] = _Recording(self._work, on_device, self._memory)
        return self._recordings[shapes](batch)


class _Recording:
    """One shape's; it reads the batch that it was recorded with."""

    def __init__(self, work: Callable[[Batch], Found], batch: Batch, memory: Any) -> None:
        self._tensors = batch.tensors
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=memory, capture_error_mode="thread_local"):
            self._found = work(batch)

    def __call__(self, batch: Batch) -> Found:
        for name, part in batch.tensors.items():
            self._tensors[name].copy_(part, non_blocking=True)
        self._graph.replay()
        return self._found
