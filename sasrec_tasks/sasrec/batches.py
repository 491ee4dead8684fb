"""Sequences → training batches: rows of similar length together, negatives beside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from sasrec_tasks.sasrec.negatives import Negatives
from sasrec_tasks.sasrec.parallel import ALONE, Group, own
from sasrec_tasks.sasrec.sequences import PADDING, Int64, Sequences

Windows = Literal["last", "all"]

BUCKET_BATCHES = 32
"""Batches whose rows are sorted by length together: enough to leave little padding, few enough
that a batch stays a random draw of users."""

LEAST_BATCHES = 32
"""Batches by slots are smaller where an epoch would have fewer: little data needs steps, too."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B rows of at most T inputs; what follows each of P slots, the real ones, and K negatives for it."""

    inputs: Tensor  # (B, T) int64, each row oldest first, then padding
    slots: Tensor  # (P,) int64, the real slots, indices into inputs.flatten()
    targets: Tensor  # (P,) int64, the item that follows
    labels: Tensor  # (P,) float32
    negatives: Tensor  # int64, never padding: (P, K), never the target, or (K,) for all positions
    weight: Tensor  # scalar float32: P over the mean of an epoch's batches
    counts: Tensor | None = None  # (P,) float32, of each slot in the mean, 1 on average; None: all the same

    @property
    def tensors(self) -> dict[str, Tensor]:
        """By name."""
        return {name: part for name, part in vars(self).items() if part is not None}

    @property
    def positions(self) -> int:
        """How many of the slots are real."""
        return len(self.targets) if self.counts is None else int(self.counts.count_nonzero())

    def to(self, device: torch.device) -> Batch:
        """The batch on ``device``, which is not waited for if the batch is pinned."""
        return Batch(**{name: part.to(device, non_blocking=True) for name, part in self.tensors.items()})

    def pinned(self) -> Batch:
        """The batch in memory that a GPU copies from by itself."""
        return Batch(**{name: part.pin_memory() for name, part in self.tensors.items()})

    def padded(self, max_len: int) -> Batch:
        """The same with padding up to round numbers of rows and columns; all slots are listed, but padding counts 0.

        So few shapes come, for what is made for a shape of batch. Losses and gradients are the same.
        """
        B, T = self.inputs.shape
        rows, columns = round_up(B), min(round_up(T), max_len)
        places = self.slots // T * columns + self.slots % T
        slots = rows * columns

        def spread(part: Tensor, padding: int) -> Tensor:
            return part.new_full((slots, *part.shape[1:]), padding).index_copy_(0, places, part)

        return Batch(
            inputs=F.pad(self.inputs, (0, columns - T, 0, rows - B)),
            slots=torch.arange(slots),
            targets=spread(self.targets, 1),  # any item
            labels=spread(self.labels, 0),
            negatives=self.negatives if self.negatives.dim() == 1 else spread(self.negatives, 1),
            weight=self.weight,
            counts=spread(torch.full((len(places),), slots / len(places)), 0),
        )

    def parts(self, number: int) -> list[Batch]:
        """The batch as that many of about as many rows each, or as it has rows; it is on the CPU, and not copied.

        Sums over positions and weights are those of the batch; negatives of all positions are in each part.
        """
        B, T = self.inputs.shape
        number = min(number, B)
        cuts = [B * part // number for part in range(number + 1)]  # rows
        ends = torch.searchsorted(self.slots, torch.tensor(cuts) * T).tolist()  # slots
        return [
            Batch(
                inputs=self.inputs[cuts[part] : cuts[part + 1]],
                slots=self.slots[rows] - cuts[part] * T,
                targets=self.targets[rows],
                labels=self.labels[rows],
                negatives=self.negatives if self.negatives.dim() == 1 else self.negatives[rows],
                weight=self.weight * (rows.stop - rows.start) / len(self.targets),
            )
            for part, rows in enumerate(map(slice, ends, ends[1:]))
        ]


@dataclass(frozen=True, kw_only=True)
class Batches:
    """All training batches of an epoch, drawn anew each epoch from ``(random_state, epoch)`` alone.

    Batches of long rows have more positions than those of short ones, and a loss is a mean over
    positions: ``weight`` makes up for it, so that each position counts the same.

    A row is ``max_len + 1`` consecutive training events of a user, or all there are: its first
    ``max_len`` events are inputs, and the target of each is the event after it. Users with fewer than
    two training events have no row.
    """

    sequences: Sequences
    max_len: int
    windows: Windows  # "last": one row per user, of the last events; "all": every event is a target once
    batch_size: int  # rows
    batch_slots: int | None  # if set, at least 32 batches of at most so many slots (rows × longest) instead
    negatives: Negatives
    implicit: bool  # every label is 1, whatever the outcome
    random_state: int
    group: Group = ALONE

    @property
    def positions(self) -> int:
        """Targets per epoch."""
        return targets_per_epoch(self.sequences.lengths, self.max_len, self.windows)

    @property
    def slots(self) -> int | None:
        """The most slots of a batch, if batches are cut by them."""
        if self.batch_slots is None:
            return None
        return min(self.batch_slots, max(self.positions // LEAST_BATCHES, 1))

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch, in random order: of each, the rows of this process, which may be none."""
        random = np.random.default_rng([self.random_state, epoch])
        is_own = np.zeros(len(self.sequences), bool)
        is_own[own(self.sequences, self.group)] = True
        if self.windows == "all":
            cut, users = windows(self.sequences, self.max_len + 1)
        else:
            cut, users = self.sequences.last(self.max_len + 1), np.arange(len(self.sequences))
        inputs = cut.without_last(1)
        trainable = np.flatnonzero(inputs.lengths > 0)
        lengths = inputs.lengths[trainable]
        batches = list(bucketed(lengths, self.batch_size, random, slots=self.slots))
        mean_positions = self.positions / max(len(batches), 1)
        # Negatives of all positions are those of all processes; those of a position are nobody else's.
        draws = random
        if self.negatives.sampling != "shared" and self.group.size > 1:
            draws = np.random.default_rng([self.random_state, epoch, self.group.rank])
        for rows in batches:
            chosen = trainable[rows]
            chosen = chosen[is_own[users[chosen]]]
            yield self._batch(
                inputs.select(chosen), self.sequences.select(users[chosen]), draws, mean_positions
            )

    def _batch(
        self, inputs: Sequences, histories: Sequences, random: np.random.Generator, mean_positions: float
    ) -> Batch:
        rows, columns, positions = inputs.flat()
        matrix = np.full((len(inputs), int(inputs.lengths.max(initial=1))), PADDING, dtype=np.int64)
        matrix[rows, columns] = inputs.items[positions]
        targets = inputs.items[positions + 1].astype(np.int64)
        labels = np.ones(len(targets), np.float32) if self.implicit else inputs.outcomes[positions + 1]
        negatives = self.negatives.draw(targets, rows, histories, random)
        return Batch(
            inputs=torch.from_numpy(matrix),
            slots=torch.from_numpy(rows * matrix.shape[1] + columns),
            targets=torch.from_numpy(targets),
            labels=torch.from_numpy(labels.astype(np.float32, copy=False)),
            negatives=torch.from_numpy(negatives),
            weight=torch.tensor(len(targets) / mean_positions),
        )


def round_up(number: int) -> int:
    """The next number of four significant bits: at most an eighth more."""
    step = 1 << max(number.bit_length() - 4, 0)
    return -(-number // step) * step


def targets_per_epoch(lengths: Int64, max_len: int, windows: Windows) -> int:
    """How many events of sequences of these lengths (users,) are targets in an epoch."""
    targets = np.maximum(lengths - 1, 0)
    return int((targets if windows == "all" else np.minimum(targets, max_len)).sum())


def windows(sequences: Sequences, events: int) -> tuple[Sequences, Int64]:
    """Cut each sequence, from its end, into windows of at most ``events`` events.

    Two windows that meet share one event, the last input of the one and the first of the other, so
    that each event but a sequence's first follows another in exactly one window.

    Returns:
        The windows, and which sequence each is of, (windows,).
    """
    lengths, step = sequences.lengths, events - 1
    counts = np.maximum(-(-(lengths - 1) // step), 1)
    owner = np.repeat(np.arange(len(sequences)), counts)
    nth = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)  # from the end
    ends = sequences.ends[owner] - nth * step
    cut = Sequences(
        starts=np.maximum(ends - events, sequences.starts[owner]),
        ends=ends,
        items=sequences.items,
        outcomes=sequences.outcomes,
    )
    return cut, owner


def bucketed(
    lengths: Int64, batch_size: int, random: np.random.Generator, *, slots: int | None = None
) -> Iterator[Int64]:
    """Row numbers of each batch: random groups of rows, cut by length, the batches in random order.

    Every row comes once. Only rows of the same random group of ``BUCKET_BATCHES`` batches are
    sorted together and ties fall at random, so that which users meet in a batch, and when, stays
    random.
    """
    order = random.permutation(len(lengths))
    if slots is not None and len(lengths):
        batch_size = max(slots // int(lengths.mean()), 1)
    group = batch_size * BUCKET_BATCHES
    batches: list[npt.NDArray[np.int64]] = []
    for start in range(0, len(order), group):
        members = order[start : start + group]
        members = members[np.argsort(lengths[members], kind="stable")]
        if slots is None:
            batches += [members[i : i + batch_size] for i in range(0, len(members), batch_size)]
        else:
            batches += by_slots(members, lengths, slots)
    for batch in random.permutation(len(batches)):
        yield batches[batch]


def by_slots(order: Int64, lengths: Int64, slots: int) -> Iterator[Int64]:
    """Cut rows of rising length into blocks of at most ``slots`` slots (rows × longest), or one row."""
    start = 0
    while start < len(order):
        stop = min(start + max(slots // int(lengths[order[start]]), 1), len(order))
        while stop > start + 1 and (stop - start) * int(lengths[order[stop - 1]]) > slots:
            stop = start + max(slots // int(lengths[order[stop - 1]]), 1)
        yield order[start:stop]
        start = stop
