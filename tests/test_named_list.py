"""Whoever was forgotten stays so in a table, whichever store the next run is of."""

from __future__ import annotations

import copy
import logging
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pytest

from sasrec_tasks import forgotten, named_list, pipeline
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.forget import forget
from sasrec_tasks.rollback import roll_back
from sasrec_tasks.rows import Rows
from sasrec_tasks.tables import OtherList, Published, Recommendations, open_tables
from sasrec_tasks.tables.protocol import FORGOTTEN_LIST

USER, SECOND = "user 99", "user 98"
QUICK = {"gate.force_publish": True, "train.epochs": 1}


@pytest.fixture(params=["delta", "parquet", "postgres", "S3"])
def kind(request: pytest.FixtureRequest, place: Any) -> None:
    """The place's table, and on S3 its store, is of this kind."""
    if request.param == "postgres":
        place.table = f"{request.getfixturevalue('postgres')}&table=named_{place.folder.name[-20:]}"
    elif request.param == "parquet":
        place.table = f"parquet+{place.table}"
    elif request.param == "S3":
        bucket = request.getfixturevalue("bucket")
        place.table, place.store = f"{bucket}/table", f"{bucket}/runs"


@pytest.fixture
def elsewhere(place: Any, kind: None) -> Any:
    """The same source and table with another store."""
    other = copy.copy(place)
    other.store = f"{place.store}-elsewhere"
    return other


def forget_in(place: Any, *users: str, **how: Any) -> Any:
    return forget(users, table=place.table, store=place.store, **how)


def copy_list(place: Any, to: Any) -> None:
    with fsspec.open(f"{place.store}/{forgotten.FILE}") as file:
        content = file.read()
    with fsspec.open(f"{to.store}/{forgotten.FILE}", "wb") as file:
        file.write(content)


def served(place: Any) -> tuple[int, str, list[str], list[str]]:
    """Version, run, users, and the run of the popular items."""
    newest = Recommendations(place.table)
    users = sorted(newest.to_pandas()["USER_ID"].unique())
    return newest.version, newest.run_id, users, sorted(newest.popular()["RUN_ID"].unique())


def listed_users(place: Any) -> int | None:
    told = Recommendations(place.table).metadata.get(FORGOTTEN_LIST)
    return told and int(told["users"])


def test_a_run_of_another_store_publishes_only_with_the_list_and_without_them(
    place: Any, elsewhere: Any
) -> None:
    place.run("night-1", QUICK)
    begun = elsewhere.run("begun", QUICK, upto="gate")  # it has read the user
    forget_in(place, USER)
    before = served(place)
    assert USER not in before[2]
    assert listed_users(place) == 1

    told = rf"were forgotten in the store '{place.store}', and would come back with a run of store='{elsewhere.store}'"
    with pytest.raises(OtherList, match=rf"{told}, which has no list of them: copy \.forgotten\.json"):
        pipeline.run_task("export", begun.uri)
    with pytest.raises(OtherList, match=told):
        elsewhere.start("night-2", QUICK)
    assert not RunStore.of(elsewhere.store, "night-2").is_started()
    with pytest.raises(OtherList, match=told):
        forget_in(elsewhere, SECOND)
    assert not forgotten.read(elsewhere.store).hashes
    assert served(place) == before

    copy_list(place, elsewhere)
    pipeline.run_task("export", begun.uri)
    version, run_id, users, popular = served(place)
    assert (version, run_id, popular) == (before[0] + 1, "begun", ["begun"])
    assert users == before[2]
    elsewhere.run("night-2", QUICK)
    assert served(place)[1:3] == ("night-2", before[2])
    assert listed_users(place) == 1

    place.run("night-3", QUICK)
    forget_in(place, SECOND)
    with pytest.raises(
        OtherList, match=r"2 user\(s\) were .* whose list is another, or not up to date: use that"
    ):
        elsewhere.start("night-4", QUICK)
    copy_list(place, elsewhere)
    elsewhere.run("night-4", QUICK)
    assert served(place)[2] == [user for user in before[2] if user != SECOND]


