"""Data three times as large as the memory that sorting may take, within 2 GiB; and what could not fit is refused."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from sasrec_tasks import memory
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.naming import from_names
from sasrec_tasks.pipeline import TASKS, start
from sasrec_tasks.tables import open_tables

log = logging.getLogger(__name__)

EVENTS = Path(__file__).parents[2] / "benchmarks" / "events.py"
MiB = 2**20
LIMIT, MOST = 512 * MiB, 2048 * MiB
NUMBER, USERS, ITEMS = 38_000_000, 150_000, 2_000
"""Of events; each is 43 bytes in memory, as Arrow holds it."""

SETTINGS: dict[str, Any] = {
    "split.memory_limit": "512MiB",
    "train.hidden_units": 8,  # what the model learns is not looked at
    "train.max_len": 5,
    "train.windows": "last",
    "train.epochs": 1,
    "train.device": "cpu",
    "evaluate.bootstrap_samples": 100,
    "gate.force_publish": True,
    "as_of": "2026-06-01",
}


class Group:
    """A control group of Linux: what joins it is killed when it holds more than its limit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def limit(self, size: int) -> None:
        """Let it hold so many bytes; not where its parent hands no control of memory on."""
        name = "memory.max" if (self.folder / "memory.max").exists() else "memory.limit_in_bytes"
        (self.folder / name).write_text(str(size), encoding="ascii")

    def join(self) -> None:
        """Put this process, which is a child that has yet to start its program, into the group."""
        (self.folder / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")


@pytest.fixture
def group() -> Iterator[Callable[[int], Group | None]]:
    """Makes control groups; None where this machine does not allow it."""
    made: list[Group] = []

    def make(limit: int) -> Group | None:
        own = next((place for place in memory.control_groups()[2:] if place.is_dir()), None)
        try:
            if own is None:
                raise OSError("there are none")
            made.append(Group(own / f"sasrec-{uuid.uuid4().hex}"))
            made[-1].limit(limit)
        except OSError as error:
            log.warning("control groups of memory can't be made here: %s", error)
            return None
        return made[-1]

    yield make
    for each in made:
        each.folder.rmdir()


def run(store: RunStore, task: str, group: Group | None = None) -> str:
    """Do a task in a process of its own; what it says at its end, and on the way."""
    script = "import logging, sys; logging.basicConfig(level=logging.INFO); from sasrec_tasks.pipeline import run_task"
    done = subprocess.run(
        [sys.executable, "-c", f"{script}; run_task(*sys.argv[1:])", task, store.uri],
        preexec_fn=None if group is None else group.join,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{task} ended with {done.returncode}: {done.stdout[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of events."""
    file = tmp_path_factory.mktemp("large") / "events.parquet"
    size = [f"--events={NUMBER}", f"--users={USERS}", f"--items={ITEMS}"]
    subprocess.run([sys.executable, str(EVENTS), f"--out={file}", *size], check=True)
    return file


@pytest.mark.faults
def test_data_of_three_times_the_limit_are_published_within_two_gigabytes(
    large: Path, tmp_path: Path, group: Callable[[int], Group | None]
) -> None:
    """As each task measures itself; and within a control group of that size, where one can be made."""
    some = pq.ParquetFile(large).read_row_group(0)
    assert some.nbytes / some.num_rows * NUMBER >= 3 * LIMIT
    settings = {
        "source": str(large),
        "store": str(tmp_path / "runs"),
        "table": str(tmp_path / "table"),
        **SETTINGS,
    }
    store = start(from_names(settings), "run")
    limited = group(MOST)
    for task in TASKS:
        run(store, task, limited if task in ("ingest", "validate", "split", "export") else None)
        marker = store.marker(task)
        assert marker is not None
        assert (marker.peak_rss_mb or 0) * 1e6 <= MOST, task
    table = open_tables(settings["table"])
    found = pc.count_distinct(table.rows(0).read_all()["USER_ID"]).as_py()
    assert found == pc.count_distinct(pq.read_table(large, columns=["USER_ID"])["USER_ID"]).as_py()


@pytest.mark.faults
def test_a_training_that_can_not_fit_into_its_container_is_refused(
    place: Any, group: Callable[[int], Group | None]
) -> None:
    limited = group(1000 * MiB)
    if limited is None:
        pytest.skip("control groups of memory can't be made here")
    store = place.run("run", {"train.hidden_units": 2048}, upto="split")
    with pytest.raises(
        AssertionError, match=r"train: needs about [\d.]+ GB of memory, [\d.]+ GB at least; cpu has 1.0 GB"
    ):
        run(store, "train", limited)
    run(place.run("small", {"train.hidden_units": 16, "train.epochs": 1}, upto="split"), "train", limited)
