"""A night on the services of docker-compose.yml: what `make env` writes, all services up, one run by REST."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import airflow_processes as processes
import httpx
from compose_file import ROOT, read_env, services
from native_stack import NativeStack

from sasrec_tasks.generate import generate
from sasrec_tasks.tables import Recommendations

USERS = 300
QUICK = {"train.epochs": 2, "train.max_len": 20, "train.hidden_units": 16, "gate.force_publish": True}


@dataclass(frozen=True)
class Night:
    """A run that was triggered by REST, and the stack it ran on.

    Args:
        env: what `.env` sets.
        table: as the run has left it.
    """

    stack: NativeStack
    env: Mapping[str, str]
    airflow: processes.RunningAirflow
    run: str
    table: Recommendations


@contextmanager
def night(folder: Path, profiles: str = "", conf: Mapping[str, Any] = QUICK) -> Iterator[Night]:
    """Bring up what `make env` and the compose file describe, and run the DAG once."""
    for name in ("Makefile", ".env.example"):
        shutil.copy(ROOT / name, folder)
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    make = ["make", "-C", str(folder), "env", "DATA=events", f"PROFILES={profiles}"]
    subprocess.run(make, env=kept, check=True, capture_output=True)
    generate(folder / "events" / "interactions.parquet", users=USERS, items=2000, events=9000, seed=1)
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
            run = airflow.trigger(conf)
            airflow.succeeded(run)
            table = Recommendations(str(folder / "volumes" / "table" / "recommendations"))
            yield Night(stack, env, airflow, run, table)


def is_there(airflow: processes.RunningAirflow) -> bool:
    """Whether the DAG can be triggered."""
    assert airflow.ask("GET", "importErrors")["import_errors"] == []
    return airflow.api.get(f"/api/v2/dags/{airflow.dag}").is_success


def check_table(night: Night) -> None:
    """That the run is what was served, to every user.

    Raises:
        AssertionError: it is not.
    """
    assert (night.table.run_id, night.table.version, night.table.users()) == (night.run, 0, USERS)
    rows = night.table.to_pandas()
    assert set(rows.groupby("USER_ID")["RANK"].apply(tuple)) == {tuple(range(1, 11))}


def check_logs(night: Night) -> None:
    """That no service has complained of its configuration.

    Raises:
        AssertionError: one has.
    """
    for containers in night.stack.containers.values():
        for container in containers:
            log = container.log.read_text(errors="replace")
            assert "Traceback" not in log, container.log
            assert "pidfile" not in log.lower(), container.log
