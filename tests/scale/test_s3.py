"""Runs in a bucket that the nodes reach with credentials of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ray_nodes import ray_cluster

from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.naming import as_names, from_names
from sasrec_tasks.pipeline import TASKS, run_task, start
from sasrec_tasks.shards import FOLDER
from sasrec_tasks.tables import Recommendations

pytestmark = pytest.mark.scale


def test_a_night_in_a_bucket(local: RunStore, bucket: str, tmp_path: Path) -> None:
    """Split as on one machine; a table for everybody; nothing of the cluster's is left."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'sasrec-tasks[ray]'")
    with ray_cluster(workers=2) as nodes:
        by_ray = {"engine": "ray", "ray.address": nodes.address, "ray.workers": 2, "ray.wait_minutes": 3}
        places = {"store": f"{bucket}/runs", "table": str(tmp_path / "table")}
        store = start(from_names({**as_names(local.settings()), **places, **by_ray}), "night")
        for task in TASKS:
            run_task(task, store.uri)
    for path in Path(local.root, "split").glob("*.npy"):
        np.testing.assert_array_equal(np.load(path), np.load(store.folder("split") / path.name))
    here, there = (Recommendations(each.settings().table).to_pandas() for each in (local, store))
    assert (here["USER_ID"].unique() == there["USER_ID"].unique()).all()
    assert not [path for path in store.fs.find(store.root) if f"/{FOLDER}/" in path]
