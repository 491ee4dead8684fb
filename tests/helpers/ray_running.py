"""Tasks at work on a cluster, which a test waits for, and never for ever."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
from ray_faults import LIMIT, Hangs

from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.pipeline import run_task


def wait_for(store: RunStore, pattern: str, is_at_work: Callable[[], bool]) -> None:
    """Until a file is in a run's folder, while something is still at work."""
    deadline = time.monotonic() + LIMIT
    while not list(Path(store.root).glob(pattern)):
        assert is_at_work(), f"ended before {pattern}"
        if time.monotonic() > deadline:
            raise Hangs(f"no {pattern}")
        time.sleep(0.02)


NO_WORK = (
    "IDLE",
    "_",
    "DashboardAgent",
    "RuntimeEnvAgent",
    "JobSupervisor",
    "PlacementGroup",
    "TrainController",
)
"""How names of Ray's processes begin, behind `ray::`, which do nothing of a task's work."""


def works(pid: int) -> bool:
    """Whether a node's process has given another one something to do."""
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                name = " ".join(child.cmdline())
                if name.startswith("ray::") and not name.removeprefix("ray::").startswith(NO_WORK):
                    return True
    return False


def runs(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> Callable[[], bool]:
    """What says whether a process has not ended."""
    return lambda: process.poll() is None


class Running:
    """A task at work in a thread."""

    def __init__(self, store: RunStore, task: str) -> None:
        self.store, self.task = store, task
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            run_task(self.task, self.store.uri)
        except BaseException as error:  # told by `ended`
            self.error = error

    def wait_for(self, pattern: str) -> None:
        """Until a file is there, and the task is still at work."""
        wait_for(self.store, pattern, self.thread.is_alive)

    def ended(self) -> BaseException | None:
        """What it ended with."""
        self.thread.join(LIMIT)
        if self.thread.is_alive():
            raise Hangs(self.task)
        return self.error
