"""SIGTERM in the middle of a task: the process ends soon, and what it had half done is put away."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from sasrec_tasks import terminated
from sasrec_tasks.pipeline import run_task

TRAINS = """
import logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s", force=True)
from sasrec_tasks import pipeline, progress, terminated
progress.SECONDS_BETWEEN_LINES = 0
with terminated.in_order():
    pipeline.run_task("train", sys.argv[1])
"""


def test_a_training_that_is_ended_leaves_its_checkpoint_alone(place: Any) -> None:
    store = place.run("run", {"train.epochs": 5000, "train.early_stopping_patience": None}, upto="split")
    with subprocess.Popen(
        [sys.executable, "-u", "-c", TRAINS, store.uri], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while "epoch 2" not in (line := process.stdout.readline()):
            assert line, "ended by itself"
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait() == terminated.STATUS
    assert store.marker("train") is None
    assert not [path for path in Path(store.root).iterdir() if path.is_dir() and path.name.startswith(".")]
    assert [path.name for path in (Path(store.root) / "train" / "checkpoint").iterdir()] == [
        "state.safetensors"
    ]
    place.start("run", {"train.epochs": 2})
    assert run_task("train", store.uri)["epochs"] == 2


def test_outside_of_it_the_handler_is_what_it_was() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with (
        pytest.raises(terminated.Terminated, match="by SIGTERM: somebody marked it") as ended,
        terminated.in_order(),
    ):
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_thread_leaves_signals_alone() -> None:
    handlers: list[Any] = []

    def work() -> None:
        with terminated.in_order():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]
