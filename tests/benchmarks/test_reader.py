"""The consumer that a simulation is judged by sees what is wrong with a table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import reader

ROWS = pd.DataFrame({"USER_ID": ["a", "a", "b"], "RANK": [1, 2, 1], "RUN_ID": "night 1"})


def test_whole_versions_in_order_are_fine() -> None:
    watch = reader.Watch()
    for version in (3, 3, 4):
        watch.saw(version, "2026-01-01", "night 1", ROWS)
    assert (watch.reads, watch.torn, watch.stale) == (3, [], [])
    assert watch.versions == [(3, "2026-01-01", 3), (4, "2026-01-01", 3)]


@pytest.mark.parametrize(
    "rows",
    [ROWS.iloc[:0], ROWS.iloc[1:], ROWS.assign(RUN_ID=["night 1", "night 1", "night 0"])],
    ids=["no rows", "a list without its first", "rows of two runs"],
)
def test_half_a_table_is_seen(rows: pd.DataFrame) -> None:
    watch = reader.Watch()
    watch.saw(3, "2026-01-01", "night 1", rows)
    assert watch.torn == [3]


def test_a_version_that_has_lost_users_is_seen() -> None:
    watch = reader.Watch()
    for rows in (ROWS, ROWS.iloc[:2]):
        watch.saw(3, "2026-01-01", "night 1", rows)
    assert watch.torn == [3]


@pytest.mark.parametrize("is_back", [False, True], ids=["published", "rolled back"])
def test_an_older_night_in_a_new_version_is_seen_unless_it_was_rolled_back_to(is_back: bool) -> None:
    watch = reader.Watch()
    watch.saw(3, "2026-01-02", "night 1", ROWS)
    watch.saw(4, "2026-01-01", "night 1", ROWS, is_back=is_back)
    assert watch.stale == ([] if is_back else [(4, "2026-01-01")])


def test_an_older_version_than_the_last_is_seen() -> None:
    watch = reader.Watch()
    for version in (4, 3):
        watch.saw(version, "2026-01-01", "night 1", ROWS)
    assert watch.stale == [(3, "2026-01-01")]


def test_a_table_that_vanishes_is_seen(place: Any) -> None:
    watch = reader.Watch()
    watch.read(place.table)
    assert (watch.before_the_first, watch.errors) == (1, [])
    watch.saw(0, "2026-01-01", "night 1", ROWS)
    watch.read(place.table)
    assert len(watch.errors) == 1


def test_it_reads_until_it_is_stopped(finished: Any, tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    script = Path(reader.__file__)
    process = subprocess.Popen(
        [sys.executable, str(script), finished.table, str(stop)], stdout=subprocess.PIPE, text=True
    )
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(8)
    finally:
        stop.touch()
        said, _ = process.communicate(timeout=60)
    found = json.loads(said)
    assert found["reads"] > 1
    assert found["errors"] == found["torn"] == found["stale"] == []
    assert len(found["versions"]) == 1
