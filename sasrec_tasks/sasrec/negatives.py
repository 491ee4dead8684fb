"""Random items to train against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sasrec_tasks.sasrec.sequences import Int64, Sequences, distinct

NegativeSampling = Literal["shared", "other", "unseen"]


@dataclass(frozen=True, kw_only=True)
class Negatives:
    """How many negatives are drawn, and among what, always uniformly.

    - ``shared``: the same for all positions of a batch, distinct, among all items; a position's own
      target may be among them.
    - ``other``: for each position, among all items but its target.
    - ``unseen``: for each position, among the items that its user does not have anywhere (Kang &
      McAuley 2018, eq. 7: j ∉ S^u). Then nothing tells the items that a user has from each other: for
      rankings without seen items, and catalogues of which users see a small part. Users who have
      all items get negatives as with ``other``.

    Raises:
        ValueError: negatives of a catalogue of one item.
    """

    sampling: NegativeSampling
    number: int  # per position, or per batch if shared; 0: none
    num_items: int

    def __post_init__(self) -> None:
        if self.num_items < 2 and self.number:
            raise ValueError(f"negatives need a catalogue of at least 2 items, not {self.num_items}")

    def draw(self, targets: Int64, rows: Int64, own: Sequences, random: np.random.Generator) -> Int64:
        """Item indices, never padding: (P, number); if shared, (number,), at most the catalogue.

        Args:
            targets: (P,) the item that follows each position.
            rows: (P,) which sequence of ``own`` a position is of.
            own: the items of the users, but for their targets, which may be among them or not.
        """
        if self.sampling == "shared":
            return 1 + random.choice(self.num_items, size=min(self.number, self.num_items), replace=False)
        if self.sampling == "unseen" and self.number:
            return self._unseen(targets, rows, own, random)
        return self._other(targets, random)

    def _other(self, targets: Int64, random: np.random.Generator) -> Int64:
        drawn = random.integers(1, self.num_items, size=(len(targets), self.number))  # 1…num_items - 1
        return drawn + (drawn >= targets[:, None])

    def _unseen(self, targets: Int64, rows: Int64, own: Sequences, random: np.random.Generator) -> Int64:
        """The r-th item that a user lacks, r at random, so that nothing has to be drawn again.

        With a user's items in order, a_0 < a_1 < …, as many of them come before the r-th lacking item as
        have a_j - j ≤ r (j and r from 0 and 1); one sorted array of these, user after user, is searched.
        """
        width = self.num_items + 1
        owners, _, positions = own.flat()
        keys = distinct(np.concatenate([owners * width + own.items[positions], rows * width + targets]))
        owners, items = keys // width, keys % width
        counts = np.bincount(owners, minlength=len(own))
        firsts = np.cumsum(counts) - counts
        shifted = owners * width + items - (np.arange(len(keys)) - firsts[owners])
        lacking = (self.num_items - counts)[rows]  # (P,)
        nth = 1 + (random.random((len(rows), self.number)) * lacking[:, None]).astype(np.int64)
        before = np.searchsorted(shifted, rows[:, None] * width + nth, side="right") - firsts[rows, None]
        drawn: Int64 = nth + before
        complete = lacking == 0
        if complete.any():
            drawn[complete] = self._other(targets[complete], random)
        return drawn
