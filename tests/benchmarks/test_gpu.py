"""The script for GPUs runs at its smallest on any machine, and says where there is none; no time is asserted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gpu
import pytest
import speed_bench
import tables

ARGUMENTS = ["--epochs", "2", "--repeats", "1"]
TINY = {"train.hidden_units": 8, "train.num_heads": 1, "train.max_len": 10, "train.device": "cpu"}

PEER = """
import json, sys
from pathlib import Path
import numpy as np, pandas as pd
task = json.loads(Path(sys.argv[1]).read_text())
folder = Path(task["folder"])
users = pd.read_csv(folder / "validation.csv")["USER_ID"].nunique()
np.save(folder / "scores.npy", np.tile(np.arange(task["num_items"], dtype=np.float32), (users, 1)))
answer = {"epoch": [2.0] * task["epochs"], "recommend": [1.0] * task["repeats"]}
Path(task["result"]).write_text(json.dumps(answer))
"""


def test_a_machine_without_a_gpu_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu, "name_of_gpu", lambda: None)
    monkeypatch.setattr(sys, "argv", ["gpu", "--source", "any.parquet", "--work", str(tmp_path / "work")])
    with pytest.raises(SystemExit, match="no GPU"):
        gpu.main()
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("has_peer", [True, False])
def test_each_training_is_set_beside_its_peers(
    place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_peer: bool
) -> None:
    (tmp_path / "time_rectools.py").write_text(PEER)
    monkeypatch.setattr(speed_bench, "PEERS", tmp_path)
    monkeypatch.setattr(speed_bench.Bench, "_version", lambda *_: "1.0")
    monkeypatch.setattr(gpu, "name_of_gpu", lambda: "a GPU")
    monkeypatch.setattr(gpu, "show_progress", lambda: None)
    smaller = {stage: ({**settings, **TINY}, peers) for stage, (settings, peers) in gpu.TRAININGS.items()}
    monkeypatch.setattr(gpu, "TRAININGS", smaller)
    places = ["--source", place.source, "--work", str(tmp_path / "work"), "--out", str(tmp_path)]
    peer = ["--rectools", sys.executable] if has_peer else []
    monkeypatch.setattr(sys, "argv", ["gpu", *places, *peer, *ARGUMENTS])
    gpu.main()
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert report["gpu"] == "a GPU"
    assert [row["stage"] for row in report["rows"]][-1] == "serve"
    assert {row["stage"] for row in report["rows"]} == {*gpu.TRAININGS, "serve"}
    for row in report["rows"]:
        assert row["ours_s"] > 0
        assert (row["peer"] is not None) == (row["ratio"] is not None) == has_peer
        if row["stage"] != "serve":
            assert 0 <= row["quality_ours"] <= 1
    lines = tables.gpu(tmp_path).splitlines()[2:]
    assert len(lines) == len(report["rows"])
    assert all((" / " in line) == has_peer for line in lines)
