"""A user is forgotten: in the table, in every file of the store, tomorrow, and whenever it was killed."""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sasrec_tasks import forgotten, pipeline, runs
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.contract import checked
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.forget import forget
from sasrec_tasks.mentions import Mentions
from sasrec_tasks.report import content, page
from sasrec_tasks.rollback import roll_back
from sasrec_tasks.tables import Recommendations, open_tables
from sasrec_tasks.terminal import report as shown
from sasrec_tasks.traces import in_folders

USER = "user 99"  # the last in the order of ids, so that statistics name it
QUICK = {"gate.force_publish": True, "train.epochs": 1, "validate.max_rejected_share": 0.5}


def files_that_hold(folder: Path, user: str) -> list[str]:
    """By other means than those that are tested: DuckDB reads parquet, all else is searched byte by byte."""
    found = []
    for file in (file for file in folder.rglob("*") if file.is_file()):
        held = user.encode() in file.read_bytes()
        if file.suffix == ".parquet":
            with duckdb.connect() as db:
                rows = db.execute("SELECT t::VARCHAR FROM read_parquet(?) AS t", [str(file)]).fetchall()
                said = db.execute("SELECT p::VARCHAR FROM parquet_metadata(?) AS p", [str(file)]).fetchall()
            held |= any(
                f"{user}'" in text or f"{user}," in text or f"{user}}}" in text for (text,) in rows + said
            )
        if held:
            found.append(str(file.relative_to(folder)))
    return found


