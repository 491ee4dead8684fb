"""The last step: what is old goes, what is needed stays, and a kill half way does no harm."""

from __future__ import annotations

import itertools
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sasrec_tasks import pipeline, run_folders, runs, trained
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.config import Prune
from sasrec_tasks.errors import BadSettings, GateRefused
from sasrec_tasks.naming import from_names
from sasrec_tasks.prune import prune
from sasrec_tasks.rollback import roll_back
from sasrec_tasks.tables import open_tables

QUICK = {"gate.force_publish": True, "train.epochs": 1}
LATER = datetime.now(UTC) + timedelta(days=100)
SHORT = Prune(keep_versions=2, keep_days=0)


def age(folder: Path, days: float = 100) -> None:
    """Make all files of a folder look so old."""
    moment = time.time() - days * 86_400
    for file in folder.rglob("*"):
        os.utime(file, (moment, moment))


def listing(folder: Path) -> dict[str, tuple[int, float]]:
    return {str(f): (f.stat().st_size, f.stat().st_mtime) for f in folder.rglob("*") if f.is_file()}


def runs_in(place: Any) -> set[str]:
    return {folder.name for folder in Path(place.store).iterdir()}


def test_nights_go_on_from_what_is_kept(place: Any) -> None:
    warm = {**QUICK, "train.cold_start_every": 7}
    for month, run_id in enumerate("abcd", 1):
        place.run(run_id, {**warm, "as_of": f"2026-0{month}-01"})
    report = prune(place.table, place.store, SHORT, now=LATER)
    assert runs_in(place) == {"c", "d"}
    assert report.runs == {
        "a": "",
        "b": "",
        "c": f"{place.table} keeps its rows",
        "d": f"{place.table} keeps its rows",
    }
    assert report.bytes > 100_000
    for kept in open_tables(place.table).kept():
        run = RunStore.of(place.store, kept.run_id)
        trained.model(run, run.settings())

    night = place.run("e", {**warm, "as_of": "2026-05-01"})
    assert night.read_json("gate", "verdict.json")["champion"]["run_id"] == "d"
    assert night.marker("train").summary["warm_start"]["run_id"] == "d"

    with pytest.raises(BadSettings, match=r"version 1 is not kept any more, its rows were pruned"):
        roll_back(place.table, version=1)
    with pytest.raises(BadSettings, match=r"run 'a' is not kept any more, its rows were pruned"):
        roll_back(place.table, run_id="a")
    assert roll_back(place.table, run_id="c")["run_id"] == "c"
    night = place.run("f", {**warm, "as_of": "2026-06-01"})
    assert night.read_json("gate", "verdict.json")["champion"]["run_id"] == "c"
    assert runs.read(f"{place.table}_runs")["RUN_ID"].to_pylist() == list("abcdef")


def test_a_rollback_to_the_publish_before_says_that_it_was_pruned(place: Any) -> None:
    for month, run_id in enumerate("abc", 1):
        place.run(run_id, {**QUICK, "as_of": f"2026-0{month}-01"})
    roll_back(place.table)
    prune(place.table, place.store, SHORT, now=LATER)
    with pytest.raises(BadSettings, match=r"version 0 is not kept any more, its rows were pruned \(prune\."):
        roll_back(place.table)
    assert roll_back(place.table, run_id="c")["run_id"] == "c"


@pytest.fixture
def folders(place: Any) -> Any:
    """Runs that were begun long ago, each with something that matters; see the test."""
    for run_id in ("old", "recent", "this", "at-work", "killed", "broken"):
        place.start(run_id)
    place.start("of-another", {"table": f"{place.table}2"})
    store = Path(place.store)
    (store / "not-a-run").mkdir()
    (store / "not-a-run" / "notes.txt").write_text("")
    (store / ".runs").mkdir()
    (store / ".runs" / "row.parquet").write_text("")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for run_id, pid in (("at-work", os.getpid()), ("killed", ended.pid)):
        (store / run_id / f".train.{socket.gethostname()}.{pid}.abc").mkdir()
    (store / "broken" / "settings.json").write_text("{")
    age(store)
    (store / "recent" / "train").mkdir()
    (store / "recent" / "train" / "checkpoint").write_text("")
    return place


def test_runs_that_may_be_at_work_or_are_not_ours_stay(folders: Any) -> None:
    report = prune(folders.table, folders.store, Prune(), current="this")
    assert {run_id for run_id, why in report.runs.items() if not why} == {"old", "killed"}
    assert report.runs["recent"] == "changed in the last 30 days"
    assert report.runs["this"] == "it is this run"
    assert report.runs["at-work"] == "a task of it is at work"
    assert "another table" in report.runs["of-another"]
    assert "settings can't be read" in report.runs["broken"]
    assert runs_in(folders) == {
        "recent", "this", "at-work", "of-another", "broken", "not-a-run", ".runs"
    }  # fmt: skip


def test_nothing_goes_when_it_is_off(folders: Any) -> None:
    before = listing(Path(folders.store))
    report = prune(folders.table, folders.store, Prune(keep_days=None, keep_runs_days=None))
    assert all(report.runs.values())
    assert listing(Path(folders.store)) == before


