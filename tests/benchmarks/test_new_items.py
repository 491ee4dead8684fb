"""What places for new items change is measured; the smallest run of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import new_items
import pytest
import tables


def test_lists_with_and_without_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_items, "show_progress", lambda: None)
    monkeypatch.setattr(new_items, "SLOTS", (0, 2))
    places = ["--work", str(tmp_path / "work"), "--out", str(tmp_path)]
    small = ["--users", "200", "--events", "4000", "--set", "train.epochs=1", "--set", "train.hidden_units=8"]
    monkeypatch.setattr(sys, "argv", ["new_items", *small, *places])
    new_items.main()
    found = json.loads((tmp_path / "new_items.json").read_text())
    assert found["new_items"] > 0
    off, on = found["slots"]["0"], found["slots"]["2"]
    assert on["users_with_a_new_item"] == on["users"] == off["users"]
    assert on["share_of_recommendations"] >= 0.2 >= off["share_of_recommendations"]
    assert on["new_items_in_a_list"] >= off["new_items_in_a_list"]
    assert set(off["test"]["all"]["difference"].values()) == {0.0}
    by_age = [of for name, of in on["test"].items() if name != "all"]
    assert sum(of["users"] for of in by_age) == on["test"]["all"]["users"] == found["data"]["users_evaluated"]
    assert off["test"]["all"]["hr@10"] == pytest.approx(
        sum(of["users"] * of["full"]["hr@10"] for of in found["by_item_age"] if of["users"])
        / found["data"]["users_evaluated"],
        abs=1e-4,
    )
    assert not (tmp_path / "work").exists()
    rows = tables.new_items(tmp_path).splitlines()[2:]
    assert len(rows) == 2
    assert f"{on['share_of_recommendations']:.1%}" in rows[1]
