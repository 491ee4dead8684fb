"""What comes to a cluster is used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray_faults import LIMIT
from ray_nodes import Nodes
from ray_running import runs, wait_for

from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.shards import FOLDER, Shards

pytestmark = pytest.mark.scale

SLOW_PARTS = str(Path(__file__).parents[2] / "benchmarks" / "slow_parts.py")


def test_a_node_that_comes_is_used(
    nodes: Nodes, again: Callable[..., RunStore], by_ray: dict[str, Any]
) -> None:
    while len(nodes.cluster.worker_nodes) > 1:
        nodes.cluster.remove_node(next(iter(nodes.cluster.worker_nodes)))
    store = again("evaluate", **by_ray)
    process = subprocess.Popen(
        [sys.executable, SLOW_PARTS, store.uri, "40", "1", nodes.cluster.address],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(store, f"{FOLDER}/slow-*/0*.parquet", runs(process))
        nodes.add()
        _, said = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
        process.wait()
        while len(nodes.cluster.worker_nodes) < 3:
            nodes.add()
    assert "slow: 40 parts, made on 2 node(s)" in said
    assert [part["user"].to_pylist() for part in Shards(store, "slow", "f").all()] == [[n] for n in range(40)]
