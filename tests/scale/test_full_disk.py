"""A cluster that has more to hold than its memory and its disk."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_faults import Faults
from ray_nodes import Nodes, ray_cluster
from ray_running import Running

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package
import events

from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.naming import from_names
from sasrec_tasks.pipeline import run_task, start

pytestmark = pytest.mark.scale

EVENTS = 6_000_000  # of some fifty bytes each where they are moved between nodes


@pytest.fixture
def cramped(tmp_path: Path) -> Iterator[Nodes]:
    """Nodes with 80 MB for objects and, where these are too many, 30 MB of disk."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'sasrec-tasks[ray]'")
    place = tmp_path / "spilled"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mount: {done.stderr.strip()}")
    try:
        with ray_cluster(2, object_store_memory=80 * 2**20, object_spilling_directory=str(place)) as nodes:
            yield nodes
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_is_an_error(cramped: Nodes, tmp_path: Path, faults: Faults) -> None:
    events.write(tmp_path / "events.parquet", EVENTS, EVENTS // 50, 1000)
    settings = {
        "source": str(tmp_path / "events.parquet"),
        "store": str(tmp_path / "runs"),
        "table": str(tmp_path / "table"),
        "engine": "ray",
        "ray.address": cramped.address,
        "ray.wait_minutes": 3,
    }
    store: RunStore = start(from_names(settings), "night")
    for task in ("ingest", "validate"):
        run_task(task, store.uri)
    with faults.tried("what is moved between nodes fills the disk", "split", "told"):
        error = Running(store, "split").ended()
        assert isinstance(error, OSError)
        assert str(error).startswith("OutOfDiskError: Local disk is full")
    assert store.marker("split") is None
