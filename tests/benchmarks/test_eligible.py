"""What narrowing costs is measured; no time is asserted."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import eligible
import events
import pytest


def test_each_way_is_exported_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events.write(tmp_path / "events.parquet", 2000, 40, 100)
    monkeypatch.setattr(eligible, "show_progress", lambda: None)
    places = ["--work", str(tmp_path / "work"), "--out", str(tmp_path)]
    source = ["--source", str(tmp_path / "events.parquet"), "--pairs", "50", "--repeats", "2"]
    monkeypatch.setattr(sys, "argv", ["eligible", *source, *places])
    eligible.main()
    found = json.loads((tmp_path / "eligible.json").read_text())
    assert found["data"]["users"] == 40
    assert found["ratio"]["all items, no pairs"] == 1
    assert (
        set(found["ratio"]) == set(found["seconds"]) == set(found["spread"]) == set(found["users_with_rows"])
    )
    with_strangers = "pairs, as many of users without events"
    users = {way: found["users_with_rows"][way] for way in ("all items, no pairs", "pairs", with_strangers)}
    assert users["all items, no pairs"] == users["pairs"] == 40
    assert 40 < users[with_strangers] <= 80  # every item is among the 100 most popular
    assert not (tmp_path / "work").exists()
