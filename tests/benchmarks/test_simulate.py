"""Nights are run through Airflow, judged and drawn."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import simulate


def test_two_nights_beside_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate, "QUICK", {**simulate.QUICK, "train.epochs": 2})
    small = ["--nights", "2", "--users", "300", "--events", "9000"]
    places = ["--work", str(tmp_path / "work"), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["simulate", *small, *places])
    simulate.main()
    report = json.loads((tmp_path / "simulate.json").read_text())
    assert (report["nights"], report["published"], report["refused"]) == (2, 2, [])
    assert report["reader"]["reads"] > 0
    assert report["reader"]["errors"] == report["reader"]["torn"] == report["reader"]["stale"] == []
    first, second = report["events"]
    assert second["events"] > first["events"]
    answers = [each["answer"] for each in report["session"]]
    for answer, expected in zip(
        answers,
        ("item-", "new", "fresh: version 1", "(exit status 4)", "published", "version 2"),
        strict=True,
    ):
        assert expected in answer
    assert "<svg" in (tmp_path / "simulate.svg").read_text()


def test_the_same_rows_in_another_order_are_the_same() -> None:
    rows = pd.DataFrame(
        {"USER_ID": ["a", "a", "b"], "RANK": [1, 2, 1], "ITEM_ID": ["x", "y", "z"], "RUN_ID": "1"}
    )
    simulate.same_rows(rows, rows.iloc[::-1].assign(RUN_ID="2"))
    with pytest.raises(AssertionError):
        simulate.same_rows(rows, rows.assign(ITEM_ID=["x", "z", "y"]))
