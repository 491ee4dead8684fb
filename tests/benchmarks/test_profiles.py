"""Profiles are taken, kept by name, and drawn."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import profiles
import pytest


def test_shares_of_time_are_kept_by_name_and_drawn(
    place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiles, "show_progress", lambda: None)
    for name in ("before", "now"):
        size = ["--users", "100", "--items", "500", "--name", name]
        places = ["--source", place.source, "--work", str(tmp_path / "work"), "--out", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", ["profiles", *size, *places])
        profiles.main()
    report = json.loads((tmp_path / "profiles.json").read_text())
    assert list(report) == ["before", "now"]
    for figures in report.values():
        for what in ("train", "export"):
            kinds = figures[what]["kinds"]
            assert kinds["matrix products"] > 0
            assert kinds.pop(profiles.REST) > 0
            assert 0 < sum(kinds.values()) < figures[what]["seconds"]
        assert figures["train"]["kinds"]["optimiser"] > 0
        assert figures["export"]["kinds"]["sort and top k"] > 0
    assert "<svg" in (tmp_path / "profiles.svg").read_text()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("addmm", "matrix products"),
        ("scaled_dot_product_flash_attention_for_cpu_backward", "attention"),
        ("ge", "masks of dropout"),
        ("embedding_dense_backward", "embedding, gather, scatter"),
        ("gelu_backward", "normalisation, activation"),
        ("fused_adam_", "optimiser"),
        ("mul", profiles.ELEMENTWISE),
    ],
)
def test_kinds_of_operations(name: str, kind: str) -> None:
    assert profiles.kind_of(name) == kind
