"""A night that is stopped in the middle, by its time limit, by a person or by a kill: nothing half done stays."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from airflow_processes import AIRFLOW, ROOT, running
from safetensors import safe_open

from sasrec_tasks import runs
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.report import content
from sasrec_tasks.tables import Recommendations, open_tables

LONG = {
    "train.epochs": 200,
    "train.early_stopping_patience": None,
    "train.hidden_units": 16,
    "train.max_len": 20,
    "train.learning_rate": 0.01,
    "train.device": "cpu",
    "evaluate.bootstrap_samples": 200,
    "gate.force_publish": True,
}
"""A training of half a minute, in epochs of a tenth of a second."""


def checkpoint(store: RunStore) -> Path:
    return Path(store.root) / "train" / "checkpoint" / "state.safetensors"


def tries(store: RunStore) -> list[Path]:
    """Folders of tries that are at work, or left one behind."""
    return list(Path(store.root).glob(".train.*.*"))


def row_of(table: str, run: str) -> dict[str, Any]:
    """What the table of runs says of a run."""
    (row,) = [row for row in runs.read(f"{table}_runs").to_pylist() if row["RUN_ID"] == run]
    return dict(row)


# By its time limit

SHORT = """# a DAG of Airflow: the dag of airflow's folder with less time
from datetime import timedelta

import sasrec_nightly

