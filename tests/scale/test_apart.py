"""A cluster whose nodes have networks and addresses of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from ray_apart import Apart, NodesApart, ray_apart
from ray_faults import LIMIT, Faults, Hangs
from ray_running import Running

from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.contents import RANKS
from sasrec_tasks.pipeline import run_task
from sasrec_tasks.shards import FOLDER
from sasrec_tasks.tables import Recommendations

pytestmark = pytest.mark.scale

Again = Callable[..., RunStore]


@pytest.fixture(scope="module")
def apart() -> Iterator[NodesApart]:
    pytest.importorskip("ray", reason="needs Ray: pip install 'sasrec-tasks[ray]'")
    with ray_apart() as nodes:
        yield nodes


@pytest.fixture
def by_nodes_apart(apart: NodesApart) -> dict[str, Any]:
    return {"engine": "ray", "ray.address": apart.address, "ray.workers": 2, "ray.wait_minutes": 3}


def rows(store: RunStore) -> Any:
    return Recommendations(store.settings().table).to_pandas()


def test_the_whole_pipeline(local: RunStore, again: Again, by_nodes_apart: dict[str, Any]) -> None:
    store = again("split", **by_nodes_apart)
    run_task("split", store.uri)
    for path in Path(local.root, "split").glob("*.npy"):
        assert path.read_bytes() == Path(store.root, "split", path.name).read_bytes()
    run_task("train", store.uri)
    here, there = (pq.read_table(Path(each.root, "train", "history.parquet")) for each in (local, store))
    np.testing.assert_allclose(here["loss"].to_numpy(), there["loss"].to_numpy(), rtol=0.03)
    for task in ("evaluate", "gate", "export"):
        run_task(task, store.uri)
    assert len(rows(store)) == len(rows(local))


def at_work(apart: NodesApart, running: Running) -> Apart | None:
    """A node that works, or none if the task ends before."""
    deadline = time.monotonic() + LIMIT
    while running.thread.is_alive():
        if node := next((node for node in apart.alive() if node.works()), None):
            return node
        if time.monotonic() > deadline:
            raise Hangs(f"{running.task}: nobody works")
        time.sleep(0.02)
    return None


@pytest.mark.parametrize("task", ["evaluate", "export"])
def test_a_node_that_is_cut_off(
    local: RunStore,
    again: Again,
    apart: NodesApart,
    by_nodes_apart: dict[str, Any],
    faults: Faults,
    task: str,
) -> None:
    """It goes on, perhaps to the end of its part, and nobody hears of it."""
    store = again(task, **by_nodes_apart)
    running = Running(store, task)
    running.wait_for(f"{FOLDER}/{task}-*/0*.parquet")
    node = at_work(apart, running)
    if node is None:
        assert running.ended() is None
        pytest.skip("the task was over before a node was found at work")
    node.cut()
    try:
        with faults.tried("a worker's network is cut", task):
            assert running.ended() is None
            if task == "export":
                assert rows(local).equals(rows(store))
            else:
                here, there = (pq.read_table(Path(each.root, task, RANKS)) for each in (local, store))
                assert here.equals(there)
    finally:
        node.end()
        apart.add()
