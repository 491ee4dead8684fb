"""A job's connection to its cluster, and what is waited for there, never for ever."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import ray
import ray.data
from pydantic import ByteSize, TypeAdapter
from ray.autoscaler.sdk import request_resources
from ray.data.exceptions import ExecutionTimeoutError

from sasrec_tasks import config

log = logging.getLogger(__name__)

GONE = 75
"""Exit status of a job that has waited too long (EX_TEMPFAIL)."""

SECONDS_BETWEEN_LOOKS = 5.0

TRIES = 5
"""Within `ray.wait_minutes`, of work that may get stuck."""

T = TypeVar("T")


@contextmanager
def joined(settings: config.Ray) -> Iterator[None]:
    """Be of the cluster that this job runs on, while it has a node with what a worker needs.

    Ray waits for one without a limit. Here the job fails, or ends, when there has been none for `ray.wait_minutes`. A
    cluster that grows when it is asked is asked for one.

    Raises:
        OSError: there is none from the beginning.
    """
    ray.init(address="auto", log_to_driver=True, logging_level=logging.WARNING)
    needed, seconds = resources(settings), 60 * settings.wait_minutes
    if not _has_room(needed):
        _wait_for_room(needed, settings)
    with watched(seconds, lambda: _has_room(needed), lambda: _lacks(needed, settings)):
        yield


def _wait_for_room(needed: dict[str, float], settings: config.Ray) -> None:
    deadline = time.monotonic() + 60 * settings.wait_minutes
    request_resources(bundles=[needed])
    try:
        while not _has_room(needed):
            if time.monotonic() > deadline:
                raise OSError(_lacks(needed, settings))
            log.info("waiting for a node with %s", told(needed))
            time.sleep(SECONDS_BETWEEN_LOOKS)
    finally:
        request_resources(bundles=[])  # from now on, what is at work tells what it needs


@contextmanager
def watched(seconds: float, is_well: Callable[[], bool], what_is_wrong: Callable[[], str]) -> Iterator[None]:
    """End this process where all is not well for so long: its main thread is within Ray, which waits on."""
    over = threading.Event()

    def look() -> None:
        was_well = time.monotonic()
        while not over.wait(SECONDS_BETWEEN_LOOKS):
            with suppress(Exception):  # a head that does not answer is not well either
                if is_well():
                    was_well = time.monotonic()
                    continue
            if time.monotonic() - was_well > seconds:
                with suppress(Exception):
                    log.error("%s", what_is_wrong())
                logging.shutdown()
                os._exit(GONE)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def limit_data(settings: config.Ray) -> None:
    """Have Ray Data use so many workers, and fail where nothing comes of their work for `ray.wait_minutes`."""
    context = ray.data.DataContext.get_current()
    context.execution_options.resource_limits = ray.data.ExecutionResources(
        cpu=settings.workers * settings.cpus_per_worker
    )
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = 60 * settings.wait_minutes


def unless_stuck(settings: config.Ray, work: Callable[[], T]) -> T:
    """What work of Ray Data returns; it is begun anew where none of its rows moves for a fifth of `ray.wait_minutes`.

    After a node was lost, Ray may wait for a block that went with it, and that nobody makes again.

    Args:
        work: of pieces that take seconds each; it makes its datasets itself.

    Raises:
        ExecutionTimeoutError: none has moved at the fifth time either.
    """
    seconds = 60 * settings.wait_minutes / TRIES
    ray.data.DataContext.get_current().execution_no_progress_timeout_s = seconds
    for tried in range(1, TRIES):
        try:
            return work()
        except ExecutionTimeoutError:
            log.warning("nothing has moved for %.0f s: beginning anew, %d of %d", seconds, tried, TRIES - 1)
    return work()


def resources(settings: config.Ray, *, gpus: bool = True) -> dict[str, float]:
    """What one worker needs, by Ray's names.

    Args:
        gpus: whether the work knows what to do with one.
    """
    needed = {"CPU": settings.cpus_per_worker}
    if gpus and settings.gpus_per_worker:
        needed["GPU"] = settings.gpus_per_worker
    if settings.memory_per_worker:
        needed["memory"] = float(TypeAdapter(ByteSize).validate_python(settings.memory_per_worker))
    return needed


def options(settings: config.Ray, *, gpus: bool = True) -> dict[str, Any]:
    """As `resources`, by the names of Ray Data's arguments."""
    needed = resources(settings, gpus=gpus)
    named = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
    return {named[name]: amount for name, amount in needed.items()}


def _has_room(needed: dict[str, float]) -> bool:
    return any(_holds(node["Resources"], needed) for node in ray.nodes() if node["Alive"])


def _lacks(needed: dict[str, float], settings: config.Ray) -> str:
    return (
        f"no node of the cluster has what one worker needs ({told(needed)}), for ray.wait_minutes="
        f"{settings.wait_minutes:g}: it has {told(ray.cluster_resources())} in all: add nodes, or lower "
        "ray.cpus_per_worker, ray.gpus_per_worker or ray.memory_per_worker"
    )


def _holds(has: dict[str, float], needed: dict[str, float]) -> bool:
    return all(has.get(name, 0.0) >= amount for name, amount in needed.items())


def told(amounts: dict[str, float]) -> str:
    """Resources as they are read."""
    parts = [f"{name} {amounts[name]:g}" for name in ("CPU", "GPU") if name in amounts]
    if memory := amounts.get("memory"):
        parts.append(f"memory {memory / 1e9:.1f} GB")
    return ", ".join(parts) or "nothing"