def test_a_dry_run_says_the_same_and_changes_nothing(place: Any) -> None:
    for month, run_id in enumerate("abc", 1):
        place.run(run_id, {**QUICK, "as_of": f"2026-0{month}-01"})
    before = listing(place.folder)
    told = prune(place.table, place.store, SHORT.model_copy(update={"dry_run": True}), now=LATER)
    assert listing(place.folder) == before
    done = prune(place.table, place.store, SHORT, now=LATER)
    assert (done.tables, done.runs, done.bytes) == (told.tables, told.runs, told.bytes)
    assert [run_id for run_id, why in done.runs.items() if not why] == ["a"]


def test_runs_of_a_table_that_is_not_there_stay(place: Any) -> None:
    place.run("a", QUICK)
    Path(place.table).rename(f"{place.table}.away")
    report = prune(place.table, place.store, SHORT, now=LATER)
    assert "nothing is where the table should be" in report.runs["a"]
    assert runs_in(place) == {"a"}


def test_runs_in_an_object_store_are_removed_alike(tmp_path: Path) -> None:
    store = "memory://prune-test/runs"
    values = {"source": "x", "store": store, "table": str(tmp_path / "table"), "as_of": "2026-01-01"}
    for run_id in ("old", "this"):
        run = RunStore.of(store, run_id)
        run.freeze(from_names(values))
        run.once("ingest", lambda folder: {"written": (folder / "x").write_text("x")}, settings={})
    report = prune(values["table"], store, Prune(), current="this", now=LATER)
    assert report.runs == {"old": "", "this": "it is this run"}
    assert not RunStore.of(store, "old").is_started()
    assert not run.fs.find("/prune-test/runs/old")
    assert RunStore.of(store, "this").folder("ingest")


def test_a_run_that_is_half_removed_has_finished_nothing_and_goes_the_next_time(
    tmp_path: Path, killed_at: Any
) -> None:
    def begun(number: int) -> RunStore:
        run = RunStore.of(str(tmp_path / "runs"), f"run-{number}")
        run.freeze(from_names({"source": "x", "table": str(tmp_path / "table")}))
        for task in ("ingest", "train"):
            run.once(task, lambda folder: {"written": (folder / "x").write_text("x")}, settings={})
        return run

    def kills() -> Iterator[RunStore]:
        for number in itertools.count():
            run = begun(number)
            with killed_at(number) as kill:
                run_folders.remove(run)
            if not kill.happened:
                return
            yield run

    half_removed = list(kills())
    assert len(half_removed) >= 5
    for run in half_removed:
        for task in ("ingest", "train"):
            if run.marker(task):
                run.folder(task)  # checks every file
        assert run.is_started() or not Path(run.root).exists()
    report = prune(str(tmp_path / "table"), str(tmp_path / "runs"), Prune(), now=LATER)
    assert set(report.runs.values()) == {""}
    assert not list((tmp_path / "runs").iterdir())


# As the last step


def test_it_comes_after_a_published_and_after_a_refused_night(place: Any, bad: dict[str, Any]) -> None:
    for run_id, settings in (("good", QUICK), ("bad", {**bad, "as_of": "2026-02-01"})):
        place.start("old")
        age(Path(place.store) / "old")
        store = place.start(run_id, settings)
        if run_id == "good":
            assert pipeline.run_all(store)["published"]
        else:
            with pytest.raises(GateRefused):
                pipeline.run_all(store)
        assert "old" not in runs_in(place)
    assert runs_in(place) == {"good", "bad"}


def test_a_publish_stands_if_it_fails(place: Any, caplog: pytest.LogCaptureFixture) -> None:
    in_the_way = Path(place.store) / "old" / "settings.json" / "file"  # no run's folder looks so
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("")
    age(Path(place.store) / "old")
    with caplog.at_level(logging.WARNING):
        result = pipeline.run_all(place.start("run", QUICK))
    assert result["published"]
    assert "prune: failed, what is published stays so" in caplog.text


# On the command line


def test_the_command_says_what_goes_and_why_the_rest_stays(folders: Any, command: Callable[..., Any]) -> None:
    folders.run("published", QUICK)
    places = ("--store", folders.store, "--table", folders.table)
    before = listing(folders.folder)
    told = command("prune", *places, "--dry-run", "--json")
    assert told.status == 0, told.err
    found = json.loads(told.out)
    assert found["dry_run"] is True
    assert found["runs"]["removed"] == ["killed", "old", "this"]
    assert found["tables"][0]["kept"] == {"published": "it is served"}
    shown = command("prune", *places, "--dry-run")
    assert "would be removed" in shown.out
    assert "it is served" in shown.out
    assert listing(folders.folder) == before

    done = command("prune", *places, "--set", "prune.keep_runs_days=200", "--json")
    assert json.loads(done.out)["runs"]["removed"] == []
    assert "removed" in command("prune", *places).out
    assert {"old", "this", "killed"}.isdisjoint(runs_in(folders))
    assert command("prune", "--table", folders.table).status == 2
    assert command("prune", *places, "--set", "prune.keep_versions=1").status == 2
