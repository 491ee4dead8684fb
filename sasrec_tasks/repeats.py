"""Events that were delivered twice, found in a stream that is in order of user and time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Columns = dict[str, npt.NDArray[np.generic]]


class Repeats:
    """Leaves out an event that has the ``user``, ``item`` and ``timestamp`` of an earlier one; ``dropped`` counts."""

    def __init__(self) -> None:
        self.dropped = 0
        self._held: Columns = {}

    def without(self, columns: Columns) -> Columns:
        """The next part of the stream without repeats; its last events, which may go on, come with the next call."""
        if self._held:
            columns = {name: np.concatenate([self._held[name], values]) for name, values in columns.items()}
        begins = self._begins(columns)
        last = int(np.flatnonzero(begins)[-1]) if len(begins) else 0
        self._held = {name: values[last:] for name, values in columns.items()}
        return self._kept({name: values[:last] for name, values in columns.items()}, begins[:last])

    def rest(self) -> Columns:
        """What was held back."""
        return self._kept(self._held, self._begins(self._held)) if self._held else {}

    def _begins(self, columns: Columns) -> npt.NDArray[np.bool_]:
        """Whether an event is of another user or time than the one before."""
        user, timestamp = columns["user"], columns["timestamp"]
        begins = np.ones(len(user), bool)
        begins[1:] = (user[1:] != user[:-1]) | (timestamp[1:] != timestamp[:-1])
        return begins

    def _kept(self, columns: Columns, begins: npt.NDArray[np.bool_]) -> Columns:
        shares = ~begins  # its user and time with the one before
        shares[:-1] |= ~begins[1:]
        tied = np.flatnonzero(shares)
        if not len(tied):
            return columns
        items = columns["item"][tied].astype(np.int64)
        # Group and item in one number, which a stable sort finds nearly in order; the first that came stays.
        pairs = np.cumsum(begins)[tied] * (items.max() + 1) + items
        order = np.argsort(pairs, kind="stable")
        same = np.diff(pairs[order]) == 0
        keep = np.ones(len(begins), bool)
        keep[tied[order[1:][same]]] = False
        self.dropped += int(np.count_nonzero(same))
        return {name: values[keep] for name, values in columns.items()}
