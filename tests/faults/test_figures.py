"""Figures of several processes are added up, and only those of a whole run replace earlier ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fault_figures import COUNTED, Figures, put, whole


def test_figures_of_several_processes_are_added_up(tmp_path: Path) -> None:
    file = tmp_path / "faults.json"
    for step in ("train", "export", "train"):
        figures = Figures()
        figures.cut[step] += 2
        figures.made_good += 1
        figures.write(file)
    put(file, {"secrets_planted": 3, "secrets_found": 0})
    assert json.loads(file.read_text()) == {
        "cuts_tried": 6,
        "cuts_survived": 3,
        "cuts_by_step": {"export": 2, "train": 4},
        "secrets_planted": 3,
        "secrets_found": 0,
    }


@pytest.mark.parametrize("missing", [None, *COUNTED])
def test_only_a_whole_run_replaces_figures(tmp_path: Path, missing: str | None) -> None:
    found, results = tmp_path / "found.json", tmp_path / "faults.json"
    results.write_text("{}")
    put(found, {name: 1 for name in COUNTED if name != missing})
    if missing:
        with pytest.raises(SystemExit, match=missing):
            whole(found, results)
        assert results.read_text() == "{}"
    else:
        whole(found, results)
        figures = json.loads(results.read_text())
        assert {figures[name] for name in COUNTED} == {1}
        assert figures["one_point_in"] >= 1
