"""What Airflow's scheduler does with the DAG: a backfill of past nights, a run that is cleared, a person's answer.

The nights before are run by `pipeline`, each when no more had arrived than had by then.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from sasrec_tasks import pipeline, runs
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.config import PLACES
from sasrec_tasks.naming import from_names
from sasrec_tasks.rollback import roll_back
from sasrec_tasks.tables import Recommendations

LEARNED = {
    "train.epochs": 6,
    "train.hidden_units": 16,
    "train.max_len": 20,
    "train.learning_rate": 0.01,
    "train.device": "cpu",
    "evaluate.bootstrap_samples": 200,
    "gate.tolerance": 1.0,  # the nights are too small for one to be surely as good as the one before
}
FIRST = datetime(2026, 1, 2, 2, tzinfo=UTC)
NIGHTS = [FIRST + timedelta(days=day) for day in range(4)]
PAST = NIGHTS[:3]  # those that are filled in again, once the last has published


@pytest.fixture(scope="module")
def nights(real_airflow: Any, chains: Callable[..., pa.Table]) -> None:
    """Four nights, each published on what had arrived by then."""
    environment = real_airflow.environment
    places = {name: environment[f"SASREC_{name.upper()}"] for name in PLACES}
    for as_of, events in zip(NIGHTS, days(chains(users=100)), strict=True):
        arrived = as_of.date() - timedelta(days=1)
        file = Path(places["source"]) / f"date={arrived}" / "events.parquet"
        file.parent.mkdir(parents=True)
        events.to_parquet(file, index=False)
        store = pipeline.start(from_names({**LEARNED, **places, "as_of": as_of}), f"night-{arrived}")
        assert pipeline.run_all(store)["published"]


def days(events: pa.Table) -> list[pd.DataFrame]:
    """The events by the day on which they arrive; of the last day, some are as old as the first."""
    frame = events.to_pandas().sort_values("TIMESTAMP", kind="stable", ignore_index=True)
    share = np.arange(len(frame)) / len(frame)
    day = np.searchsorted([0.55, 0.7, 0.85], share, side="right")
    frame["TIMESTAMP"] = int((FIRST - timedelta(hours=26)).timestamp()) + 86_400 * day + np.arange(len(frame))
    late = (day == 3) & (frame.index % 5 == 0)
    frame.loc[late, "TIMESTAMP"] -= 3 * 86_400
    return [frame[day == each] for each in range(4)]


@pytest.fixture(scope="module")
def running_airflow(real_airflow: Any, nights: None) -> Iterator[Any]:
    """Airflow at work, asked to fill in the past nights again."""
    real_airflow.command(  # before the others write: SQLite would tell it that it came too late
        *("backfill", "create", "--dag-id", real_airflow.dag, "--max-active-runs", "3"),
        *("--from-date", f"{PAST[0]:%Y-%m-%d}", "--to-date", f"{PAST[-1]:%Y-%m-%dT%H:%M}"),
        *("--dag-run-conf", json.dumps(LEARNED)),
    )
    with real_airflow.at_work():
        yield real_airflow


@pytest.fixture(scope="module")
def filled_in(running_airflow: Any) -> dict[datetime, str]:
    """The runs of the backfill, once they have ended, by their `as_of`."""
    found = {run for run in running_airflow.runs() if run.startswith("backfill__")}
    assert len(found) == len(PAST), found
    running_airflow.succeeded(*found)
    return {as_of: run for run in found if (as_of := store_of(running_airflow, run).settings().as_of)}


def store_of(airflow: Any, run: str) -> RunStore:
    return RunStore.of(airflow.environment["SASREC_STORE"], run)


def served(airflow: Any) -> Recommendations:
    return Recommendations(airflow.environment["SASREC_TABLE"])


def rows_of(recommendations: Recommendations) -> pd.DataFrame:
    """All rows but for the name of the run that made them."""
    return (
        recommendations.to_pandas().drop(columns="RUN_ID").sort_values(["USER_ID", "RANK"], ignore_index=True)
    )


def ending(airflow: Any, run: str) -> dict[str, Any]:
    """What the table of runs says of a run."""
    found = runs.read(f"{airflow.environment['SASREC_TABLE']}_runs").to_pylist()
    (row,) = [row for row in found if row["RUN_ID"] == run]
    return dict(row)


def told(airflow: Any) -> list[dict[str, Any]]:
    """The events of the Asset."""
    found: list[dict[str, Any]] = airflow.ask("GET", "assets/events?limit=100&order_by=timestamp")[
        "asset_events"
    ]
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, but for locks."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.suffix != ".lock"
    }


# A backfill


def test_each_night_that_is_filled_in_gives_what_it_had_given(
    running_airflow: Any, filled_in: dict[datetime, str]
) -> None:
    assert set(filled_in) == set(PAST)
    for version, as_of in enumerate(PAST):
        store = store_of(running_airflow, filled_in[as_of])
        assert store.settings().data_interval_start == as_of - timedelta(days=1)
        own = Recommendations(f"parquet+{store.uri}/export")
        then = Recommendations(running_airflow.environment["SASREC_TABLE"], version=version)
        assert (own.as_of, own.run_id) == (then.as_of, store.run_id)
        pd.testing.assert_frame_equal(rows_of(own), rows_of(then), check_exact=True)
        pd.testing.assert_frame_equal(
            own.popular().drop(columns="RUN_ID"), then.popular().drop(columns="RUN_ID"), check_exact=True
        )


def test_a_night_that_is_filled_in_replaces_nothing_and_says_so(
    running_airflow: Any, filled_in: dict[datetime, str]
) -> None:
    now = served(running_airflow)
    assert (now.version, now.as_of) == (len(NIGHTS) - 1, NIGHTS[-1])
    for run in filled_in.values():
        states = running_airflow.tasks(run)
        assert (states["gate"], states["export"], states["prune"]) == ("success", "skipped", "success")
        found = ending(running_airflow, run)
        assert (found["ENDING"], found["VERSION"]) == ("superseded", None)
        log = running_airflow.log(run, "export")
        assert "holds a newer run" in log
        assert f"parquet+{store_of(running_airflow, run).uri}/export" in log


# A person's answer


ASKS = {**LEARNED, "gate.ask_overlap": 1.0}
ASKED = NIGHTS[-1] + timedelta(hours=1)


def waiting(airflow: Any, *, as_of: datetime, random_state: int) -> tuple[str, dict[str, Any]]:
    """A run that waits for a person, and what it asks."""
    run = airflow.trigger({**ASKS, "as_of": as_of.isoformat(), "train.random_state": random_state})
    airflow.wait(f"the question of {run}", lambda: airflow.tasks(run)["approve"] == "awaiting_input")
    asked = airflow.ask("GET", f"dags/{airflow.dag}/dagRuns/{run}/taskInstances/approve/-1/hitlDetails")
    assert airflow.tasks(run)["export"] is None
    return run, asked


def answer(airflow: Any, run: str, option: str) -> None:
    airflow.ask(
        "PATCH",
        f"dags/{airflow.dag}/dagRuns/{run}/taskInstances/approve/-1/hitlDetails",
        {"chosen_options": [option], "params_input": {}},
    )


@pytest.fixture(scope="module")
def approved(running_airflow: Any, filled_in: dict[datetime, str]) -> str:
    """A run that asked a person, who let it publish."""
    before = served(running_airflow).version
    run, asked = waiting(running_airflow, as_of=ASKED, random_state=1)
    assert asked["options"] == ["Publish", "Leave the table as it is"]
    assert run in asked["subject"]
    assert "overlap" in asked["body"]
    assert served(running_airflow).version == before
    answer(running_airflow, run, "Publish")
    running_airflow.succeeded(run)
    return run


def test_what_a_person_approves_is_published(running_airflow: Any, approved: str) -> None:
    now = served(running_airflow)
    assert (now.run_id, now.version) == (approved, len(NIGHTS))
    assert running_airflow.tasks(approved)["export"] == "success"
    given = json.loads((Path(store_of(running_airflow, approved).root) / "approval.json").read_text())
    assert (given["approved"], given["by"]) == (True, "ann")


def test_what_a_person_does_not_approve_is_not_published(running_airflow: Any, approved: str) -> None:
    run, asked = waiting(running_airflow, as_of=NIGHTS[-1] + timedelta(hours=2), random_state=2)
    (default,) = asked["defaults"]  # what no answer in time would choose
    answer(running_airflow, run, default)
    assert running_airflow.ended(run) == {run: "failed"}
    assert served(running_airflow).run_id == approved
    found = ending(running_airflow, run)
    assert (found["ENDING"], found["VERSION"]) == ("refused", None)
    assert "the table is left as it is: ann did not approve: overlap" in found["REASON"]
    assert "ann did not approve" in running_airflow.log(run, "export")


# A run that is cleared


@pytest.fixture(scope="module")
def repeated(running_airflow: Any, approved: str) -> str:
    """A second run of the night whose publish was approved, which has replaced it."""
    assert served(running_airflow).run_id == approved
    run: str = running_airflow.trigger({**LEARNED, "as_of": ASKED.isoformat(), "train.random_state": 3})
    running_airflow.succeeded(run)
    assert served(running_airflow).run_id == run
    return run


def clear(airflow: Any, *cleared: str) -> None:
    """Clear all tasks of runs, and wait until they have ended again."""
    for run in cleared:
        body = {"dry_run": False, "only_failed": False, "reset_dag_runs": True, "dag_run_id": run}
        airflow.ask("POST", f"dags/{airflow.dag}/clearTaskInstances", body)
    airflow.succeeded(*cleared)


def traces(airflow: Any, *of: str) -> dict[str, Any]:
    """All that runs have left: files, rows in the table of runs, what is served, what consumers were told."""
    return {
        "files": [contents(Path(store_of(airflow, run).root)) for run in of],
        "rows": [ending(airflow, run) for run in of],
        "version": served(airflow).version,
        "events": told(airflow),  # consumers do not run again
    }


def test_clearing_runs_that_have_ended_changes_nothing(
    running_airflow: Any, filled_in: dict[datetime, str], approved: str, repeated: str
) -> None:
    cleared = [approved, repeated, filled_in[PAST[-1]]]
    before = traces(running_airflow, *cleared)
    assert {approved, repeated} <= {event["extra"]["run_id"] for event in before["events"]}
    late = Path(running_airflow.environment["SASREC_SOURCE"]) / f"date={PAST[-1].date()}" / "events.parquet"
    mended = pd.read_parquet(late).iloc[:-1]
    mended.to_parquet(late, index=False)
    clear(running_airflow, *cleared)
    assert traces(running_airflow, *cleared) == before
    assert running_airflow.tasks(approved)["approve"] == "skipped"  # nobody is asked twice
    assert "nothing to do" in running_airflow.log(approved, "train")


# (of all tasks, without a scheduler: tests/test_pipeline.py)
@pytest.mark.parametrize("task", ["gate", "ask", "refit", "export", "prune"])
def test_clearing_a_run_that_has_ended_from_any_task_on_changes_nothing(
    running_airflow: Any, approved: str, task: str
) -> None:
    folder = Path(store_of(running_airflow, approved).root)

    def there() -> list[Any]:
        states = {**running_airflow.tasks(approved), "approve": ""}  # which has been, or is skipped by now
        table = (served(running_airflow).version, ending(running_airflow, approved))
        return [contents(folder), table, told(running_airflow), states]

    before = there()
    body = {
        "dry_run": False,
        "only_failed": False,
        "reset_dag_runs": True,
        "dag_run_id": approved,
        "task_ids": [task],
        "include_downstream": True,
    }
    running_airflow.ask("POST", f"dags/{running_airflow.dag}/clearTaskInstances", body)
    running_airflow.succeeded(approved)
    assert there() == before


def test_clearing_a_backfill_after_a_rollback_publishes_nothing(
    running_airflow: Any, filled_in: dict[datetime, str]
) -> None:
    run = filled_in[PAST[-1]]
    champion = store_of(running_airflow, run).read_json("gate", "verdict.json")["champion"]
    assert champion["run_id"] == f"night-{PAST[-2].date() - timedelta(days=1)}"  # not that night itself
    roll_back(
        running_airflow.environment["SASREC_TABLE"], run_id=f"night-{PAST[0].date() - timedelta(days=1)}"
    )
    before = traces(running_airflow, run)
    clear(running_airflow, run)
    assert traces(running_airflow, run) == before
    assert running_airflow.tasks(run)["export"] == "skipped"
