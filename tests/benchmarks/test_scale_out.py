"""What a cluster costs and gives is measured, fitted and drawn; no time is asserted."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import scale_out


def test_the_fit_finds_what_is_fixed_and_what_a_worker_costs() -> None:
    points = [
        {"workers": n, "seconds": [9 + 0.5 * n + 100 / n + noise for noise in (-0.1, 0, 5)]}
        for n in (1, 2, 4, 8)
    ]
    found = scale_out.fitted(points, 100)
    assert found == {"fixed_s": 9.0, "per_worker_s": 0.5, "fastest_workers": pytest.approx(200**0.5, abs=0.1)}
    simulated = {"work_s": 100, **found}
    assert scale_out.predicted(simulated, 4) == 9 + 2 + 25
    assert scale_out.predicted(simulated, 4, 1000) == 9 + 2 + 250


def test_what_costs_nothing_a_worker_has_no_fastest_number() -> None:
    points = [{"workers": n, "seconds": [9 + 100 / n]} for n in (1, 2)]
    assert scale_out.fitted(points, 100)["fastest_workers"] is None


@pytest.mark.scale
def test_all_is_measured_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'sasrec-tasks[ray]'")
    monkeypatch.setattr(scale_out, "show_progress", lambda: None)
    monkeypatch.setattr(scale_out, "SMALL", 500)
    size = ["--events", "3000", "--users", "300", "--items", "50", "--repeats", "1"]
    places = ["--work", str(tmp_path / "work"), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["scale_out", *size, *places, "--workers", "1", "--simulated", "1", "2"])
    scale_out.main()
    report = json.loads((tmp_path / "scale_out.json").read_text())
    for task in scale_out.MEASURED:
        found = report["tasks"][task]
        assert all(len(found[name]) == 1 for name in ("local", "local_small", "small"))
        assert list(found["workers"]) == ["1"]
    assert [point["workers"] for point in report["simulated"]["points"]] == [1, 2]
    assert "<svg" in (tmp_path / "scale_out.svg").read_text()
