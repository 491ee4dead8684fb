"""A cluster for all tests, and a night of the real data, or of generated ones, on one machine and on the cluster."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray_faults import RESULTS, Faults

from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.naming import as_names, from_names
from sasrec_tasks.pipeline import TASKS, run_task, start

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # scripts, not a package
from ray_nodes import Nodes, ray_cluster

ML_100K = Path(__file__).parents[3] / "shared" / "data" / "ml-100k.parquet"

Night = Callable[..., RunStore]


@pytest.fixture(scope="session")
def faults() -> Iterator[Faults]:
    """Counts what is done to the cluster."""
    found = Faults()
    yield found
    if file := os.environ.get(RESULTS):
        found.write(Path(file))


@pytest.fixture(scope="session")
def nodes() -> Iterator[Nodes]:
    pytest.importorskip("ray", reason="needs Ray: pip install 'sasrec-tasks[ray]'")
    with ray_cluster(workers=3) as made:
        yield made


@pytest.fixture(scope="session")
def interactions(tmp_path_factory: pytest.TempPathFactory, chains: Callable[..., pa.Table]) -> Path:
    """MovieLens 100K where it is, else as many users of generated events."""
    if ML_100K.exists():
        return ML_100K
    file = tmp_path_factory.mktemp("interactions") / "interactions.parquet"
    pq.write_table(chains(users=900, items=1500), file)
    return file


@pytest.fixture(scope="session")
def night(tmp_path_factory: pytest.TempPathFactory, interactions: Path, nodes: Nodes) -> Night:
    """Run a night up to a task."""
    root = tmp_path_factory.mktemp("nights")

    def run(run_id: str, upto: str = TASKS[-1], **settings: Any) -> RunStore:
        named = {
            "source": str(interactions),
            "store": str(root / "runs"),
            "table": str(root / f"table of {run_id}"),
            "as_of": "2026-01-01",
            "train.epochs": 3,
            "train.device": "cpu",
            "evaluate.bootstrap_samples": 200,
            "export.block_users": 8,  # parts are of whole blocks: of many, so that some are lost
            **settings,
        }
        store = start(from_names(named), run_id)
        for task in TASKS[: TASKS.index(upto) + 1]:
            run_task(task, store.uri)
        return store

    return run


@pytest.fixture(scope="session")
def by_ray(nodes: Nodes) -> dict[str, Any]:
    """Settings of a night on the cluster."""
    return {"engine": "ray", "ray.address": nodes.address, "ray.workers": 3, "ray.wait_minutes": 4}


@pytest.fixture(scope="session")
def local(night: Night) -> RunStore:
    """A night on one machine."""
    return night("local")


@pytest.fixture
def again(local: RunStore, tmp_path: Path) -> Callable[..., RunStore]:
    """The same night in a folder and with a table of its own, before a task, with some settings changed."""

    def copy(before: str, **settings: Any) -> RunStore:
        store = RunStore(str(tmp_path / "runs" / "local"))
        shutil.copytree(local.root, store.root)
        for task in TASKS[TASKS.index(before) :]:
            shutil.rmtree(Path(store.root) / task)
        named = as_names(local.settings())
        return start(
            from_names(
                {**named, "store": str(tmp_path / "runs"), "table": str(tmp_path / "table"), **settings}
            ),
            store.run_id,
        )

    return copy


def summary(store: RunStore, task: str) -> dict[str, Any]:
    """What a task has said of itself."""
    marker = store.marker(task)
    assert marker is not None
    return json.loads(json.dumps(marker.summary))  # type: ignore[no-any-return]
