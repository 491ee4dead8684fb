"""Processes that train one model together: each works on rows of its own of every batch, and gradients are added up.

All hold the same weights and take the same steps: what is drawn for a whole batch, such as shared negatives, each draws
by the same seed, and whatever could differ (a clock, for instance) is settled by adding up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.distributed
from torch import Tensor

from sasrec_tasks.sasrec.sequences import Int64, Sequences


class Group(Protocol):
    """The processes of a training, of which this is one."""

    @property
    def rank(self) -> int:
        """Which of them this is, from 0."""

    @property
    def size(self) -> int:
        """How many they are."""

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Put the sum over all processes in the place of each tensor; all wait for each other."""


@dataclass(frozen=True)
class Alone:
    """A group of one."""

    rank: int = 0
    size: int = 1

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Leave them as they are."""


ALONE = Alone()


class Distributed:
    """The processes of `torch.distributed`, whose default group must be there."""

    def __init__(self) -> None:
        self.rank, self.size = torch.distributed.get_rank(), torch.distributed.get_world_size()

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Dense ones of a kind in one message; of sparse ones, which NCCL does not add up, the rows that are there."""
        dense = [each for each in tensors if not each.is_sparse]
        for sparse in (each for each in tensors if each.is_sparse):
            sparse.copy_(self._added_up(sparse.coalesce()))
        for dtype in dict.fromkeys(each.dtype for each in dense):
            some = [each for each in dense if each.dtype == dtype]
            flat = torch.cat([each.reshape(-1) for each in some])
            torch.distributed.all_reduce(flat)
            for each, summed in zip(some, torch.split(flat, [each.numel() for each in some]), strict=True):
                each.copy_(summed.view_as(each))

    def _added_up(self, sparse: Tensor) -> Tensor:
        """The sum of all processes' rows (1 sparse dimension), in the order of the processes."""
        indices, values = sparse.indices(), sparse.values()
        counts = [int(count) for count in self._all(torch.tensor([len(values)], device=values.device))]
        missing = max(counts) - len(values)  # messages are of one size
        padded = (
            torch.nn.functional.pad(indices, (0, missing)),
            torch.nn.functional.pad(values, (0, 0, 0, missing)),
        )
        of_all = [self._all(each) for each in padded]
        indices = torch.cat([each[:, :count] for each, count in zip(of_all[0], counts, strict=True)], 1)
        values = torch.cat([each[:count] for each, count in zip(of_all[1], counts, strict=True)])
        return torch.sparse_coo_tensor(indices, values, sparse.shape).coalesce()

    def _all(self, tensor: Tensor) -> list[Tensor]:
        """Each process's own, of the same shape."""
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        torch.distributed.all_gather(found, tensor.contiguous())
        return found


def own(sequences: Sequences, group: Group) -> Int64:
    """Which sequences a process works on, each of them one process's: a stretch of the flat arrays that holds its share
    of the events, so that it reads no more of them."""
    if group.size == 1:
        return np.arange(len(sequences))
    order = np.argsort(sequences.starts, kind="stable")
    before = np.cumsum(sequences.lengths[order]) - sequences.lengths[order]
    share = np.minimum(before * group.size // max(int(sequences.lengths.sum()), 1), group.size - 1)
    return np.sort(order[share == group.rank])
