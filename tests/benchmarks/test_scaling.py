"""How tasks grow is measured and drawn; no time is asserted."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import events
import pyarrow.parquet as pq
import pytest
import scaling

from sasrec_tasks.pipeline import TASKS


def test_a_whole_run_is_measured_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "show_progress", lambda: None)
    places = ["--work", str(tmp_path / "work"), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["scaling", "--axes", "events", "--largest", "10000", *places])
    scaling.main()
    (point,) = json.loads((tmp_path / "scaling.json").read_text())["axes"]["events"]
    assert point["size"] == {"events": 10_000, "users": 200, "items": 10_000, "max_len": 50}
    assert list(point["tasks"]) == list(TASKS)
    assert all(task["peak_rss_mb"] > 30 for task in point["tasks"].values())
    assert "<svg" in (tmp_path / "scaling.svg").read_text()
    assert not (tmp_path / "work").exists()


def test_a_single_run_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "show_progress", lambda: None)
    size = ["--one", "3000", "60", "100", "--test-users", "20"]
    monkeypatch.setattr(
        sys, "argv", ["scaling", *size, "--work", str(tmp_path / "work"), "--out", str(tmp_path)]
    )
    scaling.main()
    report = json.loads((tmp_path / "scaling.one.json").read_text())
    assert (report["size"]["users"], report["settings"]) == (60, {"evaluate.test_users": 20})
    assert list(report["tasks"]) == list(TASKS)
    assert report["tasks"]["split"]["bytes"] > 3000 * 16  # items, outcomes and timestamps of each event
    assert report["tasks"]["export"]["bytes"] > 0


def test_the_largest_run_ends_with_the_split(tmp_path: Path) -> None:
    found = scaling.measured(scaling.Size(events=2000, users=40, items=100), TASKS[:3], tmp_path / "work")
    assert list(found) == ["ingest", "validate", "split"]


@pytest.mark.parametrize("largest", [10_000, 1_000_000, 50_000_000])
def test_no_size_is_larger_than_asked_for(largest: int) -> None:
    for axis in scaling.AXES.values():
        sizes = axis(largest)
        assert sizes
        assert all(size.events <= largest and size.items <= max(size.events, 10_000) for size in sizes)


def test_where_every_item_is_named_none_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "CHUNK", 300)
    for every_item in (False, True):
        events.write(tmp_path / "x.parquet", 1600, users=40, items=700, every_item=every_item)
        found = pq.read_table(tmp_path / "x.parquet")
        assert (len(set(found["ITEM_ID"].to_pylist())) == 700) is every_item
        assert len(found) == 1600
