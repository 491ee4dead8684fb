"""Cold and warm starts are measured on the same nights; no time is asserted."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import warm_starts


def test_each_night_is_trained_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_starts, "show_progress", lambda: None)
    small = ["--nights", "2", "--users", "300", "--events", "9000"]
    settings = ["--set", "train.epochs=2", "--set", "evaluate.bootstrap_samples=100"]
    places = ["--work", str(tmp_path / "work"), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["warm_starts", *small, *settings, *places])
    warm_starts.main()
    report = json.loads((tmp_path / "warm_starts.json").read_text())
    first, second = report["nights"]
    assert [night["night"] for night in (first, second)] == [0, 1]
    assert first["warm"]["curve"] == first["cold"]["curve"]  # there is nothing yet to go on from
    assert second["cold"]["warm_from"] is None
    assert second["warm"]["warm_from"] == "night-0"
    (share,) = report["share_of_time"]["nights"]
    assert report["not_reached"] == (share is None)


@pytest.mark.parametrize(("target", "expected"), [(0.1, 2.0), (0.2, 4.5), (0.3, None)])
def test_time_counts_up_to_and_with_the_epoch_that_reaches(target: float, expected: float | None) -> None:
    found = {"curve": [0.1, 0.15, 0.2], "seconds": [2.0, 1.5, 1.0]}
    assert warm_starts.seconds_until(found, target) == expected
