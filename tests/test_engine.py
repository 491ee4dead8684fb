from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from sasrec_tasks import engine
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.naming import from_names
from sasrec_tasks.rows import Rows
from sasrec_tasks.shards import Shards

BY_RAY = {"engine": "ray", "ray.address": "http://127.0.0.1:9"}


def test_one_machine_does_without_ray() -> None:
    tasks = "split, train, refit, evaluate, export, pipeline"
    code = f"import sys; from sasrec_tasks import {tasks}; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_cluster_without_an_address_is_refused() -> None:
    with pytest.raises(BadSettings, match=r"engine='ray' needs ray\.address"):
        from_names({"engine": "ray"})


@pytest.mark.parametrize(
    "address", ["ray://head:10001", "head:8265", "http://user:secret@head:8265", "http://h/x"]
)
def test_an_address_is_that_of_a_job_server(address: str) -> None:
    with pytest.raises(BadSettings, match=r"ray\.address"):
        from_names({"engine": "ray", "ray.address": address})


def test_parts_are_removed_when_the_task_has_ended_well(finished: Any) -> None:
    store = RunStore(f"{finished.store}/first")
    settings = from_names(BY_RAY)

    def fails() -> None:
        with engine.chosen(store, settings, "split", reads=[], hangs_on={}) as cluster:
            assert cluster
            cluster.shards.finish(0)
            raise OSError("later")

    with pytest.raises(OSError, match="later"):
        fails()
    with engine.chosen(store, settings, "split", reads=[], hangs_on={}) as cluster:
        assert cluster
        assert cluster.made() == {"parts": 0}  # what is there is not made again
    assert Shards(store, "split", cluster.shards.fingerprint).finished() is None


def test_rows_do_not_hang_on_how_users_are_shared_out(finished: Any) -> None:
    from sasrec_tasks import trained

    store = RunStore(f"{finished.store}/first")
    settings = store.settings()
    settings = settings.model_copy(update={"export": settings.export.model_copy(update={"block_users": 7})})
    rows = Rows(store, settings)
    model = trained.model(store, settings)
    whole = [row for batch in rows.batches(lambda done: None) for row in batch.to_pylist()]
    parts = rows.parts(20)
    assert {len(part) for part in parts[:-1]} == {14}
    assert [row for part in parts for batch in rows.part(part, model) for row in batch.to_pylist()] == whole