def test_what_began_before_somebody_was_forgotten_elsewhere_comes_to_nothing(
    place: Any, elsewhere: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.run("night-1", QUICK)
    begun = elsewhere.run("begun", QUICK, upto="gate")
    batches = Rows.batches

    def forget_meanwhile(self: Rows, *args: Any, **kwargs: Any) -> Any:
        yield from batches(self, *args, **kwargs)
        forget_in(place, USER)

    with monkeypatch.context() as patch:
        patch.setattr(Rows, "batches", forget_meanwhile)
        with pytest.raises(OSError, match="try again"):
            pipeline.run_task("export", begun.uri)
    with pytest.raises(OtherList):
        pipeline.run_task("export", begun.uri)
    assert served(place)[1] == "night-1"
    assert USER not in served(place)[2]


def test_a_store_that_is_moved_with_its_list_goes_on_and_one_without_is_refused(place: Any) -> None:
    place.run("night-1", QUICK)
    forget_in(place, USER)
    moved = copy.copy(place)
    moved.store = f"{place.folder}/moved"
    shutil.move(place.store, moved.store)
    moved.run("night-2", QUICK)
    assert served(place)[1] == "night-2"
    forget_in(moved, SECOND)
    assert not {USER, SECOND} & set(served(place)[2])
    (Path(moved.store) / forgotten.FILE).unlink()  # as `cp runs/*` leaves it behind
    with pytest.raises(OtherList, match="has no list of them"):
        moved.start("night-3", QUICK)


def test_two_stores_that_each_went_on_with_the_list_are_told_apart(tmp_path: Path) -> None:
    one, other = (str(tmp_path / name) for name in ("one", "other"))
    forgotten.add(one, ["ann"])
    shutil.copytree(one, other)
    forgotten.add(one, ["bob"])
    forgotten.add(other, ["cleo"])
    for store, another in ((one, other), (other, one)):
        version = Published(
            version=0,
            run_id="a",
            as_of=datetime(2026, 1, 1, tzinfo=UTC),
            metadata=named_list.named(forgotten.read(store), store),
        )
        named_list.require(version, table="t", store=store)
        with pytest.raises(OtherList, match="whose list is another, or not up to date"):
            named_list.require(version, table="t", store=another)
        assert not any(user in str(version.metadata) for user in ("ann", "bob", "cleo"))
        assert forgotten.read(store).key not in str(version.metadata)


def test_without_a_list_nothing_is_named_and_no_list_is_looked_for(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.run("night", QUICK)
    newest = next(open_tables(place.table).published())
    assert FORGOTTEN_LIST not in newest.metadata
    monkeypatch.setattr(forgotten, "read", None)
    named_list.require(newest, table=place.table, store=place.store)


def test_of_several_tables_one_that_names_another_list_stays_as_it_is(
    place: Any, caplog: pytest.LogCaptureFixture
) -> None:
    place.run("night-1", QUICK)
    forget_in(place, USER)
    both = copy.copy(place)
    both.store, both.table = f"{place.folder}/elsewhere", f"parquet+{place.folder}/first,{place.table}"
    with caplog.at_level(logging.WARNING, "sasrec_tasks"):
        both.run("night-2", QUICK)
    assert served(both)[1] == "night-2"
    assert served(place)[1] == "night-1"
    assert "would come back" in caplog.text
    assert caplog.text.rstrip().endswith("it stays as it is")
    with pytest.raises(OtherList, match=f"table='{place.table}'"):
        forget_in(both, SECOND)


def test_an_export_is_tried_again_with_a_list_that_has_grown_meanwhile(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = place.run("night", QUICK, upto="gate")
    batches = Rows.batches

    def add_meanwhile(self: Rows, *args: Any, **kwargs: Any) -> Any:
        yield from batches(self, *args, **kwargs)
        forgotten.add(place.store, ["somebody the run has not"])

    with monkeypatch.context() as patch:
        patch.setattr(Rows, "batches", add_meanwhile)
        with pytest.raises(OSError, match="a user was forgotten since this task began: try again"):
            pipeline.run_task("export", store.uri)
    pipeline.run_task("export", store.uri)
    assert listed_users(place) == 1


def test_a_way_back_leads_to_no_shorter_list(place: Any, kind: None) -> None:
    place.run("night-1", QUICK)
    forgotten.add(place.store, ["somebody this table has not"])
    place.run("night-2", QUICK)
    assert roll_back(place.table)["run_id"] == "night-1"
    assert listed_users(place) == 1


def test_a_lost_list_is_begun_anew(place: Any, kind: None, command: Callable[..., Any]) -> None:
    place.run("night-1", QUICK)
    forget_in(place, USER)
    fs, path = fsspec.core.url_to_fs(f"{place.store}/{forgotten.FILE}")
    fs.rm(path)
    with pytest.raises(OtherList):
        forget_in(place, USER)
    places = ("--store", place.store, "--table", place.table)
    done = command("forget", "--user", USER, "--new-list", *places)
    assert done.status == 0, done.err
    place.run("night-2", QUICK)
    version, run_id, users, _ = served(place)
    assert run_id == "night-2"
    assert USER not in users
    assert forget_in(place, USER).tables == []
    assert served(place)[0] == version


def test_a_store_with_a_secret_in_its_address_is_not_named(place: Any) -> None:
    with pytest.raises(BadSettings, match="store: holds a password"):
        forget([USER], table=place.table, store="s3://key:secret@bucket/runs")
