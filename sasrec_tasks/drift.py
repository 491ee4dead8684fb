"""How far tonight's interactions are from those of the nights before.

Each figure of the profile is held against the range that the last published nights of the table
spanned, so that a slow growth, or a weekday's rhythm, is no drift. What is published is accepted:
a change that was let through once is part of the range from then on, unless the night is rolled back.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake.exceptions import DeltaError

from sasrec_tasks import profile, runs
from sasrec_tasks.artifacts import Damaged, RunStore
from sasrec_tasks.config import Settings
from sasrec_tasks.contents import ITEMS
from sasrec_tasks.errors import BadSettings

log = logging.getLogger(__name__)

NAMES = {
    "rows": "rows",
    "users": "users",
    "items": "items",
    "events_per_user": "events per user",
    "hours": "hours with events of the last 48",
    "known_items": "share of items that the published run knew",
}


@dataclass(frozen=True, kw_only=True)
class Drift:
    """One figure beside the range of earlier nights."""

    figure: str
    value: float
    low: float
    high: float

    @property
    def factor(self) -> float:
        """How many times the value is above or below the range; 1 within it, or where nothing was ever counted."""
        if self.low <= self.value <= self.high or self.high == 0:
            return 1.0
        small, large = sorted((self.value, self.low if self.value < self.low else self.high))
        return large / small if small > 0 else math.inf

    def __str__(self) -> str:
        spanned = f"{self.low:,.6g}" if self.low == self.high else f"{self.low:,.6g} to {self.high:,.6g}"
        return f"{NAMES[self.figure]}: {self.value:,.6g}, where {spanned} is usual ({self.factor:.3g}×)"


def measure(
    store: RunStore, settings: Settings, snapshot: Path, *, rows: int, unit: str | None
) -> dict[str, Any]:
    """Tonight's `profile`, with `known_items` where a night before is known; the `nights` it is held against (run ids),
    and the `drift` of each figure."""
    as_of = settings.as_of
    assert as_of is not None  # frozen when the run started
    earlier = _published_before(settings, store, as_of).slice(0, settings.validate_.drift_nights)
    # held until it is read: a scratch copy of remote files goes with it
    newest = store.sibling(earlier["RUN_ID"][0].as_py()) if len(earlier) else None
    tonight, known = profile.measure(
        snapshot, rows=rows, unit=unit or "s", as_of=as_of, known_items=_items_of(newest)
    )
    profiles = [json.loads(found) for found in earlier["PROFILE"].to_pylist()]
    found = [
        Drift(
            figure=name,
            value=value,
            low=min(night[name] for night in profiles),
            high=max(night[name] for night in profiles),
        )
        for name, value in tonight.items()
        if profiles and all(name in night for night in profiles)
    ]
    kept = dict(tonight)
    if known is not None:  # held against all of them, whatever share earlier nights knew
        found.append(Drift(figure="known_items", value=known, low=1.0, high=1.0))
        kept["known_items"] = known
    return {
        "profile": kept,
        "nights": earlier["RUN_ID"].to_pylist(),
        "drift": [asdict(each) for each in found],
    }


def of(summary: Mapping[str, Any]) -> list[Drift]:
    """The drift in the summary of `validate`, the largest first."""
    return sorted((Drift(**each) for each in summary["drift"]), key=lambda each: -each.factor)


def _published_before(settings: Settings, store: RunStore, as_of: datetime) -> pa.Table:
    """The published runs of the table that have a profile, newest first; what was rolled back is not usual.

    Raises:
        ConnectionError, TimeoutError: the table can't be reached. Trying again is safe.
    """
    try:
        found = runs.read(runs.url_of(settings.table, store.store))
    except OSError as error:  # as where a run's row can't be written: the data may be as good as ever
        log.warning("validate: the runs before could not be read, drift is not looked at: %s", error)
        found = runs.RUNS.empty_table()
    try:
        found = runs.with_rollbacks(found, settings.table)
    except (ConnectionError, TimeoutError):
        raise
    except (DeltaError, OSError) as error:
        # the runs are a table of their own, and a wider range is better than none
        log.warning(
            "validate: which nights were rolled back could not be read, drift is held against all that were "
            "published: %s",
            error,
        )
    wanted = (
        (pc.field("ENDING") == "published") & pc.field("PROFILE").is_valid() & (pc.field("AS_OF") < as_of)
    )
    return found.filter(wanted).sort_by([("AS_OF", "descending")])


def _items_of(run: RunStore | None) -> Path | None:
    """The catalogue of an earlier run, as long as its folder is kept."""
    if run is None:
        return None
    try:
        return run.folder("split") / ITEMS
    except (BadSettings, Damaged):
        return None
