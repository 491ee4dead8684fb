"""Interactions that arrive by the day: every day new events, new users, items that were not there before, and drift."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from sasrec_tasks.generate import END, YEAR, generate

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 60  # that the generated year is pressed into; users join for three quarters of it
HISTORY = 28  # days before the first night
LATE = 0.2  # share of items that come into the catalogue one after another
DRIFT = 0.01  # share of items that change places each day: what they are liked with, and how much
DAY = 24 * 3600


@dataclass
class Nights:
    """A source that grows: the folder `date=YYYY-MM-DD/` of a day is there once the day has arrived.

    Args:
        folder: the source.
    """

    folder: Path
    users: int = 3000
    items: int = 2000
    events: int = 90_000
    drift: float = DRIFT
    seed: int = 0

    def __post_init__(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "year.parquet"
            generate(file, users=self.users, items=self.items, events=self.events, seed=self.seed)
            frame = pq.read_table(file).to_pandas()
        seconds = (frame["TIMESTAMP"] - (END - YEAR)) * (DAYS * DAY) // YEAR
        frame["TIMESTAMP"] = int(BEGIN.timestamp()) + seconds
        frame["day"] = (frame["TIMESTAMP"] - int(BEGIN.timestamp())) // DAY
        frame["ITEM_ID"] = self._drifted(frame)
        born = self._births(frame["ITEM_ID"])
        self._frame = frame[frame["TIMESTAMP"] >= int(BEGIN.timestamp()) + frame["ITEM_ID"].map(born) * DAY]

    def _drifted(self, frame: pd.DataFrame) -> pd.Series:
        """ITEM_ID of each event, when every day some items take the places that others have in the law."""
        random = np.random.default_rng([self.seed, 1])
        places, names = pd.factorize(frame["ITEM_ID"], sort=True)
        taken = np.arange(len(names))  # whose name stands at each place
        found = frame["ITEM_ID"].copy()
        for day in range(DAYS):
            chosen = random.choice(len(names), round(self.drift * len(names)), replace=False)
            taken[chosen] = taken[np.roll(chosen, 1)]
            of_day = (frame["day"] == day).to_numpy()
            found[of_day] = names[taken[places[of_day]]]
        return found

    def _births(self, items: pd.Series) -> dict[str, int]:
        """Day on which each item comes into the catalogue."""
        random = np.random.default_rng(self.seed)
        names = np.array(sorted(set(items)))
        late = random.choice(names, int(LATE * len(names)), replace=False)
        return dict.fromkeys(names, 0) | {name: int(random.integers(1, DAYS - 15)) for name in late}

    def as_of(self, night: int) -> datetime:
        """The midnight at which a night's run takes place; night 0 is the first."""
        return BEGIN + timedelta(days=HISTORY + night)

    def arrive(self, night: int) -> Path:
        """Let all days before a night's `as_of` arrive; the file of the last of them."""
        for day in range(HISTORY + night):
            file = self.file_of(day)
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                self.of_day(day).to_parquet(file, index=False)
        return self.file_of(HISTORY + night - 1)

    def of_day(self, day: int) -> pd.DataFrame:
        """The events of a day, as they should be."""
        found: pd.DataFrame = self._frame[self._frame["day"] == day].drop(columns="day")
        return found

    def file_of(self, day: int) -> Path:
        """Where a day's events arrive."""
        return self.folder / f"date={BEGIN + timedelta(days=day):%Y-%m-%d}" / "events.parquet"
