"""The model behind what is published, and its catalogue beside today's."""

from __future__ import annotations

from itertools import islice

import numpy as np

from sasrec_tasks import contents
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.config import Settings
from sasrec_tasks.sasrec.sequences import PADDING, Int64
from sasrec_tasks.tables import Published, open_tables


def earlier_publishes(
    store: RunStore, settings: Settings, most: int, *, same_night: bool = True
) -> list[Published]:
    """What other runs have published of an as_of before this run's, newest first; the first is the champion.

    Args:
        most: so many of them.
        same_night: of the same as_of counts, too, what this run would replace (or has).
    """
    as_of = settings.as_of
    assert as_of is not None  # frozen when the run started
    others = (each for each in open_tables(settings.table).published() if each.run_id != store.run_id)
    earlier = (
        each
        for place, each in enumerate(others)
        if each.as_of < as_of or (same_night and place == 0 and each.as_of == as_of)
    )
    return list(islice(earlier, most))


def index_in(champion: RunStore, items: list[str]) -> Int64:
    """The champion's index of each of today's items: (num_items + 1,), padding if it does not know it."""
    theirs = {item: place for place, item in enumerate(contents.item_ids(champion), 1)}
    return np.array([PADDING, *(theirs.get(item, PADDING) for item in items)], dtype=np.int64)
