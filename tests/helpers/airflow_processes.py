"""Airflow's parts, and what they stand on, as processes of a test; and what asks a running Airflow by REST."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).parents[2]
AIRFLOW = Path(sys.executable).with_name("airflow")
PATIENCE = 400  # seconds, for a machine that does other things too


def airflow_at(home: Path) -> dict[str, str]:
    """The environment of an Airflow that keeps everything in a folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "SASREC"))}
    return {
        **kept,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
    }


@contextmanager
def running(
    command: Sequence[str | Path], log: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A process at work; at the end neither it nor what it has started is left."""
    process = start(command, log, environment)
    try:
        yield process
    finally:
        stop([process])


def start(
    command: Sequence[str | Path], log: Path, environment: Mapping[str, str], **how: Any
) -> subprocess.Popen[bytes]:
    """A process that writes into a log; to be ended by `stop`."""
    with log.open("ab") as out:
        return subprocess.Popen(
            command, env=dict(environment), stdout=out, stderr=out, stdin=subprocess.DEVNULL, **how
        )


def stop(processes: Sequence[subprocess.Popen[bytes]], seconds: float = 10) -> None:
    """End processes and what they have started: first asked to, killed if they have not ended by then."""
    own = [psutil.Process(process.pid) for process in processes if process.poll() is None]
    started = {
        child for each in own for child in each.children(recursive=True)
    }  # tasks have groups of their own
    for each in (*own, *started):
        with suppress(psutil.NoSuchProcess):
            each.terminate()
    _, alive = psutil.wait_procs([*own, *started], timeout=seconds)
    for each in alive:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    for process in processes:
        process.wait()


def answers(api: httpx.Client) -> bool:
    """Whether the API server is up."""
    try:
        return api.get("/api/v2/version").is_success
    except httpx.TransportError:
        return False


def log_in(api: httpx.Client, user: str, password: str) -> None:
    """Have a client send a token from now on.

    Raises:
        AssertionError: the user is not let in.
    """
    token = api.post("/auth/token", json={"username": user, "password": password})
    assert token.is_success, token.text
    api.headers["Authorization"] = f"Bearer {token.json()['access_token']}"


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens at."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@dataclass(frozen=True)
class RunningAirflow:
    """Airflow's parts at work, and what asks them by REST.

    A run is what its `dag_run_id` names.

    Args:
        home: where each part's log is.
        task_logs: the folder of the tasks' logs.
        environment: of the command line.
        api: logged in.
        asks: how often it is asked at most, if it says that something is wrong with itself.
    """

    home: Path
    task_logs: Path
    environment: Mapping[str, str]
    api: httpx.Client
    dag: str = "sasrec_nightly"
    asks: int = 1

    def command(self, *arguments: str) -> str:
        """What a command line prints.

        Raises:
            AssertionError: its status is not 0.
        """
        done = subprocess.run(
            [AIRFLOW, *arguments],
            env=dict(self.environment),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """What the REST API answers.

        Raises:
            AssertionError: no 2xx.
        """
        for left in reversed(range(self.asks)):
            answer = self.api.request(method, f"/api/v2/{path}", json=body)
            if answer.status_code != httpx.codes.INTERNAL_SERVER_ERROR or not left:
                break
            time.sleep(0.5)
        assert answer.is_success, (
            f"{method} {path}: {answer.status_code} {answer.text}\n{self.ends_of_logs()}"
        )
        return answer.json()

    def trigger(self, conf: Mapping[str, Any]) -> str:
        """Start a run, with some settings."""
        run = self.ask("POST", f"dags/{self.dag}/dagRuns", {"logical_date": None, "conf": conf})
        return str(run["dag_run_id"])

    def runs(self) -> dict[str, str]:
        """Run → state."""
        found = self.ask("GET", f"dags/{self.dag}/dagRuns?limit=100")["dag_runs"]
        return {run["dag_run_id"]: run["state"] for run in found}

    def task_instances(self, run: str) -> dict[str, dict[str, Any]]:
        """Task → what is known of its last try."""
        found = self.ask("GET", f"dags/{self.dag}/dagRuns/{run}/taskInstances")["task_instances"]
        return {task["task_id"]: task for task in found}

    def tasks(self, run: str) -> dict[str, str]:
        """Task → state."""
        return {name: task["state"] for name, task in self.task_instances(run).items()}

    def log(self, run: str, task: str) -> str:
        """The log of a task's last try."""
        files = sorted(
            (self.task_logs / f"dag_id={self.dag}" / f"run_id={run}" / f"task_id={task}").iterdir()
        )
        return files[-1].read_text() if files else ""

    def wait(self, what: str, holds: Callable[[], Any]) -> Any:
        """Until something holds.

        Raises:
            AssertionError: it never did; with the ends of all logs.
        """
        until = time.monotonic() + PATIENCE
        while not (found := holds()):
            assert time.monotonic() < until, f"{what}: not in {PATIENCE} s\n{self.ends_of_logs()}"
            time.sleep(1)
        return found

    def ended(self, *runs: str) -> dict[str, str]:
        """Run → state, once all have ended."""

        def states() -> dict[str, str]:
            found = {run: state for run, state in self.runs().items() if run in runs}
            return found if set(found.values()) <= {"success", "failed"} else {}

        found: dict[str, str] = self.wait(f"the end of {', '.join(runs)}", states)
        return found

    def succeeded(self, *runs: str) -> None:
        """That runs come to a good end.

        Raises:
            AssertionError: one has not; with the ends of all logs.
        """
        states = self.ended(*runs)
        assert set(states.values()) == {"success"}, f"{states}\n{self.ends_of_logs()}"

    def ends_of_logs(self) -> str:
        """The last lines of what each part and each task has logged."""
        tasks = sorted(self.task_logs.rglob("attempt=*.log"), key=lambda file: file.stat().st_mtime)
        return ends_of([*sorted(self.home.glob("*.log")), *tasks[-12:]])


def ends_of(logs: Sequence[Path]) -> str:
    """The last lines of log files."""
    lines: list[str] = []
    for log in logs:
        lines += [f"== {log}", *log.read_text(errors="replace").splitlines()[-15:]]
    return "\n".join(lines)
