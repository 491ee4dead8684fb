from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sasrec_tasks import engine
from sasrec_tasks.artifacts import RunStore, Summary
from sasrec_tasks.engine import Cluster, Work
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


def fails_with(parts: list[Shards]) -> Work:
    """Work whose cluster has made all parts, and which fails then."""

    def fails(cluster: Cluster | None, folder: Path) -> Summary:
        assert cluster
        parts.append(cluster.shards)
        cluster.shards.finish(0)
        raise OSError("later")

    return fails


def test_parts_are_removed_when_the_task_has_ended_well(tmp_path: Path) -> None:
    store, settings = RunStore(str(tmp_path / "run")), from_names(BY_RAY)
    parts: list[Shards] = []

    def works(cluster: Cluster | None, folder: Path) -> Summary:
        assert cluster
        assert cluster.shards == parts[0]
        return cluster.made()  # what is there is not made again

    def once(work: Work, **hangs_on: Any) -> Summary:
        return engine.once(store, settings, "split", work, reads=[], hangs_on=hangs_on)

    with pytest.raises(OSError, match="later"):
        once(fails_with(parts))
    assert parts[0].finished()
    assert once(works) == {"parts": 0, "named": []}
    assert parts[0].finished() is None


def test_parts_hang_on_what_the_result_hangs_on_and_on_more(tmp_path: Path) -> None:
    store, settings = RunStore(str(tmp_path / "run")), from_names(BY_RAY)
    found: list[Shards] = []
    for hangs_on, more in (({}, None), ({}, {}), ({"a": 1}, None), ({}, {"a": 1}), ({}, {"a": 2})):
        with pytest.raises(OSError, match="later"):
            engine.once(
                store, settings, "split", fails_with(found), reads=[], hangs_on=hangs_on, parts_hang_on=more
            )
    assert found[0] == found[1]
    assert len({each.fingerprint for each in found}) == 3


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
