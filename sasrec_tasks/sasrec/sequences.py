"""Every user's items in order of time, in three flat arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PADDING = 0
"""Item index of an empty slot. Real items are 1…num_items."""

COUNTED_USERS = 16_384
"""Of `item_counts`, at once."""

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Sequences of all users, compressed-sparse-row style; slices are views, nothing is copied.

    User ``u`` has the items ``items[starts[u]:ends[u]]``, oldest first. Keeping both bounds,
    rather than one offsets array, makes "all but the last two events" or "these users only"
    another ``Sequences`` over the same (often memory-mapped) arrays.
    """

    starts: Int64  # (users,)
    ends: Int64  # (users,), exclusive
    items: Int32  # (events,), 1…num_items
    outcomes: Float32  # (events,)

    @classmethod
    def from_offsets(cls, offsets: Int64, items: Int32, outcomes: Float32) -> Sequences:
        """From CSR arrays: ``offsets`` (users + 1,), ``items`` and ``outcomes`` (events,)."""
        return cls(starts=offsets[:-1], ends=offsets[1:], items=items, outcomes=outcomes)

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> Int64:
        """Events per user, (users,)."""
        return self.ends - self.starts

    def select(self, users: Int64) -> Sequences:
        """The sequences of some users, in the order given."""
        return Sequences(
            starts=self.starts[users], ends=self.ends[users], items=self.items, outcomes=self.outcomes
        )

    def without_last(self, events: int | Int64) -> Sequences:
        """Each sequence without its last ``events`` events (a number, or one per user)."""
        ends = np.maximum(self.ends - events, self.starts)
        return Sequences(starts=self.starts, ends=ends, items=self.items, outcomes=self.outcomes)

    def last(self, events: int) -> Sequences:
        """At most the last ``events`` events of each sequence."""
        starts = np.maximum(self.ends - events, self.starts)
        return Sequences(starts=starts, ends=self.ends, items=self.items, outcomes=self.outcomes)

    def joined(self, other: Sequences) -> Sequences:
        """Each user's items, followed by those that ``other`` has of the same user; in arrays of their own."""
        lengths = self.lengths + other.lengths
        ends = np.cumsum(lengths)
        starts = ends - lengths
        items = np.empty(lengths.sum(), dtype=np.int32)
        outcomes = np.empty(len(items), dtype=np.float32)
        for part, first in ((self, starts), (other, starts + self.lengths)):
            rows, columns, positions = part.flat()
            items[first[rows] + columns] = part.items[positions]
            outcomes[first[rows] + columns] = part.outcomes[positions]
        return Sequences(starts=starts, ends=ends, items=items, outcomes=outcomes)

    def renumbered(self, index: Int64) -> Sequences:
        """The same sequences with ``index[item]`` for each item, in arrays of their own.

        Args:
            index: (num_items + 1,) new index of each item; padding for what the new numbers leave out.
        """
        positions = self.flat()[2]
        ends = np.cumsum(self.lengths)
        return Sequences(
            starts=ends - self.lengths,
            ends=ends,
            items=index[self.items[positions]].astype(np.int32),
            outcomes=self.outcomes[positions],
        )

    def flat(self) -> tuple[Int64, Int64, Int64]:
        """Where each event of these sequences lies.

        Returns:
            rows: (n,) which sequence it belongs to.
            columns: (n,) its place in that sequence, from 0.
            positions: (n,) its index into ``items`` and ``outcomes``.
        """
        lengths = self.lengths
        rows = np.repeat(np.arange(len(self)), lengths)
        columns = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return rows, columns, np.repeat(self.starts, lengths) + columns

    def item_counts(self, num_items: int) -> Int64:
        """Events of each item, (num_items + 1,); the first is of padding, 0."""
        counts = np.zeros(num_items + 1, dtype=np.int64)
        # (Where all events are would take ten times as much memory as their items.)
        for users in row_blocks(len(self), COUNTED_USERS):
            some = self.select(users)
            counts += np.bincount(some.items[some.flat()[2]], minlength=num_items + 1)
        return counts

    def padded(self) -> npt.NDArray[np.int64]:
        """The sequences as rows of a matrix, each followed by padding: (users, longest)."""
        rows, columns, positions = self.flat()
        matrix = np.full((len(self), int(self.lengths.max(initial=1))), PADDING, dtype=np.int64)
        matrix[rows, columns] = self.items[positions]
        return matrix


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """One target per user, and what came before it."""

    users: Int64  # (n,) row numbers of the sequences that were split
    targets: Int64  # (n,) item indices
    outcomes: Float32  # (n,) outcome of the target event
    history: Sequences  # n sequences: what the model reads
    seen: Sequences  # n sequences: every earlier event, those below min_outcome included

    def __len__(self) -> int:
        return len(self.users)

    def select(self, chosen: Int64) -> HeldOut:
        """Some of the users, by their place in ``users``."""
        return HeldOut(
            users=self.users[chosen],
            targets=self.targets[chosen],
            outcomes=self.outcomes[chosen],
            history=self.history.select(chosen),
            seen=self.seen.select(chosen),
        )

    def sample(self, limit: int | None, random_state: int) -> HeldOut:
        """At most so many of the users, drawn at random, in order; None is all."""
        if limit is None or len(self) <= limit:
            return self
        drawn = np.random.default_rng(random_state).choice(len(self), limit, replace=False)
        return self.select(np.sort(drawn))


