"""An Airflow of the tests' own, without its scheduler and with it."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from airflow_processes import AIRFLOW, RunningAirflow, airflow_at, answers, free_ports, log_in, running

PARTS = ("api-server", "dag-processor", "scheduler")  # a task that waits for a person needs no triggerer


@pytest.fixture(scope="session")
def airflow_environment() -> Callable[[Path], dict[str, str]]:
    """Folder → environment of an Airflow in it."""
    return airflow_at


class RealAirflow(RunningAirflow):
    """An Airflow whose parts can be at work. No schedule starts a run."""

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """API server, DAG processor and scheduler run; the DAG is not paused."""
        with ExitStack() as stack:
            for part in PARTS:
                stack.enter_context(running([AIRFLOW, part], self.home / f"{part}.log", self.environment))
            self.wait("the API server", lambda: answers(self.api))
            log_in(self.api, "ann", "secret")
            self.ask("PATCH", f"dags/{self.dag}", {"is_paused": False})
            yield


@pytest.fixture(scope="module")
def real_airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealAirflow]:
    """An Airflow that knows the DAG and has places for source, store and table; nothing of it runs yet."""
    home = tmp_path_factory.mktemp("running")
    port, logs_port = free_ports(2)
    passwords = home / "passwords.json"
    passwords.write_text(json.dumps({"ann": "secret"}))
    environment = {
        **airflow_at(home),
        "PYTHONWARNINGS": "ignore",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "AIRFLOW__CORE__PARALLELISM": "3",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "ann:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(logs_port),
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
        "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",  # else last night's run would start by itself
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",  # a busy machine is no reason to try again in a minute
        "SASREC_SOURCE": str(home / "events"),
        "SASREC_STORE": str(home / "runs"),
        "SASREC_TABLE": str(home / "recommendations"),
    }
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as api:
        airflow = RealAirflow(
            home, home / "logs", environment, api, asks=20
        )  # SQLite: another writer was there before
        airflow.command("db", "migrate")
        airflow.command("dags", "reserialize")
        yield airflow
