"""`train` on a cluster: workers that each hold the model, and work on their users' rows of every batch.

After each epoch the first one leaves a checkpoint in the run's folder. When a worker or its node is lost, Ray Train
starts all of them anew, as many as there is room for, and they go on from there.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
from typing import Any

import ray.train
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.state import list_actors

from sasrec_tasks import contents, train, warm_start
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.config import Settings
from sasrec_tasks.fitting import Training, check_memory, fitted, hand_over
from sasrec_tasks.on_ray import cluster
from sasrec_tasks.sasrec.parallel import Distributed
from sasrec_tasks.shards import Shards

log = logging.getLogger(__name__)

FAILURES = 20
"""Times that workers are started anew: nodes that are given back at short notice are lost often."""

SECONDS_BETWEEN_SIZES = 600.0
"""Between looks for nodes that have come: with each, workers begin at the last checkpoint again."""


def run(shards: Shards, settings: Settings) -> None:
    """Leave weights and history."""
    on_gpus = settings.ray.gpus_per_worker > 0
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"run": shards.store.uri, "task": shards.task, "fingerprint": shards.fingerprint},
        torch_config=TorchConfig(
            backend="cpu:gloo,cuda:nccl"
            if on_gpus
            else "gloo",  # what is settled by adding up lies on the CPU
            timeout_s=round(60 * settings.ray.wait_minutes),
        ),
        scaling_config=ray.train.ScalingConfig(
            num_workers=(1, settings.ray.workers),
            use_gpu=on_gpus,
            resources_per_worker=cluster.resources(settings.ray),
            elastic_resize_monitor_interval_s=SECONDS_BETWEEN_SIZES,
        ),
        run_config=ray.train.RunConfig(
            name="ray",
            storage_path=shards.folder if shards.store.is_local else shards.uri,
            failure_config=ray.train.FailureConfig(max_failures=FAILURES),
        ),
    )
    shards.store.folder("split")  # it is whole: workers read parts of it
    with cluster.watched(60 * settings.ray.wait_minutes, _has_workers, lambda: _waits(settings)):
        trainer.fit()
    if not shards.finished() and (failure := shards.failure()):
        raise failure


def _has_workers() -> bool:
    job = ray.get_runtime_context().get_job_id()
    of_this_job = [("job_id", "=", job), ("state", "=", "ALIVE"), ("class_name", "=", "RayTrainWorker")]
    return bool(list_actors(filters=of_this_job, limit=1, raise_on_missing_output=False))


def _waits(settings: Settings) -> str:
    return (
        f"no worker was at work for ray.wait_minutes={settings.ray.wait_minutes:g}: others hold what it needs "
        f"({cluster.told(cluster.resources(settings.ray))}): try again when they have ended, or add nodes"
    )


def prepared(shards: Shards, settings: Settings) -> Training:
    """What is trained; the task has chosen where from."""
    start = warm_start.Start(**json.loads(shards.read_bytes(train.START)))
    return train.prepared(shards.store, settings, start)


def _worker(config: dict[str, Any]) -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s|%(message)s", stream=sys.stdout, force=True)
    shards = Shards(RunStore(config["run"]), config["task"], config["fingerprint"])
    shards.store.trust("split")
    store, settings, task = shards.store, shards.store.settings(), shards.task
    group = Distributed()
    if group.rank:
        logging.getLogger("sasrec_tasks").setLevel(logging.WARNING)
    if shards.failure():  # why another one, or this one before, could not go on
        return
    log.info("%s: %d workers", task, group.size)
    try:
        check_memory(task, contents.interactions(store, settings), settings, workers=group.size)
        training = importlib.import_module(f"sasrec_tasks.on_ray.{task}").prepared(shards, settings)
        result = fitted(store, task, training, group)
    except (OSError, RuntimeError):  # as where another worker is gone: all are started anew
        raise
    except (
        Exception
    ) as error:  # to start all anew won't help; the others wait for this one, until it has gone
        shards.fail(error)
        raise
    if group.rank == 0:
        hand_over(shards, training.model, result)