@dataclass(frozen=True, kw_only=True)
class LeaveLastTwoOut:
    """Last event of a user = test, second to last = validation, the rest = training.

    The protocol of the SASRec paper (Kang & McAuley, ICDM 2018, section IV-A). Users with fewer
    than three events are trained on, not evaluated.
    """

    train: Sequences
    validation: HeldOut
    test: HeldOut
    whole: Sequences  # all users, nothing held out: what the model reads when it serves
    min_user_events: int = 1  # users with fewer are in whole alone

    @classmethod
    def of(
        cls, events: Sequences, *, min_outcome: float | None = None, min_user_events: int = 1
    ) -> LeaveLastTwoOut:
        """Split every user's valid events.

        Args:
            events: all valid events.
            min_outcome: events with a lower outcome are neither read, trained on nor a target,
                but still count as seen.
            min_user_events: users with fewer events (of those that are left) are neither trained
                on nor evaluated.
        """
        whole, origin = _positives(events, min_outcome)
        lengths = whole.lengths
        evaluated = np.flatnonzero(lengths >= max(3, min_user_events))
        trained = np.flatnonzero(lengths >= min_user_events)

        def held_out(back: int) -> HeldOut:
            targets = whole.ends[evaluated] - back
            return HeldOut(
                users=evaluated,
                targets=whole.items[targets].astype(np.int64),
                outcomes=whole.outcomes[targets],
                history=whole.select(evaluated).without_last(back),
                seen=Sequences(
                    starts=events.starts[evaluated],
                    ends=targets if origin is None else origin[targets],
                    items=events.items,
                    outcomes=events.outcomes,
                ),
            )

        return cls(
            train=whole.without_last(np.where(lengths >= 3, 2, 0)).select(trained),
            validation=held_out(back=2),
            test=held_out(back=1),
            whole=whole,
            min_user_events=min_user_events,
        )

    @property
    def unsplit(self) -> Sequences:
        """The users of ``train`` with nothing held out: what a model is refitted on after it was measured."""
        return self.whole.select(np.flatnonzero(self.whole.lengths >= self.min_user_events))


def _positives(events: Sequences, min_outcome: float | None) -> tuple[Sequences, Int64 | None]:
    """The events of at least ``min_outcome``, and where each stood in ``events`` (None: unmoved)."""
    if min_outcome is None:
        return events, None
    rows, _, positions = events.flat()
    kept = events.outcomes[positions] >= min_outcome
    lengths = np.bincount(rows[kept], minlength=len(events))
    ends = np.cumsum(lengths)
    origin = positions[kept]
    positives = Sequences(
        starts=ends - lengths,
        ends=ends,
        items=events.items[origin],
        outcomes=events.outcomes[origin],
    )
    return positives, origin


def distinct(keys: Int64) -> Int64:
    """Each value once, in order: `np.unique` by sorting, which is many times as fast as its hashing here."""
    ordered = np.sort(keys)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])] if len(ordered) else ordered


def ranges(rows: int, size: int) -> list[range]:
    """Row numbers 0…rows − 1, at most ``size`` at a time."""
    return [range(start, min(start + size, rows)) for start in range(0, rows, size)]


def row_blocks(rows: int, size: int) -> Iterator[Int64]:
    """As `ranges`, as arrays."""
    for block in ranges(rows, size):
        yield np.arange(block.start, block.stop)
