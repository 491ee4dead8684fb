"""The DAG as Airflow sees it, and a run of it through Airflow on an embedded database."""

from __future__ import annotations

import copy
import json
import logging
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from adbc_driver_postgresql import dbapi

from sasrec_tasks.config import PLACES
from sasrec_tasks.errors import BadData, BadSettings, GateRefused
from sasrec_tasks.failures import LONGEST
from sasrec_tasks.naming import form
from sasrec_tasks.pipeline import LAST, REFIT, TASKS
from sasrec_tasks.tables import Recommendations, open_tables

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "numpy", "pandas", "pyarrow", "pandera", "duckdb", "deltalake")


@pytest.fixture(scope="module")
def finished(airflow: Any) -> subprocess.CompletedProcess[str]:
    """A run of the whole DAG; forced, since two epochs need not beat popularity."""
    done: subprocess.CompletedProcess[str] = airflow.test_run({"train.epochs": 2, "gate.force_publish": True})
    return done


@pytest.fixture(scope="module")
def dag_module() -> Any:
    """The file, imported here; Airflow takes over all logging, which later tests must not meet."""
    import importlib.util

    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    spec = importlib.util.spec_from_file_location("nightly_dag", ROOT / "dags" / "sasrec_nightly.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    import airflow.settings  # noqa: F401  # what the first look at a DAG may import

    root.setLevel(level)
    root.handlers[:] = handlers
    return module


@pytest.fixture(scope="module")
def dag(dag_module: Any) -> Any:
    return dag_module.make_dag()


@pytest.mark.parametrize("file", sorted((ROOT / "dags").glob("*.py")), ids=lambda file: str(file.stem))
def test_parsing_a_dag_file_imports_nothing_heavy(file: Path) -> None:
    script = f"""
import runpy, sys
import airflow.sdk
before = set(sys.modules)
runpy.run_path({str(file)!r})
print([name for name in {HEAVY!r} if name in sys.modules and name not in before])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_the_tasks_are_in_order_and_a_person_and_refit_come_between_gate_and_export(dag: Any) -> None:
    assert set(dag.task_ids) == {*TASKS, REFIT, LAST, "ask", "approve", "alert"}
    for earlier, later in pairwise(TASKS[:-1]):
        assert dag.get_task(earlier).downstream_task_ids == {later}
    assert dag.get_task("gate").downstream_task_ids == {"ask", REFIT, "export"}
    assert dag.get_task("ask").downstream_task_ids == {"approve", REFIT}
    assert dag.get_task("approve").downstream_task_ids == {REFIT}
    assert dag.get_task(REFIT).downstream_task_ids == {"export"}
    assert dag.get_task("export").downstream_task_ids == {LAST}
    assert dag.get_task(LAST).downstream_task_ids == {"alert"}


def test_two_runs_do_not_train_at_once(dag: Any) -> None:
    assert {dag.get_task(name).max_active_tis_per_dag for name in ("train", REFIT)} == {1}


def test_a_run_has_the_deadline_that_the_operator_sets(
    dag: Any, dag_module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not dag.deadline
    monkeypatch.setenv("SASREC_DEADLINE_HOURS", "1.5")
    (deadline,) = dag_module.make_dag().deadline
    assert deadline.interval == timedelta(hours=1.5)
    from airflow.sdk.definitions.callback import AsyncCallback

    assert isinstance(deadline.callback, AsyncCallback)  # of the triggerer: not every executor calls others
    assert deadline.callback.path == "sasrec_deadline.missed_deadline"
    monkeypatch.setenv("SASREC_DEADLINE_HOURS", "six")
    with pytest.raises(BadSettings, match="SASREC_DEADLINE_HOURS='six'"):
        dag_module.make_dag()


def test_prune_and_alert_come_after_any_night_and_fail_none(dag: Any) -> None:
    for name in (LAST, "alert"):
        task = dag.get_task(name)
        assert task.is_teardown  # runs whatever became of the tasks before
        assert not task.on_failure_fail_dagrun
        assert task.outlets == []


def test_nights_do_not_pile_up(dag: Any) -> None:
    assert dag.catchup is False
    assert dag.max_active_runs == 1


def test_each_task_is_documented_and_finite(dag: Any) -> None:
    assert "Re-running is safe" in dag.doc_md
    for task in dag.tasks:
        assert "**Re-running**" in task.doc_md, task.task_id
        waits = task.response_timeout if task.task_id == "approve" else task.execution_timeout
        assert waits is not None, task.task_id


@pytest.mark.parametrize("error", [BadData("x"), BadSettings("x"), GateRefused("x")])
def test_what_a_retry_cannot_help_fails_at_once(dag: Any, error: Exception) -> None:
    from airflow.sdk import RetryAction

    for task in dag.tasks:
        assert task.retry_policy.evaluate(error, 1, 3).action == RetryAction.FAIL


def test_passing_faults_are_tried_again_with_growing_delay(dag: Any) -> None:
    from airflow.sdk import RetryAction

    for task in dag.tasks:
        assert task.retry_policy.evaluate(OSError("disk"), 1, 3).action == RetryAction.DEFAULT
        assert task.retries > 0
        assert task.retry_exponential_backoff > 1


def test_the_form_offers_every_setting_with_its_default(dag: Any) -> None:
    assert {name: dag.params[name] for name in dag.params} == {name: default for name, default, _ in form()}


def test_airflow_takes_no_place_with_a_password(dag: Any) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    for name in PLACES:
        params = copy.deepcopy(dag.params)
        params[name] = "postgresql://host:5432/db?table=x"
        with pytest.raises(ParamValidationError, match=f"param {name}"):
            params[name] = "postgresql://u:s3cr3t@host/db?table=x"


def test_nobody_who_triggers_a_run_can_widen_the_allowed_roots(dag: Any) -> None:
    assert "ingest.allowed_roots" not in dag.params


MIDNIGHT = datetime(2026, 3, 1, tzinfo=UTC)
TRIGGERED = datetime(2026, 3, 5, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("run_type", "interval_end", "expected"),
    [
        ("scheduled", MIDNIGHT, MIDNIGHT),
        ("backfill", MIDNIGHT, MIDNIGHT),
        ("manual", MIDNIGHT, TRIGGERED),
        ("manual", None, TRIGGERED),
        ("asset_triggered", None, TRIGGERED),
    ],
)
def test_as_of_is_the_end_of_the_interval_or_the_moment_of_the_trigger(
    dag_module: Any, run_type: str, interval_end: datetime | None, expected: datetime
) -> None:
    run = SimpleNamespace(run_type=run_type, data_interval_end=interval_end, run_after=TRIGGERED)
    assert dag_module.as_of(run) == expected


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (MIDNIGHT - timedelta(hours=6), MIDNIGHT, timedelta(hours=6)),
        (MIDNIGHT, MIDNIGHT, timedelta(days=1)),  # as Airflow makes it of a cron string, by default
        (None, None, timedelta(days=1)),
    ],
)
def test_a_night_is_of_the_day_before_it_unless_the_schedule_says_otherwise(
    dag_module: Any, start: datetime | None, end: datetime | None, expected: timedelta
) -> None:
    run = SimpleNamespace(data_interval_start=start, data_interval_end=end)
    assert dag_module.data_interval(run) == expected


def test_the_whole_dag_runs(airflow: Any, finished: subprocess.CompletedProcess[str]) -> None:
    assert finished.returncode == 0, finished.stdout + finished.stderr
    runs = airflow.query(
        "SELECT run_id, state FROM dag_run WHERE dag_id = 'sasrec_nightly' AND state = 'success'"
    )
    assert len(runs) == 1
    states = airflow.query(
        f"SELECT task_id, state FROM task_instance WHERE dag_id = 'sasrec_nightly' AND run_id = '{runs[0][0]}'"
    )
    states_of = dict.fromkeys((*TASKS, LAST, "ask"), "success")
    assert dict(states) == {**states_of, "approve": "skipped", REFIT: "skipped", "alert": "skipped"}
    settings = json.loads((airflow.home / "runs" / runs[0][0] / "settings.json").read_text())
    assert settings["train.epochs"] == 2
    assert settings["as_of"] is not None
    lengths = airflow.query("SELECT task_id, key, length(value) FROM xcom WHERE dag_id = 'sasrec_nightly'")
    assert {task for task, key, _ in lengths if key == "return_value"} == {*TASKS, LAST}
    assert [each for each in lengths if each[2] > 1500] == []  # a name and a few figures, not data


def test_no_log_of_a_night_names_a_user(airflow: Any, finished: subprocess.CompletedProcess[str]) -> None:
    file = next((airflow.home / "runs").glob("*/split/users.parquet"))
    users = pq.read_table(file)["USER_ID"].to_pylist()
    assert len(users) == 300
    logs = [file.read_text() for file in (airflow.home / "logs").rglob("*.log")]
    said = "\n".join([finished.stdout, finished.stderr, *logs])
    assert "evaluate: HR@10" in said
    assert [user for user in users if user in said] == []


def test_the_log_of_each_task_says_in_ten_lines_what_came_of_it_and_where_that_is(
    airflow: Any, finished: subprocess.CompletedProcess[str]
) -> None:
    found = re.findall(r"\] (\w+): (.*?) *\[sasrec_tasks\.", finished.stdout + finished.stderr)
    ((run,),) = airflow.query(
        "SELECT run_id FROM dag_run WHERE dag_id = 'sasrec_nightly' ORDER BY id LIMIT 1"
    )
    folder = f"{airflow.home}/runs/{run}"
    assert ("ingest", f"run {run} is in {folder}") in found
    for task in TASKS:
        lines = [line for name, line in found if name == task]
        assert 1 <= len(lines) <= 10, lines
        assert f"; {folder}/{task}" in lines[-1], lines
    said = dict(found)  # the last of each
    assert said["ingest"].startswith("9,000 rows in 1 file(s); ")
    assert said["validate"].startswith("0 of 9,000 rows rejected; ")
    assert re.match(r"best epoch [12] of 2, on (cpu|cuda); ", said["train"])
    assert said["export"].startswith("3,000 rows for 300 users; ")
    assert said["prune"].endswith(" MB were freed")


@pytest.mark.usefixtures("finished")
def test_the_asset_event_tells_consumers_what_was_published(airflow: Any) -> None:
    extras = [json.loads(extra) for (extra,) in airflow.query("SELECT extra FROM asset_event")]
    assert len(extras) == 1
    assert extras[0]["table"] == str(airflow.home / "recommendations")
    assert (extras[0]["version"], extras[0]["previous_version"]) == (0, None)
    assert datetime.fromisoformat(extras[0]["as_of"]).tzinfo is not None
    assert extras[0]["rows"] == 3000
    assert 0 <= extras[0]["metrics"]["full.ndcg@10"] <= 1
    assert (airflow.home / "runs" / extras[0]["run_id"] / "export" / "export.json").exists()


@pytest.mark.usefixtures("finished")
def test_source_and_table_are_seen_in_the_assets_view_and_by_lineage_tools(airflow: Any) -> None:
    for table, task, asset in (
        ("task_inlet_asset_reference", "ingest", "sasrec_interactions"),
        ("task_outlet_asset_reference", "export", "sasrec_recommendations"),
    ):
        found = airflow.query(
            f"SELECT name FROM asset JOIN {table} ON asset.id = asset_id"
            f" WHERE dag_id = 'sasrec_nightly' AND task_id = '{task}'"
        )
        assert found == [(asset,)]
    told = json.loads((airflow.home / "lineage.json").read_text())
    assert told["inputs"] == [(airflow.home / "interactions.parquet").as_uri()]
    assert told["outputs"] == [(airflow.home / "recommendations").as_uri()]


@pytest.mark.usefixtures("finished")
def test_a_night_that_the_gate_refused_is_pruned_after_and_stays_failed(airflow: Any) -> None:
    old = airflow.home / "runs" / "old"
    old.mkdir()
    settings = {"source": "x", "store": str(old.parent), "table": str(airflow.home / "recommendations")}
    (old / "settings.json").write_text(json.dumps(settings))
    os.utime(old / "settings.json", (0, 0))
    done = airflow.test_run({"train.epochs": 1, "train.learning_rate": 1e-9})
    assert done.returncode != 0
    state, states = last_run(airflow)
    assert (state, states["gate"], states["export"]) == ("failed", "failed", "upstream_failed")
    assert states[REFIT] == "upstream_failed"
    assert states["prune"] == "success"
    assert not old.exists()
    ((told,),) = airflow.query(
        "SELECT value FROM xcom WHERE task_id = 'prune' AND key = 'return_value' ORDER BY dag_run_id DESC LIMIT 1"
    )
    assert json.loads(told)["runs"] == {"removed": 1, "kept": 2}  # how many, as there may be hundreds


def last_run(airflow: Any) -> tuple[str, dict[str, str]]:
    """State of the last run of the nightly DAG, and of its tasks."""
    state, run_id = airflow.query(
        "SELECT state, run_id FROM dag_run WHERE dag_id = 'sasrec_nightly' ORDER BY id DESC LIMIT 1"
    )[0]
    found = airflow.query(f"SELECT task_id, state FROM task_instance WHERE run_id = '{run_id}'")
    return state, dict(found)


@pytest.mark.usefixtures("finished")
def test_a_night_with_refit_publishes_what_it_left(airflow: Any) -> None:
    table = str(airflow.home / "refitted")
    conf = json.dumps({"train.epochs": 2, "gate.force_publish": True, "refit.enabled": True})
    done = airflow.run("dags", "test", "sasrec_nightly", "--conf", conf, SASREC_TABLE=table)
    assert done.returncode == 0, done.stdout + done.stderr
    state, states = last_run(airflow)
    assert (state, states[REFIT], states["export"]) == ("success", "success", "success")
    published = next(open_tables(table).published())
    marker = json.loads((airflow.home / "runs" / published.run_id / "refit" / "_SUCCESS").read_text())
    assert published.metadata["model"] == marker["files"]["model.safetensors"]["sha256"]
    assert published.metadata["gated_model"] == marker["summary"]["gated_model"]


@pytest.mark.usefixtures("finished")
def test_the_digest_describes_the_published_version(airflow: Any) -> None:
    done = airflow.test_run({}, "recommendations_digest")
    assert done.returncode == 0, done.stdout + done.stderr
    digest = json.loads((airflow.home / "recommendations_digest" / "0.json").read_text())
    assert (digest["users"], digest["rows"], digest["previous_version"]) == (300, 3000, None)


@pytest.mark.usefixtures("finished")
def test_a_second_table_is_reached_by_a_connection_and_both_are_rolled_back(
    airflow: Any, postgres: str
) -> None:
    address = postgres.replace("postgres:@", "postgres:s3cr3t@")
    tables = f"{airflow.home}/recommendations, connection:warehouse?table=shop_top"
    environment = {"SASREC_TABLE": tables, "AIRFLOW_CONN_WAREHOUSE": address}
    conf = json.dumps({"train.epochs": 2, "gate.force_publish": True})
    for version in (1, 2):
        done = airflow.run("dags", "test", "sasrec_nightly", "--conf", conf, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        rows = open_tables(f"{postgres}&table=shop_top").rows(version - 1).read_all()
        first = open_tables(f"{airflow.home}/recommendations").rows(version).read_all()
        assert rows.num_rows == 3000
        assert rows.equals(first)
    assert not [
        file for file in airflow.home.rglob("*.json") if b"s3cr3t" in file.read_bytes() and file.is_file()
    ]

    done = airflow.run("dags", "test", "sasrec_rollback", **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    back = [
        next(open_tables(url).published()) for url in (tables.split(",")[0], f"{postgres}&table=shop_top")
    ]
    assert [found.version for found in back] == [3, 2]
    assert len({found.run_id for found in back}) == 1
    assert back[0].run_id == first_run(airflow, 1)

    extras = [json.loads(extra) for (extra,) in airflow.query("SELECT extra FROM asset_event ORDER BY id")]
    assert len({frozenset(extra) for extra in extras}) == 1  # one set of facts, of publishes and rollbacks
    told = {
        name: extras[-1][name]
        for name in ("version", "previous_version", "run_id", "instead_of", "rows", "users")
    }
    assert told == {
        "version": 3,
        "previous_version": 2,
        "run_id": back[0].run_id,
        "instead_of": extras[-2]["run_id"],
        "rows": 3000,
        "users": 300,
    }
    assert extras[-1]["table"] == extras[-2]["table"]
    assert extras[-1]["metrics"].keys() == extras[-2]["metrics"].keys()

    done = airflow.run("dags", "test", "recommendations_digest", **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    digest = json.loads((airflow.home / "recommendations_digest" / "3.json").read_text())
    assert {name: digest[name] for name in ("version", "previous_version", "run_id")} == {
        name: told[name] for name in ("version", "previous_version", "run_id")
    }


@pytest.mark.parametrize("dag", ["sasrec_rollback", "recommendations_digest", "recommendations_upsert"])
@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "table: not set: name the folder or URL of the recommendations in the Variable sasrec_table"),
        ("connection:nowhere?table=top", "there is no connection 'nowhere'"),
    ],
)
def test_what_is_not_set_is_told_in_a_sentence(airflow: Any, dag: str, table: str, message: str) -> None:
    places = {"SASREC_TABLE": table, "SASREC_UPSERT_TO": "connection:elsewhere?table=top"}
    done = airflow.run("dags", "test", dag, **places)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert "KeyError: 'SASREC_TABLE'" not in done.stdout + done.stderr


@pytest.mark.usefixtures("finished")
def test_the_upsert_brings_a_table_of_a_database_up_to_what_is_served(airflow: Any, postgres: str) -> None:
    def upserted(**environment: str) -> dict[str, Any] | None:
        done = airflow.run("dags", "test", "recommendations_upsert", **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        found = airflow.query(
            "SELECT value FROM xcom WHERE dag_id = 'recommendations_upsert' AND key = 'return_value'"
            " ORDER BY dag_run_id DESC LIMIT 1"
        )
        value = json.loads(found[0][0]) if found else None
        told: dict[str, Any] | None = json.loads(value) if isinstance(value, str) else value
        return told

    assert upserted() is None  # sasrec_upsert_to is not set
    to = {"SASREC_UPSERT_TO": "connection:shop?table=upserted", "AIRFLOW_CONN_SHOP": postgres}
    table = Recommendations(str(airflow.home / "recommendations"))
    assert upserted(**to) == {"version": table.version, "since": None, "users": 300, "rows": 3000}
    with dbapi.connect(postgres) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT user_id, rank, item_id FROM upserted ORDER BY user_id, rank")
        found = cursor.fetchall()
    expected = table.to_pandas().sort_values(["USER_ID", "RANK"])[["USER_ID", "RANK", "ITEM_ID"]]
    assert sorted(found) == list(expected.itertuples(index=False, name=None))
    again = {"version": table.version, "since": table.version, "users": 0, "rows": 0}
    assert upserted(**to) == again


def first_run(airflow: Any, version: int) -> str:
    return str(open_tables(f"{airflow.home}/recommendations").rows(version).read_all()["RUN_ID"][0].as_py())


def test_a_value_out_of_bounds_is_refused_before_the_run_starts(airflow: Any) -> None:
    before = airflow.query("SELECT count(*) FROM dag_run")
    done = airflow.test_run({"train.epochs": 0})
    assert done.returncode != 0
    assert "train.epochs" in done.stdout + done.stderr
    assert "minimum of 1" in done.stdout + done.stderr
    assert airflow.query("SELECT count(*) FROM dag_run") == before


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"epochs": 3, "x" * 10_000: 1}, "epochs: no such setting, did you mean train.epochs?"),
        ({"source": "/etc/passwd"}, "source='/etc/passwd': outside the allowed roots"),
    ],
)
def test_a_conf_that_must_not_be_fails_the_first_task_without_a_retry(
    airflow: Any, conf: dict[str, Any], message: str
) -> None:
    done = airflow.test_run(conf)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    last = "SELECT run_id FROM dag_run WHERE dag_id = 'sasrec_nightly' ORDER BY id DESC LIMIT 1"
    states = dict(airflow.query(f"SELECT task_id, state FROM task_instance WHERE run_id = ({last})"))
    assert states["ingest"] == "failed"
    assert states["export"] == "upstream_failed"
    assert states["prune"] == "skipped"  # nothing was begun
    ((told,),) = airflow.query(f"SELECT value FROM xcom WHERE key = 'failure' AND run_id = ({last})")
    assert message in told
    assert len(json.loads(told)) <= LONGEST


def test_no_dag_file_has_import_errors(airflow: Any) -> None:
    done = airflow.run("dags", "list-import-errors")
    assert done.returncode == 0, done.stdout
