"""Two tries of each task of a run at once, as Airflow starts them after a scheduler was killed: one result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sasrec_tasks import runs
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.naming import from_names
from sasrec_tasks.pipeline import REFIT, TASKS, start
from sasrec_tasks.tables import Recommendations, open_tables

OVERLAPPING = Path(__file__).with_name("overlapping.py")
QUICK = {
    "train.epochs": 3,
    "train.hidden_units": 16,
    "train.max_len": 20,
    "train.learning_rate": 0.01,
    "train.device": "cpu",
    "evaluate.bootstrap_samples": 200,
    "gate.force_publish": True,
    "refit.enabled": True,
    "as_of": "2026-01-01",
}


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else str(request.getfixturevalue("bucket"))


def test_of_two_tries_of_each_task_one_commits_and_the_late_one_leaves(
    root: str, tmp_path: Path, chains: Callable[[], pa.Table]
) -> None:
    with fsspec.open(f"{root}/events.parquet", "wb") as file:
        pq.write_table(chains(), file)
    places = {"source": f"{root}/events.parquet", "store": f"{root}/runs", "table": f"{root}/table"}
    store = start(from_names({**QUICK, **places}), "run")
    first, second = both(store.uri, tmp_path)

    assert first["said"] == second["said"]
    for task in (*TASKS, REFIT):
        left = [
            told["log"].count(f"{task}: another try was faster, this one leaves") for told in (first, second)
        ]
        assert sorted(left) == [0, 1], task
        assert RunStore(store.uri).folder(task), task  # whole, by the hashes of all its files
        assert (marker := store.marker(task))
        assert marker.summary == first["said"][task]
    assert [published.version for published in open_tables(places["table"]).published()] == [0]
    served = Recommendations(places["table"])
    assert (served.run_id, served.users()) == ("run", 100)
    assert [row["ENDING"] for row in runs.read(f"{places['table']}_runs").to_pylist()] == ["published"]
    left_behind = {path.rpartition("/")[2] for path in store.fs.ls(store.root, detail=False)} - {
        *TASKS,
        REFIT,
    }
    assert {name for name in left_behind if not name.endswith(".lock")} == {"settings.json"}


def both(run: str, tmp_path: Path) -> list[dict[str, Any]]:
    folder = tmp_path / "meeting"
    folder.mkdir()
    tries = [
        subprocess.Popen(
            [sys.executable, str(OVERLAPPING), run, str(folder), name],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )
        for name in ("one", "other")
    ]
    said = []
    for each in tries:
        out, err = each.communicate(timeout=300)
        assert each.returncode == 0, err
        said.append(json.loads(out))
    return said
