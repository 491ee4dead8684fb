"""Sequences → training batches: rows of similar length together, negatives drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sasrec_tasks.sasrec.sequences import PADDING, Int64, Sequences

BUCKET_BATCHES = 32
"""Batches whose rows are sorted by length together: enough to leave little padding, few enough
that a batch stays a random draw of users."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B rows of at most T inputs; what follows each of the P real slots, and K negatives for it."""

    inputs: Tensor  # (B, T) int64, each row oldest first, then padding
    slots: Tensor  # (P,) int64, the real slots, indices into inputs.flatten()
    targets: Tensor  # (P,) int64, the item that follows
    labels: Tensor  # (P,) float32
    negatives: Tensor  # (P, K) int64, never the target, never padding

    def to(self, device: torch.device) -> Batch:
        """The batch on ``device``."""
        if device.type == "cpu":
            return self
        parts = {name: part.pin_memory().to(device, non_blocking=True) for name, part in vars(self).items()}
        return Batch(**parts)


@dataclass(frozen=True, kw_only=True)
class Batches:
    """All training batches of an epoch, drawn anew each epoch from ``(random_state, epoch)`` alone.

    Each user's last ``max_len + 1`` training events make one row: its first ``max_len`` events
    are inputs, and the target of each is the event after it. Users with fewer than two training
    events have no row.
    """

    sequences: Sequences
    num_items: int
    max_len: int
    batch_size: int  # rows
    num_negatives: int
    implicit: bool  # every label is 1, whatever the outcome
    random_state: int

    def __post_init__(self) -> None:
        if self.num_items < 2:
            raise ValueError(f"negatives need a catalogue of at least 2 items, not {self.num_items}")

    @property
    def positions(self) -> int:
        """Targets per epoch."""
        return int(np.clip(self.sequences.lengths - 1, 0, self.max_len).sum())

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch, in random order."""
        random = np.random.default_rng([self.random_state, epoch])
        inputs = self.sequences.last(self.max_len + 1).without_last(1)
        trainable = np.flatnonzero(inputs.lengths > 0)
        for rows in bucketed(inputs.lengths[trainable], self.batch_size, random):
            yield self._batch(inputs.select(trainable[rows]), random)

    def _batch(self, inputs: Sequences, random: np.random.Generator) -> Batch:
        rows, columns, positions = inputs.flat()
        matrix = np.full((len(inputs), int(inputs.lengths.max())), PADDING, dtype=np.int64)
        matrix[rows, columns] = inputs.items[positions]
        targets = inputs.items[positions + 1].astype(np.int64)
        labels = np.ones(len(targets), np.float32) if self.implicit else inputs.outcomes[positions + 1]
        negatives = sample_negatives(targets, self.num_negatives, self.num_items, random)
        return Batch(
            inputs=torch.from_numpy(matrix),
            slots=torch.from_numpy(rows * matrix.shape[1] + columns),
            targets=torch.from_numpy(targets),
            labels=torch.from_numpy(labels.astype(np.float32, copy=False)),
            negatives=torch.from_numpy(negatives),
        )


def bucketed(lengths: Int64, batch_size: int, random: np.random.Generator) -> Iterator[Int64]:
    """Row numbers of each batch: random groups of rows, cut by length, the batches in random order.

    Every row comes once. Only rows of the same random group of ``BUCKET_BATCHES`` batches are
    sorted together and ties fall at random, so that which users meet in a batch, and when, stays
    random.
    """
    order = random.permutation(len(lengths))
    group = batch_size * BUCKET_BATCHES
    batches: list[npt.NDArray[np.int64]] = []
    for start in range(0, len(order), group):
        members = order[start : start + group]
        members = members[np.argsort(lengths[members], kind="stable")]
        batches += [members[i : i + batch_size] for i in range(0, len(members), batch_size)]
    for batch in random.permutation(len(batches)):
        yield batches[batch]


def sample_negatives(
    targets: Int64, num_negatives: int, num_items: int, random: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Uniform over all items but the target: (P, num_negatives) int64 for targets (P,)."""
    drawn = random.integers(1, num_items, size=(len(targets), num_negatives))  # 1…num_items - 1
    return drawn + (drawn >= targets[:, None])
