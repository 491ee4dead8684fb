"""A source that grows: what has arrived never changes, and every night brings users, items and drift."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from nights import HISTORY, Nights


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    return Nights(tmp_path_factory.mktemp("events"), users=300, events=9000)


def arrived(source: Nights) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(file) for file in sorted(source.folder.glob("*/*.parquet"))])


def test_a_night_has_its_days_and_no_later_event(source: Nights) -> None:
    for night in (0, 1, 5):
        newest = source.arrive(night)
        events = arrived(source)
        assert (
            newest.parent.name == f"date={pd.Timestamp(source.as_of(night)) - pd.Timedelta(days=1):%Y-%m-%d}"
        )
        assert len(list(source.folder.iterdir())) == HISTORY + night
        assert events["TIMESTAMP"].max() < source.as_of(night).timestamp()


def test_every_event_is_in_the_folder_of_its_day(source: Nights) -> None:
    source.arrive(3)
    for file in source.folder.glob("*/*.parquet"):
        days = pd.to_datetime(pd.read_parquet(file)["TIMESTAMP"], unit="s").dt.strftime("date=%Y-%m-%d")
        assert set(days) <= {file.parent.name}


def test_what_has_arrived_stays(source: Nights) -> None:
    file = source.arrive(2)
    before = file.read_bytes()
    source.arrive(4)
    assert file.read_bytes() == before


def test_users_and_items_come_all_the_while(source: Nights) -> None:
    source.arrive(13)
    firsts = {
        name: arrived(source).groupby(name)["TIMESTAMP"].min() >= source.as_of(0).timestamp()
        for name in ("USER_ID", "ITEM_ID")
    }
    assert all(later.any() and not later.all() for later in firsts.values())


def test_what_is_liked_drifts(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Popularity of two weeks that lie far apart agrees less than without drift."""
    agreement = {}
    for drift in (0.0, 0.05):
        source = Nights(tmp_path_factory.mktemp("events"), users=1000, events=60_000, drift=drift)
        source.arrive(13)
        events = arrived(source)
        week = (events["TIMESTAMP"] - events["TIMESTAMP"].min()) // (7 * 24 * 3600)
        counts = events.groupby([week, "ITEM_ID"]).size().unstack(fill_value=0)
        agreement[drift] = np.corrcoef(counts.loc[1].to_numpy(), counts.loc[5].to_numpy())[0, 1]
    assert agreement[0.05] < agreement[0.0] - 0.2
