"""What is lost on a cluster is made good: the run ends with what it would have ended with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from ray_cluster import Nodes
from ray_running import LIMIT, Running, runs, wait_for

from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.contents import RANKS
from sasrec_tasks.pipeline import run_task
from sasrec_tasks.shards import FOLDER
from sasrec_tasks.tables import Recommendations

pytestmark = pytest.mark.scale

Again = Callable[..., RunStore]


def works(node: Any) -> bool:
    """Whether a node has given a process something to do."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    names = [" ".join(child.cmdline()) for child in raylet.children(recursive=True)]
    return any(name.startswith("ray::") and not name.startswith("ray::IDLE") for name in names)


@pytest.fixture
def one_is_lost(nodes: Nodes) -> Iterator[Callable[[], None]]:
    """Kill a node that works, and all that runs on it; another comes after the test."""
    lost = []

    def kill() -> None:
        node = next(each for each in nodes.cluster.worker_nodes if works(each))
        nodes.cluster.remove_node(node, allow_graceful=False)
        lost.append(node)

    yield kill
    for _ in lost:
        nodes.add()


MIDST = {
    "split": f"{FOLDER}/split-*/ranges.parquet",
    "train": "train/checkpoint/state.safetensors",
    "evaluate": f"{FOLDER}/evaluate-*/0*.parquet",
    "export": f"{FOLDER}/export-*/0*.parquet",
}


def same(here: RunStore, there: RunStore, task: str) -> bool:
    """Whether a task has left the same in two runs."""
    if task == "split":
        return all(
            path.read_bytes() == Path(there.root, task, path.name).read_bytes()
            for path in Path(here.root, task).glob("*.npy")
        )
    if task == "evaluate":
        one, other = (pq.read_table(Path(each.root, task, RANKS)) for each in (here, there))
        return bool(one.equals(other))
    if task == "export":
        one, other = (Recommendations(each.settings().table).to_pandas() for each in (here, there))
        return bool(one.equals(other))
    history = pq.read_table(Path(there.root, task, "history.parquet"))
    return bool(history["epoch"].to_pylist() == [1, 2, 3])


@pytest.mark.parametrize("task", list(MIDST))
def test_a_node_that_is_lost_in_mid_task(
    local: RunStore, again: Again, by_ray: dict[str, Any], one_is_lost: Callable[[], None], task: str
) -> None:
    store = again(task, **by_ray)
    running = Running(store, task)
    running.wait_for(MIDST[task])
    one_is_lost()
    assert running.ended() is None
    assert same(local, store, task)
    if task == "train":
        marker = store.marker(task)
        assert marker is not None
        assert marker.summary["resumed_from_epoch"] in (1, 2)


def in_a_process(store: RunStore, task: str) -> subprocess.Popen[bytes]:
    """A task as its own process."""
    work = (
        "import sys; from sasrec_tasks import terminated; from sasrec_tasks.pipeline import run_task\n"
        "with terminated.in_order(): run_task(*sys.argv[1:])"
    )
    return subprocess.Popen([sys.executable, "-c", work, task, store.uri], env=dict(os.environ))


def jobs_of(nodes: Nodes, store: RunStore) -> list[Any]:
    """All jobs there were for a run."""
    from ray.job_submission import JobSubmissionClient

    return [
        job for job in JobSubmissionClient(nodes.address).list_jobs() if job.metadata.get("run") == store.uri
    ]


def test_a_killed_task_finds_its_job_again(
    nodes: Nodes, local: RunStore, again: Again, by_ray: dict[str, Any]
) -> None:
    store = again("train", **by_ray)
    process = in_a_process(store, "train")
    try:
        wait_for(store, MIDST["train"], runs(process))
    finally:
        process.kill()
        process.wait()
    run_task("train", store.uri)
    assert same(local, store, "train")
    assert [job.status for job in jobs_of(nodes, store)] == ["SUCCEEDED"]


def test_a_task_that_is_ended_stops_its_job(nodes: Nodes, again: Again, by_ray: dict[str, Any]) -> None:
    store = again("train", **by_ray)
    process = in_a_process(store, "train")
    try:
        wait_for(store, MIDST["train"], runs(process))
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.wait()
    deadline = time.monotonic() + LIMIT
    while [job.status for job in jobs_of(nodes, store)] != ["STOPPED"]:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_cluster_without_room_is_not_waited_for_for_ever(again: Again, by_ray: dict[str, Any]) -> None:
    store = again("evaluate", **{**by_ray, "ray.cpus_per_worker": 64, "ray.wait_minutes": 0.1})
    with pytest.raises(OSError, match=r"one worker needs \(CPU 64\).*it has CPU 2"):
        run_task("evaluate", store.uri)


def test_a_cluster_that_is_not_there_is_named(again: Again, by_ray: dict[str, Any]) -> None:
    store = again("evaluate", **{**by_ray, "ray.address": "http://127.0.0.1:9"})
    with pytest.raises(OSError, match=r"ray\.address='http://127\.0\.0\.1:9': no job server answers"):
        run_task("evaluate", store.uri)


def driver_of(store: RunStore) -> psutil.Process:
    """The process of a run's job."""
    return next(
        process
        for process in psutil.process_iter(["cmdline"])
        if "sasrec_tasks.on_ray" in (command := process.info["cmdline"] or []) and store.uri in command
    )


@pytest.mark.parametrize("task", ["export", "train"])
def test_a_job_that_is_killed_is_gone_on_with_by_the_next_try(
    local: RunStore, again: Again, by_ray: dict[str, Any], task: str
) -> None:
    store = again(task, **by_ray)
    running = Running(store, task)
    running.wait_for(MIDST[task])
    driver_of(store).kill()
    assert isinstance(running.ended(), OSError)
    run_task(task, store.uri)
    assert same(local, store, task)