night = sasrec_nightly.make_dag()
night.fileloc = __file__
train = night.get_task("train")
train.execution_timeout, train.retries = timedelta(seconds=20), 0
"""


def test_a_training_past_its_time_limit_leaves_nothing_half_done_and_can_go_on(
    airflow: Any, chains: Callable[[], pa.Table], tmp_path: Path
) -> None:
    pq.write_table(chains(), airflow.home / "interactions.parquet")
    (tmp_path / "short.py").write_text(SHORT)
    paths = [airflow.environment["AIRFLOW__CORE__DAGS_FOLDER"], airflow.environment.get("PYTHONPATH", "")]
    environment = {"AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path), "PYTHONPATH": os.pathsep.join(paths)}
    conf = json.dumps({**LONG, "train.epochs": 100_000})
    environment["SASREC_METRICS_TEXTFILE"] = str(tmp_path / "sasrec.prom")
    done = airflow.run("dags", "test", "sasrec_nightly", "--conf", conf, **environment)
    assert done.returncode != 0
    ((run,),) = airflow.query("SELECT run_id FROM dag_run ORDER BY id DESC LIMIT 1")
    states = dict(airflow.query(f"SELECT task_id, state FROM task_instance WHERE run_id = '{run}'"))
    assert (states["train"], states["export"], states["prune"]) == ("failed", "upstream_failed", "success")
    assert "train: AirflowTaskTimeout" in done.stdout + done.stderr  # of the alert, in its log
    row = row_of(airflow.environment["SASREC_TABLE"], run)
    assert (row["ENDING"], row["TASK"]) == ("failed", "train")
    assert row["REASON"].startswith("AirflowTaskTimeout: it ran past its time limit")
    figures = (tmp_path / "sasrec.prom").read_text()
    assert re.search(
        rf'sasrec_run_info{{.*run_id="{re.escape(run)}",ending="failed",task="train"}} 1', figures
    )
    assert re.search("^sasrec_run_published{.*} 0.0$", figures, re.MULTILINE)
    store = RunStore.of(airflow.environment["SASREC_STORE"], run)
    assert store.marker("train") is None
    assert tries(store) == []
    told = content.read(store).status
    assert (told.kind, told.sentence) == ("failed", "The table is left as it is. The run ended at train.")
    assert told.reason.startswith("train: it ran past its time limit")

    with safe_open(checkpoint(store), framework="np") as file:  # from which another try would go on
        assert json.loads(file.metadata()["history"])


# By a person, by a kill


@pytest.fixture(scope="module")
def airflow_settings(ways: Any) -> dict[str, str]:
    return {
        **ways.environment,
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "SASREC_DEADLINE_HOURS": str(5 / 3600),
    }


@pytest.fixture(scope="module")
def running_airflow(real_airflow: Any, chains: Callable[[], pa.Table]) -> Iterator[Any]:
    source = Path(real_airflow.environment["SASREC_SOURCE"]) / "events.parquet"
    source.parent.mkdir()
    pq.write_table(chains(), source)
    triggerer = running([AIRFLOW, "triggerer"], real_airflow.home / "triggerer.log", real_airflow.environment)
    with real_airflow.at_work(), triggerer:  # it tells of a deadline
        yield real_airflow


def at_work(airflow: Any, store: RunStore, not_before: float) -> psutil.Process:
    """The process that trains, once it has saved an epoch of its own."""

    def process() -> psutil.Process | None:
        file = checkpoint(store)
        if not file.exists() or file.stat().st_mtime < not_before:
            return None
        pids = [int(folder.name.split(".")[-2]) for folder in tries(store)]
        return next((psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)), None)

    found: psutil.Process = airflow.wait("a training", process)
    return found


def clear(airflow: Any, run: str, task: str) -> None:
    airflow.ask(
        "POST",
        f"dags/{airflow.dag}/clearTaskInstances",
        {
            "dry_run": False,
            "dag_run_id": run,
            "task_ids": [task],
            "include_downstream": True,
            "only_failed": False,
            "reset_dag_runs": True,
        },
    )


def pause(airflow: Any, paused: bool) -> None:
    airflow.ask("PATCH", f"dags/{airflow.dag}", {"is_paused": paused})


def test_a_night_that_is_stopped_in_every_way_ends_as_if_it_had_not_been(
    running_airflow: Any, ways: Any
) -> None:
    airflow, posts = running_airflow, ways.received.posts
    run = airflow.trigger(LONG)
    store = RunStore.of(airflow.environment["SASREC_STORE"], run)

    # its deadline passes: people are told, and it goes on
    training = at_work(airflow, store, 0)
    airflow.wait("the alert of the deadline", lambda: [post for post in posts if "late" in post["text"]])
    assert "nothing, no run has published yet" in posts[0]["text"]

    # marked failed: the process ends, people are told
    posts.clear()
    airflow.ask("PATCH", f"dags/{airflow.dag}/dagRuns/{run}/taskInstances/train", {"new_state": "failed"})
    airflow.wait("the end of the training", lambda: not training.is_running())
    assert airflow.ended(run) == {run: "failed"}
    assert tries(store) == []
    assert store.marker("train") is None
    assert airflow.tasks(run)["export"] == "upstream_failed"
    assert f"failed in train, {run}" in airflow.wait("the alert", lambda: posts)[0]["text"]
    row = row_of(airflow.environment["SASREC_TABLE"], run)
    assert (row["ENDING"], row["TASK"], bool(row["REASON"])) == ("failed", "train", True)

    # cleared, and cleared again while it trains
    now = time.time()
    clear(airflow, run, "train")
    training = at_work(airflow, store, now)
    now = time.time()
    clear(airflow, run, "train")
    airflow.wait("the end of the training", lambda: not training.is_running())

    # killed
    training = at_work(airflow, store, now)
    training.send_signal(signal.SIGKILL)
    airflow.wait("a retry", lambda: airflow.tasks(run)["train"] == "up_for_retry")
    assert store.marker("train") is None
    clear(airflow, run, "train")  # rather than wait a minute for it

    # paused while it trains: the rest waits
    at_work(airflow, store, time.time())
    pause(airflow, True)
    airflow.wait("the end of the training", lambda: airflow.tasks(run)["train"] == "success")
    time.sleep(2)
    assert airflow.tasks(run)["evaluate"] is None
    pause(airflow, False)

    airflow.succeeded(run)
    assert (trained := store.marker("train"))
    assert trained.summary["epochs"] == 200
    assert trained.summary["resumed_from_epoch"] > 0
    assert tries(store) == []
    assert [
        published.run_id for published in open_tables(airflow.environment["SASREC_TABLE"]).published()
    ] == [run]
    assert Recommendations(airflow.environment["SASREC_TABLE"]).users() == 100
    row = row_of(airflow.environment["SASREC_TABLE"], run)
    assert (row["ENDING"], row["TASK"], row["REASON"]) == ("published", "export", None)


def test_a_run_that_is_marked_failed_ends_its_task_and_is_cleared_up_after(
    running_airflow: Any, ways: Any
) -> None:
    airflow = running_airflow
    run = airflow.trigger(LONG)
    store = RunStore.of(airflow.environment["SASREC_STORE"], run)
    training = at_work(airflow, store, 0)
    ways.received.posts.clear()
    airflow.ask("PATCH", f"dags/{airflow.dag}/dagRuns/{run}", {"state": "failed"})
    airflow.wait("the end of the training", lambda: not training.is_running())
    airflow.wait("what comes after any night", lambda: airflow.tasks(run)["alert"] == "success")
    airflow.ended(run)  # as what, Airflow decides by `export`, which it has skipped
    tasks = airflow.tasks(run)
    assert (tasks["train"], tasks["export"], tasks["prune"]) == ("failed", "skipped", "success")
    assert (store.marker("train"), tries(store)) == (None, [])
    assert any(f"failed in train, {run}" in post["text"] for post in ways.received.posts)
    row = row_of(airflow.environment["SASREC_TABLE"], run)
    assert (row["ENDING"], row["TASK"]) == ("failed", "train")
    report = airflow.api.get(f"/reports/run/{airflow.dag}/{quote(run)}").text
    assert (
        '<span class="badge failed">failed</span> The table is left as it is. The run ended at train.'
        in report
    )
    assert "can&#39;t be seen" not in report