def nights(place: Any, *, months: tuple[int, ...] = (1, 2), **settings: Any) -> None:
    """Nights of which each begins warm, a later run of an earlier date, and one that has failed with a reason."""
    events = pq.read_table(place.source)
    outcome = events["OUTCOME"].to_numpy().copy()
    outcome[:: max(1, len(outcome) // 40)] = np.nan
    outcome[events["USER_ID"].to_pylist().index(USER)] = np.nan
    place.write(events.set_column(2, "OUTCOME", pa.array(outcome)))
    pairs = {
        "USER_ID": [USER, USER, "user 1", "stranger"],
        "ITEM_ID": ["item 1", "item 2", "item 3", "item 0"],
    }
    pq.write_table(pa.table(pairs), place.folder / "pairs.parquet")
    warm = {
        **QUICK,
        "train.cold_start_every": 7,
        "export.excluded_pairs": f"{place.folder}/pairs.parquet",
        **settings,
    }
    for month in months:
        place.run(f"night-{month}", {**warm, "as_of": f"2026-0{month}-01"})
    place.run("backfill", {**warm, "as_of": "2025-12-01"})
    failed = place.run("failed", {**warm, "as_of": "2026-02-02"}, upto="validate")
    reason = f'rows are rejected: USER_ID is odd, for instance snapshot row 1 (of x): "{USER}"'
    runs.record(failed, failed.settings(), task="validate", ending="failed", reason=reason)


def beside(place: Any) -> Path:
    """All that must hold nobody: the source and the pairs are another's."""
    moved: Path = place.folder / "searched"
    shutil.rmtree(moved, ignore_errors=True)
    moved.mkdir()
    for name in ("runs", "table", "table_popular", "table_runs"):
        shutil.copytree(place.folder / name, moved / name)
    return moved


def test_nothing_is_left_and_the_nights_go_on(place: Any, caplog: pytest.LogCaptureFixture) -> None:
    nights(place)
    before = Recommendations(place.table)
    rows = before.to_pandas()
    assert len(before.for_user(USER, popular_if_unknown=False)) == 10
    assert len(files_that_hold(beside(place), USER)) > 12

    with caplog.at_level(logging.DEBUG, "sasrec_tasks"):
        done = forget([USER], table=place.table, store=place.store)
    assert USER not in caplog.text
    assert done.searched.found == ()
    assert done.searched.files > 50
    assert (done.users, done.listed, done.reasons) == (1, 1, 1)
    assert {cleaned.run_id for cleaned in done.runs} == {"night-1", "night-2", "backfill", "failed"}
    assert not any(cleaned.discarded for cleaned in done.runs)
    assert files_that_hold(beside(place), USER) == []

    after = Recommendations(place.table)
    assert (after.version, after.run_id, after.as_of) == (before.version + 1, before.run_id, before.as_of)
    assert len(after.for_user(USER, popular_if_unknown=False)) == 0
    assert after.to_pandas().equals(rows[rows["USER_ID"] != USER].reset_index(drop=True))
    assert (
        sum(len(batch) for batch in checked(open_tables(place.table).rows(after.version))) == len(rows) - 10
    )
    with pytest.raises(
        BadSettings, match=r"version 0 is not kept any more, its rows were removed when 1 user\(s\)"
    ):
        roll_back(place.table)
    backfill = Recommendations(f"parquet+{place.store}/backfill/export")
    assert len(backfill.for_user(USER, popular_if_unknown=False)) == 0
    assert backfill.users() > 90

    for run_id in ("night-1", "night-2", "backfill"):
        run = RunStore.of(place.store, run_id)
        assert USER not in page.run_page(content.read(run))
        assert shown(run)
        finished = {task: run.marker(task).finished_at for task in pipeline.TASKS}  # type: ignore[union-attr]
        for task in pipeline.TASKS:  # cleared: there is nothing to do
            pipeline.run_task(task, run.uri)
        assert finished == {task: run.marker(task).finished_at for task in pipeline.TASKS}  # type: ignore[union-attr]
    assert Recommendations(place.table).version == after.version
    assert runs.read(f"{place.table}_runs")["REASON"].to_pylist().count(None) == 3
    assert in_folders([f"{place.table}_runs"], Mentions([USER])).found == ()

    caplog.clear()
    with caplog.at_level(logging.INFO, "sasrec_tasks"):
        night = place.run(
            "night-3",
            {**QUICK, "train.cold_start_every": 7, "as_of": "2026-03-01",
             "export.excluded_pairs": f"{place.folder}/pairs.parquet"},
        )  # fmt: skip
    assert "rows of users who were forgotten" in caplog.text
    assert USER not in caplog.text
    assert night.marker("ingest").summary["rows_of_forgotten_users"] > 0
    assert night.marker("export").summary["narrowed_by"]["excluded_pairs"]["rows_of_forgotten_users"] == 2
    verdict = night.read_json("gate", "verdict.json")
    assert verdict["champion"]["run_id"] == "night-2"
    assert night.marker("train").summary["warm_start"]["run_id"] == "night-2"
    assert files_that_hold(beside(place), USER) == []
    assert Recommendations(place.table).run_id == "night-3"
    assert roll_back(place.table)["run_id"] == "night-2"
    assert len(Recommendations(place.table).for_user(USER, popular_if_unknown=False)) == 0


@pytest.mark.parametrize("kind", ["parquet", "postgres", "S3"])
def test_it_does_so_in_tables_and_stores_of_every_kind(
    kind: str, place: Any, request: pytest.FixtureRequest
) -> None:
    if kind == "postgres":
        place.table = f"{request.getfixturevalue('postgres')}&table=forgetting"
    elif kind == "parquet":
        place.table = f"parquet+{place.table},{place.folder}/copy"
    else:
        bucket = request.getfixturevalue("bucket")
        place.table, place.store = f"{bucket}/table", f"{bucket}/runs"
    nights(place, months=(1,))
    assert forget([USER], table=place.table, store=place.store, dry_run=True).searched.found
    done = forget([USER], table=place.table, store=place.store)
    assert done.searched.found == ()
    assert len(Recommendations(place.table).for_user(USER, popular_if_unknown=False)) == 0
    assert len(Recommendations(place.table).for_user("user 1", popular_if_unknown=False)) == 10
    for run_id in ("night-1", "backfill"):
        run = RunStore.of(place.store, run_id)
        for task in pipeline.TASKS:
            assert run.folder(task)
    again = forget([USER], table=place.table, store=place.store)
    assert (again.tables, again.runs, again.listed, again.reasons) == ([], [], 0, 0)
    night = place.run("night-2", {**QUICK, "as_of": "2026-02-01"})
    assert night.read_json("gate", "verdict.json")["champion"]["run_id"] == "night-1"
    assert forget([USER], table=place.table, store=place.store, dry_run=True).searched.found == ()


# Whoever is at work


def test_it_waits_for_nobody_a_run_at_work_is_named_and_nothing_is_changed(place: Any) -> None:
    place.run("night", QUICK)
    at_work = Path(place.store) / "night" / f".train.{socket.gethostname()}.{os.getpid()}.abc"
    at_work.mkdir()
    with pytest.raises(
        OSError, match="night: a task of this run is at work on this machine: nothing was changed"
    ):
        forget([USER], table=place.table, store=place.store)
    assert len(Recommendations(place.table).for_user(USER, popular_if_unknown=False)) == 10
    assert not forgotten.read(place.store).holds(USER)


@pytest.mark.parametrize("task", ["ingest", "validate", "split", "evaluate", "gate", "export"])
def test_a_task_that_works_elsewhere_meanwhile_is_told_to_try_again_and_gives_nothing_away(
    task: str, place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.run("before", {**QUICK, "as_of": "2025-12-01"})
    tasks = pipeline.TASKS
    store = (
        place.run("night", QUICK, upto=tasks[tasks.index(task) - 1])
        if task != "ingest"
        else place.start("night", QUICK)
    )
    commit = RunStore._commit
    forgot: list[bool] = []

    def forget_then_commit(self: RunStore, folder: Path, *args: Any, **kwargs: Any) -> Any:
        if not forgot:
            forgot.append(True)
            with monkeypatch.context() as patch:
                patch.setattr(RunStore, "is_at_work", lambda self: False)  # as it would be on another machine
                forget([USER], table=place.table, store=place.store)
        return commit(self, folder, *args, **kwargs)

    monkeypatch.setattr(RunStore, "_commit", forget_then_commit)
    with pytest.raises(OSError, match="try again"):
        pipeline.run_task(task, store.uri)
    assert forgot
    for each in tasks[tasks.index(task) :]:
        pipeline.run_task(each, store.uri)
    done = forget([USER], table=place.table, store=place.store)
    assert done.searched.found == ()
    assert files_that_hold(beside(place), USER) == []


def test_an_export_of_rows_that_were_made_before_is_not_published(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sasrec_tasks.rows import Rows

    store = place.run("night", QUICK, upto="gate")
    batches = Rows.batches

    def forget_meanwhile(self: Rows, *args: Any, **kwargs: Any) -> Any:
        yield from batches(self, *args, **kwargs)
        with monkeypatch.context() as patch:
            patch.setattr(RunStore, "is_at_work", lambda self: False)
            patch.setattr(Rows, "batches", batches)
            forget([USER], table=place.table, store=place.store)

    with monkeypatch.context() as patch:
        patch.setattr(Rows, "batches", forget_meanwhile)
        with pytest.raises(OSError, match="its files were replaced since they were read: try again"):
            pipeline.run_task("export", store.uri)
    assert next(open_tables(place.table).published(), None) is None
    pipeline.run_task("export", store.uri)
    assert len(Recommendations(place.table).for_user(USER, popular_if_unknown=False)) == 0
    assert forget([USER], table=place.table, store=place.store).searched.found == ()


# Killed


class Killed(BaseException):
    pass


def test_killed_anywhere_the_table_is_whole_and_the_next_time_ends_right(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights(place, months=(1,))
    kept = place.folder.parent / f"{place.folder.name}-kept"
    shutil.copytree(place.folder, kept)
    rows = Recommendations(place.table).to_pandas()
    without = rows[rows["USER_ID"] != USER].reset_index(drop=True)
    points = 0
    for number in itertools.count(0, 8):  # tests/faults kills it by SIGKILL, and at more points
        left = itertools.count(number, -1)
        dead: list[bool] = []

        def killing(call: Any, left: Any = left, dead: Any = dead) -> Any:
            def or_killed(*args: Any, **kwargs: Any) -> Any:
                if dead or next(left) <= 0:
                    dead.append(True)
                    raise Killed
                return call(*args, **kwargs)

            return or_killed

        with monkeypatch.context() as patch:
            for name in ("replace", "rename", "unlink", "remove", "rmdir", "fsync"):
                patch.setattr(os, name, killing(getattr(os, name)))
            try:
                forget([USER], table=place.table, store=place.store)
                killed = False
            except Killed:
                killed = True
        served = Recommendations(place.table).to_pandas()
        assert served.equals(rows) or served.equals(without)
        if not killed:
            break
        points += 1
        done = forget([USER], table=place.table, store=place.store)
        assert done.searched.found == (), number
        assert not any(cleaned.discarded for cleaned in done.runs)
        assert Recommendations(place.table).to_pandas().equals(without)
        for run_id in ("night-1", "backfill"):
            run = RunStore.of(place.store, run_id)
            for task in pipeline.TASKS:
                assert run.folder(task)
        for name in ("runs", "table", "table_popular", "table_runs"):
            shutil.rmtree(place.folder / name)
            shutil.copytree(kept / name, place.folder / name)
    assert points >= 5


# On the command line


def test_the_command_prints_what_was_searched_and_found(place: Any, command: Callable[..., Any]) -> None:
    nights(place, months=(1,))
    places = ("--store", place.store, "--table", place.table)
    told = command("forget", "--user", USER, "--dry-run", *places)
    assert told.status == 0, told.err
    assert "interactions.parquet" in told.out.replace("\n", "")
    assert not forgotten.read(place.store).holds(USER)

    done = command("forget", "--user", USER, "--user", "stranger", *places, "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert found["searched"]["found"] == []
    assert found["searched"]["files"] > 20
    assert (found["users"], found["listed"]) == (2, 2)
    assert USER not in done.out + done.err

    again = command("forget", "--user", USER, *places)
    assert again.status == 0
    assert "searched, found 0" in again.out
    assert command("forget", "--user", USER, "--table", place.table).status == 2
    assert command("forget", "--user", USER, "--store", place.store).status == 2
    assert command("forget", "--user", "", *places).status == 2
    assert command("forget", *places).status == 2


def test_what_is_found_where_nothing_is_changed_is_told_with_status_1(
    place: Any, command: Callable[..., Any]
) -> None:
    place.run("night", QUICK)
    (Path(place.store) / "night" / "notes.txt").write_text(f"asked for by {USER}")
    done = command("forget", "--user", USER, "--store", place.store, "--table", place.table)
    assert done.status == 1
    assert "night/notes.txt: its text" in done.out.replace("\n", "")
    assert "searched, found 1" in done.out


def test_other_tables_of_the_store_are_named(place: Any) -> None:
    place.run("night", QUICK)
    place.start("of-another", {"table": f"{place.folder}/other"})
    done = forget([USER], table=place.table, store=place.store)
    assert done.other_tables == [f"{place.folder}/other"]
