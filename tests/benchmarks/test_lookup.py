"""Lookups are measured on a table of each kind; no time is asserted."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import lookup
import pytest
import tables

from sasrec_tasks.tables import delta_files


def test_users_are_looked_up_in_each_kind_of_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "BLOCK", 100)
    monkeypatch.setattr(delta_files, "ROWS", 1000)
    sizes = ["--users", "300", "--lookups", "3", "--processes", "2"]
    places = ["--work", str(tmp_path / "work"), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["lookup", *sizes, *places])
    lookup.main()
    found = json.loads((tmp_path / "lookup.json").read_text())
    assert found["rows_of_the_table"] == 3000
    ways = [(row["kind"], row["way"]) for row in found["rows"]]
    assert len(ways) == len(set(ways)) == 5
    assert {kind for kind, _ in ways} == set(lookup.KINDS)
    for row in found["rows"]:
        assert 0 < row["warm"]["median"] <= row["warm"]["95th percentile"]
    delta = next(row for row in found["rows"] if row["kind"] == "delta")
    assert (delta["files"], delta["files_touched"], delta["row_groups_touched"]) == (3, 1, 1)
    assert tables.lookup(tmp_path).count("\n") == 1 + 5
    assert not (tmp_path / "work").exists()
