"""How old each item is when a run takes place: the days from its first event to `as_of`.

The first event that the run has read: an item that is older than the period that is read (`ingest.lookback_days`), or
that was known elsewhere before anybody had to do with it here, is as old as its first event says.
"""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.config import Settings
from sasrec_tasks.contents import ITEMS, MANIFEST, ROWS_AT_ONCE, Interactions
from sasrec_tasks.sasrec.sequences import Int64, row_blocks
from sasrec_tasks.timestamps import TICKS, first_tick_at

log = logging.getLogger(__name__)

DAY = 86_400  # seconds


def ages(store: RunStore, settings: Settings, data: Interactions) -> npt.NDArray[np.float64]:
    """Days from each item's first event to `as_of`: (num_items + 1,) float64, infinite of padding."""
    assert settings.as_of is not None  # frozen when the run started
    unit = store.read_json("ingest", MANIFEST)["timestamp_unit"]
    elapsed = first_tick_at(settings.as_of, unit) - _first_events(store, data)
    days: npt.NDArray[np.float64] = elapsed / (TICKS[unit] * DAY)
    days[0] = np.inf
    return days


def new_items(store: RunStore, settings: Settings, data: Interactions) -> Int64:
    """Indices of the items that are younger than `export.new_item_days`, rising; none if that is not set."""
    limit = settings.export.new_item_days
    if limit is None:
        return np.zeros(0, dtype=np.int64)
    new = np.flatnonzero(ages(store, settings, data) < limit)
    log.info("export: %s of %s items are younger than %g days", f"{len(new):,}", f"{data.num_items:,}", limit)
    return new


def _first_events(store: RunStore, data: Interactions) -> Int64:
    """(num_items + 1,) timestamp of each item's first event; of padding any."""
    file = store.folder("split") / ITEMS
    first = np.full(data.num_items + 1, np.iinfo(np.int64).max)
    if "first_event" in pq.read_schema(file).names:
        first[1:] = pq.read_table(file, columns=["first_event"])["first_event"].to_numpy()
    else:  # `split` was run by an earlier version of this package
        for rows in row_blocks(len(data.timestamps), ROWS_AT_ONCE):
            part = slice(rows[0], rows[-1] + 1)
            np.minimum.at(first, data.events.items[part], data.timestamps[part])
    return first


def age_name(bounds: list[int | None]) -> str:
    """A bucket's bounds for people, in days."""
    least, less = bounds
    if less is None:
        return f"{least} and more"
    return f"less than {less}" if least == 0 else f"{least} to {less}"
