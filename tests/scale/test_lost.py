"""What is lost on a cluster is made good: the run ends with what it would have ended with."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from ray_faults import LIMIT, Faults, Hangs
from ray_nodes import Nodes
from ray_running import Running, runs, wait_for, works

from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.contents import RANKS
from sasrec_tasks.shards import FOLDER
from sasrec_tasks.tables import Recommendations

pytestmark = pytest.mark.scale

Again = Callable[..., RunStore]


@pytest.fixture
def one_is_lost(nodes: Nodes) -> Iterator[Callable[[Running], bool]]:
    """Kill a node that works, and all that runs on it, unless the task ends before; another comes after the test."""
    lost = []

    def raylet(node: Any) -> int:
        pid: int = node.all_processes["raylet"][0].process.pid
        return pid

    def kill(running: Running) -> bool:
        deadline = time.monotonic() + LIMIT
        while running.thread.is_alive():
            if time.monotonic() > deadline:
                raise Hangs(f"{running.task}: nobody works")
            for node in nodes.cluster.worker_nodes:
                if works(raylet(node)):
                    nodes.cluster.remove_node(node, allow_graceful=False)
                    lost.append(node)
                    return True
            time.sleep(0.02)
        return False

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
    one, other = (pq.read_table(Path(each.root, task, "history.parquet")) for each in (here, there))
    return bool(  # with dropout that others have drawn, as by another seed
        one["epoch"].equals(other["epoch"])
        and np.allclose(one["loss"].to_numpy(), other["loss"].to_numpy(), rtol=0.03)
        and np.isclose(one["metric"].to_numpy()[-1], other["metric"].to_numpy()[-1], rtol=0.25)
    )


MOMENTS = {"at once": (0.0, 0.0), "later": (0.5, 4.0)}
"""Seconds after the midst of a task was reached, between which one is drawn."""

TRIED = [(task, moment) for task in MIDST for moment in MOMENTS if (task, moment) != ("train", "later")]
"""(A training that goes on takes a minute.)"""


@pytest.mark.parametrize(("task", "moment"), TRIED)
def test_a_node_that_is_lost_in_mid_task(
    local: RunStore,
    again: Again,
    by_ray: dict[str, Any],
    one_is_lost: Callable[[Running], bool],
    faults: Faults,
    task: str,
    moment: str,
) -> None:
    store = again(task, **by_ray)
    running = Running(store, task)
    running.wait_for(MIDST[task])
    time.sleep(random.uniform(*MOMENTS[moment]))
    if not one_is_lost(running):
        assert running.ended() is None
        pytest.skip("the task was over before the moment that was drawn")
    with faults.tried("a worker's node is killed", task):
        assert running.ended() is None
        assert same(local, store, task)
        if task == "train":
            marker = store.marker(task)
            assert marker is not None
            assert marker.summary["resumed_from_epoch"] in (1, 2, 3)


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
    nodes: Nodes, local: RunStore, again: Again, by_ray: dict[str, Any], faults: Faults
) -> None:
    store = again("train", **by_ray)
    process = in_a_process(store, "train")
    try:
        wait_for(store, MIDST["train"], runs(process))
    finally:
        process.kill()
        process.wait()
    with faults.tried("the task's own process is killed, and tried again", "train"):
        running = Running(store, "train")
        assert running.ended() is None
        assert same(local, store, "train")
        assert [job.status for job in jobs_of(nodes, store)] == ["SUCCEEDED"]


def test_a_task_that_is_ended_stops_its_job(
    nodes: Nodes, again: Again, by_ray: dict[str, Any], faults: Faults
) -> None:
    store = again("train", **by_ray)
    process = in_a_process(store, "train")
    try:
        wait_for(store, MIDST["train"], runs(process))
        with faults.tried("the task is ended by Airflow", "train", "told"):
            process.send_signal(signal.SIGTERM)
            try:
                assert process.wait(LIMIT) == 128 + signal.SIGTERM
            except subprocess.TimeoutExpired as error:
                raise Hangs("the task") from error
            deadline = time.monotonic() + LIMIT
            while [job.status for job in jobs_of(nodes, store)] != ["STOPPED"]:
                if time.monotonic() > deadline:
                    raise Hangs("the job is not stopped")
                time.sleep(0.2)
    finally:
        process.kill()
        process.wait()


def ended_with(running: Running, pattern: str) -> None:
    """That a task has ended with an error that says what is the matter."""
    error = running.ended()
    assert isinstance(error, OSError)
    assert re.search(pattern, str(error)), error


def test_a_cluster_without_room_is_not_waited_for_for_ever(
    again: Again, by_ray: dict[str, Any], faults: Faults
) -> None:
    store = again("evaluate", **{**by_ray, "ray.cpus_per_worker": 64, "ray.wait_minutes": 0.1})
    with faults.tried("no node has room", "evaluate", "told"):
        ended_with(Running(store, "evaluate"), r"one worker needs \(CPU 64\).*it has CPU 3")


OCCUPIED = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
others = [ray.remote(num_cpus=1)(type("Other", (), {"here": lambda self: True})).remote() for _ in range(3)]
print(ray.get([each.here.remote() for each in others]), flush=True)
sys.stdin.read()
"""
"""Holds the cores of all nodes until its standard input is closed."""


def test_a_training_does_not_wait_for_ever_for_what_others_hold(
    nodes: Nodes, again: Again, by_ray: dict[str, Any], faults: Faults
) -> None:
    store = again("train", **{**by_ray, "ray.wait_minutes": 0.6})
    with subprocess.Popen(
        [sys.executable, "-c", OCCUPIED, nodes.cluster.address], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as others:
        assert others.stdin
        assert others.stdout
        try:
            assert others.stdout.readline().startswith(b"[True")
            with faults.tried("others hold all cores", "train", "told"):
                ended_with(Running(store, "train"), r"no worker was at work for ray\.wait_minutes=0\.6")
        finally:
            others.stdin.close()


def test_a_cluster_that_is_not_there_is_named(again: Again, by_ray: dict[str, Any], faults: Faults) -> None:
    store = again("evaluate", **{**by_ray, "ray.address": "http://127.0.0.1:9"})
    with faults.tried("the cluster is not there", "evaluate", "told"):
        ended_with(Running(store, "evaluate"), r"ray\.address='http://127\.0\.0\.1:9': no job server answers")


def driver_of(store: RunStore) -> psutil.Process:
    """The process of a run's job."""
    return next(
        process
        for process in psutil.process_iter(["cmdline"])
        if "sasrec_tasks.on_ray" in (command := process.info["cmdline"] or []) and store.uri in command
    )


@pytest.mark.parametrize("task", ["export", "train"])
def test_a_job_that_is_killed_is_gone_on_with_by_the_next_try(
    local: RunStore, again: Again, by_ray: dict[str, Any], faults: Faults, task: str
) -> None:
    store = again(task, **by_ray)
    running = Running(store, task)
    running.wait_for(MIDST[task])
    driver_of(store).kill()
    with faults.tried("the job's driver is killed, and the task tried again", task):
        assert isinstance(running.ended(), OSError)
        assert Running(store, task).ended() is None
        assert same(local, store, task)
