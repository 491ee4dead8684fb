"""The table of runs: a row for each, whatever became of it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from sasrec_tasks import runs
from sasrec_tasks.errors import BadData, GateRefused
from sasrec_tasks.pipeline import record_failed, run_all
from sasrec_tasks.rollback import roll_back
from sasrec_tasks.tables import Published, open_tables
from sasrec_tasks.tables.delta import DeltaTables
from sasrec_tasks.tables.parquet import ParquetTables


def written(place: Any) -> dict[str, dict[str, Any]]:
    return {row["RUN_ID"]: row for row in runs.read(f"{place.table}_runs").to_pylist()}


def test_a_published_run_is_written_down_with_all_that_is_known(finished: Any) -> None:
    row = written(finished)["first"]
    assert (row["ENDING"], row["TASK"], row["VERSION"], row["REASON"]) == ("published", "export", 0, None)
    assert row["AS_OF"].isoformat() == "2026-01-01T00:00:00+00:00"
    assert (row["USERS"], row["REJECTED"]) == (100, 0)
    assert row["EVENTS"] == row["ROWS"] > 100
    assert row["NDCG_LOW"] < row["NDCG"] < row["NDCG_HIGH"]
    assert row["NDCG"] > row["POPULARITY_NDCG"]
    tasks = json.loads(row["TASKS"])
    assert list(tasks) == ["ingest", "validate", "split", "train", "evaluate", "gate", "export"]
    assert row["SECONDS"] == pytest.approx(sum(task["seconds"] for task in tasks.values()))
    assert row["PEAK_MB"] == max(task["peak_mb"] for task in tasks.values()) > 50
    assert json.loads(row["SETTINGS"])["train.epochs"] == 6
    assert json.loads(row["METRICS"])["full"]["ndcg@10"] == row["NDCG"]
    assert len(row["DATA"]) == len(row["MODEL"]) == 64


def test_a_run_that_ends_otherwise_says_how_and_why(place: Any, bad: dict[str, Any]) -> None:
    place.run("good")
    with pytest.raises(GateRefused):
        place.run("bad", {**bad, "as_of": "2026-01-02"})
    place.run("old", {"as_of": "2025-12-01", "gate.force_publish": True})
    found = written(place)
    assert (found["bad"]["ENDING"], found["bad"]["TASK"], found["bad"]["VERSION"]) == (
        "refused",
        "gate",
        None,
    )
    assert "popularity" in found["bad"]["REASON"]
    assert found["bad"]["CHAMPION"] == "good"
    assert (found["old"]["ENDING"], found["old"]["VERSION"]) == ("superseded", None)
    assert list(found) == ["old", "good", "bad"]  # in order of as_of

    place.write(pa.table({"USER_ID": ["u"]}))
    with pytest.raises(BadData):
        place.run("broken", {"as_of": "2026-01-03"})
    broken = written(place)["broken"]
    assert (broken["ENDING"], broken["TASK"], broken["ROWS"]) == ("failed", "ingest", None)
    assert "missing column" in broken["REASON"]


def test_the_verdict_is_written_down_and_a_forced_one_is_marked(
    place: Any, bad: dict[str, Any], command: Callable[..., Any]
) -> None:
    store = place.run("run", {**bad, "gate.force_publish": True})
    verdict = json.loads(written(place)["run"]["VERDICT"])
    assert (verdict["passed"], verdict["forced"], verdict["asks"]) == (False, True, [])
    whole = store.read_json("gate", "verdict.json")["rules"]
    assert verdict["rules"] == [{name: of for name, of in rule.items() if name != "reason"} for rule in whole]
    (popularity,) = (rule for rule in verdict["rules"] if rule["rule"] == "popularity")
    assert popularity["outcome"] == "refused"
    assert popularity["figure"] <= popularity["limit"]
    assert "published, 0, forced" in command("history", "--table", place.table).out


def test_a_run_that_the_first_table_serves_is_published_though_the_second_can_not_be_written(
    place: Any, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Any]
) -> None:
    first = place.table
    place.table = f"{first},parquet+{place.folder}/second"

    def dead(*_: object, **__: object) -> None:
        raise ConnectionError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(ParquetTables, "_write", dead)
        with pytest.raises(ConnectionError):
            run_all(place.start("run"))
    assert next(open_tables(first).published()).run_id == "run"
    (row,) = runs.read(f"{first}_runs").to_pylist()
    assert (row["ENDING"], row["TASK"], row["VERSION"]) == ("published", "export", 0)
    assert row["REASON"] == "ConnectionError: no answer"
    assert "published, 0, export failed" in command("history", "--table", first).out
    run_all(place.start("run"))  # once the second answers again
    (row,) = runs.read(f"{first}_runs").to_pylist()
    assert (row["ENDING"], row["VERSION"], row["REASON"]) == ("published", 0, None)
    assert next(open_tables(f"parquet+{place.folder}/second").published()).run_id == "run"


def test_what_can_not_be_read_is_not_called_published(
    place: Any, bad: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(_: DeltaTables) -> Iterator[Published]:
        raise ConnectionResetError("the connection was cut")

    store = place.run("run", bad, upto="evaluate")
    monkeypatch.setattr(DeltaTables, "published", cut_off)
    record_failed(store.uri, {"gate": "ConnectionResetError: the connection was cut"})
    assert written(place)["run"]["ENDING"] == "failed"


def test_a_run_that_is_gone_on_with_has_one_row(place: Any, bad: dict[str, Any]) -> None:
    with pytest.raises(GateRefused):
        place.run("run", bad)
    assert written(place)["run"]["ENDING"] == "refused"
    place.run("run", {**bad, "gate.force_publish": True})
    assert [row["ENDING"] for row in written(place).values()] == ["published"]
    shutil.rmtree(place.store)
    assert list(written(place)) == ["run"]  # it outlives the run's folder


def test_runs_of_a_table_in_a_database_are_kept_in_the_store(place: Any, postgres: str) -> None:
    place.table = f"{postgres}&table=runs_test"
    place.run("run", {"gate.force_publish": True, "train.epochs": 1})
    assert runs.url_of(place.table, place.store) == f"{place.store}/.runs"
    assert runs.read(f"{place.store}/.runs")["RUN_ID"].to_pylist() == ["run"]


def test_a_publish_stands_whatever_becomes_of_its_row(
    place: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Path(f"{place.table}_runs").write_text("in the way")
    place.run("run", {"gate.force_publish": True, "train.epochs": 1})
    assert next(open_tables(place.table).published()).run_id == "run"
    assert "could not be written down" in caplog.text


def test_the_command_prints_them(place: Any, command: Callable[..., Any]) -> None:
    for month in (1, 2):
        place.run(
            f"run-{month}", {"as_of": f"2026-0{month}-01", "gate.force_publish": True, "train.epochs": 1}
        )
    roll_back(place.table)
    shown = command("history", "--table", place.table)
    assert shown.status == 0
    assert "run-1" in shown.out
    assert "run-2" in shown.out
    assert "published, 0" in shown.out
    assert "rolled back, 1" in shown.out
    found = json.loads(command("history", "--table", place.table, "--last", "1", "--json").out)
    assert [(row["RUN_ID"], row["ENDING"]) for row in found] == [("run-2", "rolled back")]

    picture = place.folder / "history.svg"
    assert command("history", "--table", place.table, "--picture", str(picture)).out == shown.out
    assert {"published", "rolled back"} <= set(re.findall(r"<text[^>]*>([^<]+)</text>", picture.read_text()))
    assert command("history", "--table", place.table, "--picture", "history.gif").status == 2
    roll_back(place.table, run_id="run-2")
    assert "rolled back" not in command("history", "--table", place.table).out


def test_a_table_that_is_not_there_has_no_history(place: Any, command: Callable[..., Any]) -> None:
    ended = command("history", "--table", place.table)
    assert (ended.status, ended.out) == (2, "")
    assert f"table={place.table!r}: no run is written down there" in ended.err


def test_a_run_that_had_ended_and_is_done_again_keeps_its_row(place: Any) -> None:
    url = f"{place.table}_runs"
    settings = {"gate.force_publish": True, "train.epochs": 1}
    place.run("run", settings)
    before, version = runs.read(url), DeltaTable(url).version()
    place.run("run", settings)
    assert runs.read(url).equals(before)
    assert DeltaTable(url).version() == version


def test_rows_that_are_written_at_once_are_all_there_and_once(place: Any, finished: Any) -> None:
    url = f"{place.table}_runs"
    row = {**written(finished)["first"], "REASON": None}
    names = ["one", "one", "two", "three"]

    def write(name: str) -> None:
        runs._upsert(url, {**row, "RUN_ID": name})

    with ThreadPoolExecutor(len(names)) as threads:
        list(threads.map(write, names))
    assert sorted(found["RUN_ID"] for found in runs.read(url).to_pylist()) == ["one", "three", "two"]


def test_files_of_older_versions_and_of_killed_writers_go_and_all_rows_stay(tmp_path: Path) -> None:
    url = str(tmp_path / "table_runs")
    for version in range(3):
        row = dict.fromkeys(runs.RUNS.names) | {
            "RUN_ID": f"run {version}",
            "ENDING": "published",
            "TASK": "export",
        }
        row |= {"AS_OF": datetime.now(UTC), "FINISHED_AT": datetime.now(UTC), "SETTINGS": "{}"}
        runs._upsert(url, row)
    (tmp_path / "table_runs" / "part-00000-killed.parquet").write_text("half")
    (tmp_path / "table_runs" / "part-00000-killed.parquet#1").write_text("half")
    files = {path.name for path in (tmp_path / "table_runs").iterdir()}
    now = datetime.now(UTC)
    assert runs.remove_leftovers(url, left_alone=now - timedelta(days=2), dry_run=False) == 0
    long_ago = (now - timedelta(days=9)).timestamp()
    for path in (tmp_path / "table_runs").glob("*killed*"):
        os.utime(path, (long_ago, long_ago))
    assert runs.remove_leftovers(url, left_alone=now - timedelta(days=2), dry_run=True) == 8
    assert runs.remove_leftovers(url, left_alone=now - timedelta(days=2), dry_run=False) == 8
    left = {path.name for path in (tmp_path / "table_runs").iterdir()}
    assert left == {name for name in files if "killed" not in name}
    assert runs.read(url)["RUN_ID"].to_pylist() == ["run 0", "run 1", "run 2"]
    assert runs.remove_leftovers(str(tmp_path / "nowhere"), left_alone=now, dry_run=False) == 0
