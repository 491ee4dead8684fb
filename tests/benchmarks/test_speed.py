"""The timing scripts run at their smallest, so that they can't rot; no time is asserted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import events
import numpy as np
import process
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import speed
import speed_bench
import stages

from sasrec_tasks.artifacts import RunStore

SMALL = ["--events", "3000", "--users", "200", "--items", "50", "--served", "300", "--repeats", "1"]
FIELDS = {
    "stage", "peer", "ours_s", "peer_s", "ratio", "mark", "spread", "quality_ours", "quality_peer", "peak_rss_mb",
}  # fmt: skip

PEER = """
import json, sys, time
from pathlib import Path
import numpy as np, pandas as pd
task = json.loads(Path(sys.argv[1]).read_text())
folder = Path(task["folder"])
users = pd.read_csv(folder / "validation.csv")["USER_ID"].nunique()
np.save(folder / "scores.npy", np.tile(np.arange(task["num_items"], dtype=np.float32), (users, 1)))
seconds = [1.0] * task["repeats"]
Path(task["result"]).write_text(
    json.dumps({"epoch": [1.0] * task["epochs"], "score": seconds, "recommend": seconds})
)
"""


@pytest.fixture
def call(place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call the script on the place's source; its report."""

    def run(*arguments: str) -> dict[str, Any]:
        places = ["--source", place.source, "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", ["speed", *places, *SMALL, *arguments])
        monkeypatch.setattr(speed, "show_progress", lambda: None)
        speed.main()
        report: dict[str, Any] = json.loads((tmp_path / "out" / "speed.json").read_text())
        return report

    return run


def test_stages_beside_plain_tools(call: Any) -> None:
    report = call("--stages", "export_at_size", "split", "ingest_and_validate")
    assert {row["stage"] for row in report["rows"]} == {"export at size", "split", "ingest and validate"}
    for row in report["rows"]:
        assert row.keys() >= FIELDS
        assert row["ratio"] == pytest.approx(
            row["peer_s"] / row["ours_s"], rel=0.2, abs=0.1
        )  # all are rounded
        assert row["peak_rss_mb"] > 50
    again = call("--stages", "split")
    assert [row["stage"] for row in again["rows"]] == [row["stage"] for row in report["rows"]]


def test_stages_beside_peers(call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a peer that takes a second for everything, and scores all items by their number."""
    for script in ("time_scikit_rec.py", "time_rectools.py"):
        (tmp_path / script).write_text(PEER)
    monkeypatch.setattr(speed_bench, "PEERS", tmp_path)
    monkeypatch.setattr(speed_bench.Bench, "_version", lambda *_: "1.0")
    tiny = {"train.hidden_units": 8, "train.max_len": 10}
    for module in (speed, speed_bench):
        for name in ("OURS_BCE", "OURS_QUICK", "OURS_SOFTMAX"):
            monkeypatch.setattr(module, name, {**getattr(module, name), **tiny})
    own = ["--scikit-rec", sys.executable, "--rectools", sys.executable, "--epochs", "2"]
    stages = ["train_bce", "train_bce_wide", "train_softmax", "time_to_quality", "evaluate", "export"]
    report = call(*own, "--stages", *stages)
    rows = {(row["stage"], row["peer"]): row for row in report["rows"]}
    assert len(rows) == 8
    assert all(row["peer_s"] in (1.0, 2.0) for row in rows.values())
    assert rows["time to quality", "scikit-rec 1.0"]["reached"]
    assert rows["train, BCE", "RecTools BCE 1.0"]["gflop"] > rows["evaluate", "scikit-rec 1.0"]["gflop"] > 0
    kept = json.loads((tmp_path / "out" / "speed.targets.json").read_text())
    assert {target["peer"] for target in kept.values()} == {"scikit-rec", "RecTools BCE", "RecTools softmax"}
    assert (
        call(*own, "--stages", "train_bce")["rows"][0]["quality_peer"]
        == rows["train, BCE", "scikit-rec 1.0"]["quality_peer"]
    )


def test_made_up_events_are_as_asked_for(tmp_path: Path) -> None:
    events.write(tmp_path / "events.parquet", 20_000, 500, 100, bad=0.02)
    table = pq.read_table(tmp_path / "events.parquet")
    assert table.num_rows == 20_000
    assert pc.count_distinct(table["USER_ID"]).as_py() <= 500
    assert table["ITEM_ID"].null_count == pytest.approx(200, abs=60)
    assert np.isinf(table["OUTCOME"].to_numpy()).sum() == pytest.approx(200, abs=60)
    ties = table.to_pandas().duplicated(["USER_ID", "TIMESTAMP"], keep=False).mean()
    assert ties == pytest.approx(0.2, abs=0.02)


def test_the_split_with_pandas_is_that_of_the_pipeline(tmp_path: Path) -> None:
    source = tmp_path / "events.parquet"
    events.write(source, 5000, 200, 50, bad=0.01)
    stages.ingest_and_validate(str(source), str(tmp_path), "run")
    stages.split(str(tmp_path), "run")
    stages.split_with_pandas(str(source), 5000, str(tmp_path / "pandas"))
    ours = RunStore(f"{tmp_path}/runs/run").folder("split")
    for name in ("offsets", "items", "outcomes", "timestamps"):
        assert np.array_equal(np.load(ours / f"{name}.npy"), np.load(tmp_path / "pandas" / f"{name}.npy"))


def test_a_script_that_fails_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text("raise SystemExit(3)")
    with pytest.raises(RuntimeError, match="exit status 3"):
        process.run(sys.executable, str(tmp_path / "fails.py"))


def test_others_get_the_variables_of_openmp_as_they_would_without_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    assert process.environment(sys.executable)["GOMP_SPINCOUNT"] == "1000"
    assert "GOMP_SPINCOUNT" not in process.environment("another/bin/python")
