"""A user who is taken out of a table of any kind: what is served, what is left, and the way back that is closed."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from sasrec_tasks.errors import BadSettings
from sasrec_tasks.mentions import Mentions
from sasrec_tasks.rollback import roll_back
from sasrec_tasks.tables import NotKept, Published, Recommendations, open_tables
from sasrec_tasks.tables.protocol import FORGOTTEN

Publish = Callable[..., Published]
Served = Callable[[str], tuple[int, set[tuple[str, str]]]]

FEBRUARY = datetime(2026, 2, 1, tzinfo=UTC)
V = Mentions(["v"])


def test_the_rows_of_all_others_are_served_again_as_the_same_run(
    url: str, publish: Publish, served: Served
) -> None:
    publish(url, "a", metadata={"metrics": {"x": 0.25}})
    publish(url, "b", as_of=FEBRUARY, metadata={"metrics": {"x": 0.5}})
    before = open_tables(url).for_users(["u"])
    (forgot,) = open_tables(url).forget(["v"])
    assert (forgot.version, forgot.removed) == (2, (1, 0))
    assert served(url) == (2, {("u", "b")})
    assert open_tables(url).for_users(["u"]).equals(before)
    assert open_tables(url).popular()["RUN_ID"].to_pylist() == ["b"]
    newest, oldest = open_tables(url).published()
    assert (newest.run_id, newest.version, newest.as_of) == ("b", 2, FEBRUARY)
    assert newest.metadata["metrics"] == {"x": 0.5}
    assert newest.metadata[FORGOTTEN]["users"] == 1
    assert newest.metadata[FORGOTTEN]["instead_of"] == 1
    assert (oldest.run_id, oldest.metadata["metrics"]) == ("a", {"x": 0.25})
    assert open_tables(url).rolled_back() == set()


def test_nothing_is_left_of_them_and_no_way_back(url: str, publish: Publish, served: Served) -> None:
    for run_id in "abc":
        publish(url, run_id)
    roll_back(url, run_id="b")
    assert open_tables(url).search(V).found
    open_tables(url).forget(["v"])
    searched = open_tables(url).search(V)
    assert searched.found == ()
    assert searched.files + searched.tables > 0
    assert [kept.version for kept in open_tables(url).kept()] == [4]
    for version in range(4):
        with pytest.raises(
            BadSettings, match=r"removed when 1 user\(s\) were forgotten .*, version 4\): they would"
        ):
            roll_back(url, version=version)
    for run_id in "ac":
        with pytest.raises(BadSettings, match=rf"run '{run_id}' is not kept"):
            roll_back(url, run_id=run_id)
    with pytest.raises(NotKept):
        open_tables(url).rows(2).read_all()
    assert roll_back(url, run_id="b")["version"] == 4
    assert served(url) == (4, {("u", "b")})


def test_a_second_time_there_is_nothing_to_do_and_the_next_run_publishes_as_ever(
    url: str, publish: Publish, served: Served
) -> None:
    assert open_tables(url).forget(["v"])[0].version is None
    publish(url, "a")
    for _ in range(2):
        (forgot,) = open_tables(url).forget(["v"])
        assert forgot.version == 1
    assert publish(url, "a").version == 1  # it is published already
    publish(url, "b")
    assert served(url) == (2, {("u", "b"), ("v", "b")})
    assert {kept.version for kept in open_tables(url).kept()} == {2, 1}
    assert roll_back(url, version=1)["run_id"] == "a"
    assert served(url) == (3, {("u", "a")})


def test_all_users_may_go(url: str, publish: Publish, served: Served) -> None:
    publish(url, "a")
    open_tables(url).forget(["u", "v", "nobody"])
    assert served(url) == (1, set())
    assert Recommendations(url).run_id == "a"
    assert open_tables(url).search(Mentions(["u", "v"])).found == ()


def test_a_publish_that_had_begun_comes_to_nothing(url: str, publish: Publish, served: Served) -> None:
    publish(url, "a")
    with pytest.raises(OSError, match="try again"):
        publish(url, "b", meanwhile=lambda: open_tables(url).forget(["v"]))
    assert served(url) == (1, {("u", "a")})
    open_tables(url).forget(["v"])  # of what it has written since
    assert open_tables(url).search(V).found == ()
    version, rows = served(url)
    assert rows == {("u", "a")}
    assert publish(url, "b").version == version + 1


def test_several_tables_forget_alike(url: str, publish: Publish, tmp_path: Path, served: Served) -> None:
    both = f"{url},{tmp_path}/copy"
    publish(both, "a")
    assert [forgot.version for forgot in open_tables(both).forget(["v"])] == [1, 1]
    assert open_tables(both).search(V).found == ()
    assert served(f"{tmp_path}/copy") == (1, {("u", "a")})


# Delta: what the log says


def commits(url: str) -> list[list[dict[str, Any]]]:
    files = sorted(Path(url, "_delta_log").glob("*.json"))
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


def test_the_log_keeps_its_history_but_for_the_ranges_of_files_that_are_gone(
    tmp_path: Path, publish: Publish
) -> None:
    url = str(tmp_path / "table")
    publish(url, "a")
    publish(url, "b")
    history = DeltaTable(url).history()
    assert '"v"' in json.dumps(commits(url)).replace("\\", "")
    open_tables(url).forget(["v"])
    assert '"v"' not in json.dumps(commits(url)).replace("\\", "")
    assert DeltaTable(url).history()[1:] == history
    assert [kept["numRecords"] for kept in map(_stats, commits(url)) if kept] == [2, 2, 1]
    assert "minValues" in _stats(commits(url)[-1])  # readers of the newest version skip files by it


def _stats(commit: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = (json.loads(action["add"]["stats"]) for action in commit if "add" in action)
    assert isinstance(found, dict)
    return found


def test_checkpoints_are_made_anew(tmp_path: Path, publish: Publish, served: Served) -> None:
    url = str(tmp_path / "table")
    publish(url, "a")
    DeltaTable(url).create_checkpoint()
    publish(url, "b")
    DeltaTable(url).create_checkpoint()
    open_tables(url).forget(["v"])
    log = {file.name for file in Path(url, "_delta_log").iterdir()}
    assert {name for name in log if "checkpoint.parquet" in name} == {f"{2:020d}.checkpoint.parquet"}
    assert open_tables(url).search(V).found == ()
    publish(url, "c")
    assert served(url)[0] == 3
    assert [published.run_id for published in open_tables(url).published()] == ["c", "b", "a"]
