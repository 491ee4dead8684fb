"""What a Delta table promises: one whole version per run, and what is served read off its rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from sasrec_tasks.errors import BadSettings
from sasrec_tasks.tables import Published, Superseded, open_tables
from sasrec_tasks.tables.protocol import POPULAR, RECOMMENDATIONS

JANUARY, FEBRUARY = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)


def batch(run_id: str, as_of: datetime, user: str = "u") -> pa.RecordBatch:
    row = {"USER_ID": user, "RANK": 1, "ITEM_ID": f"of {run_id}", "SCORE": 0.5, "ORIGIN": "model"}
    return pa.RecordBatch.from_pylist([{**row, "RUN_ID": run_id, "AS_OF": as_of}], RECOMMENDATIONS)


def publish(
    url: str,
    run_id: str,
    *,
    as_of: datetime = JANUARY,
    meanwhile: Callable[[], object] = lambda: None,
    error: BaseException | None = None,
    metadata: dict[str, Any] | None = None,
) -> Published:
    """Publish two users; when the first has been read, `meanwhile` happens and `error` is raised."""

    def rows() -> Iterator[pa.RecordBatch]:
        yield batch(run_id, as_of, "u")
        other = Thread(target=meanwhile)  # deltalake can't be called from where it reads rows
        other.start()
        other.join()
        if error:
            raise error
        yield batch(run_id, as_of, "v")

    popular = {"RANK": 1, "ITEM_ID": "p", "SCORE": 0.5, "ORIGIN": "popular", "RUN_ID": run_id, "AS_OF": as_of}
    return open_tables(url).publish(
        rows(),
        pa.Table.from_pylist([popular], POPULAR),
        run_id=run_id,
        as_of=as_of,
        metadata=metadata or {},
    )


def served(url: str) -> tuple[int, set[tuple[str, str]]]:
    """Version, and user and run of each row."""
    table = DeltaTable(url)
    rows = table.to_pyarrow_table().to_pylist()
    return table.version(), {(row["USER_ID"], row["RUN_ID"]) for row in rows}


def runs(url: str) -> list[str]:
    return [published.run_id for published in open_tables(url).published()]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "table")


def test_nothing_is_published_where_no_table_is(url: str) -> None:
    assert runs(url) == []
    assert not Path(url).exists()


def test_each_run_replaces_all_rows_in_one_version(url: str) -> None:
    assert publish(url, "a").version == 0
    assert publish(url, "b", metadata={"metrics": {"x": 0.5}}).version == 1
    assert served(url) == (1, {("u", "b"), ("v", "b")})
    newest, oldest = open_tables(url).published()
    assert (newest.run_id, newest.version, newest.as_of) == ("b", 1, JANUARY)
    assert newest.metadata["metrics"] == {"x": 0.5}
    assert (oldest.run_id, oldest.version) == ("a", 0)


def test_popular_items_are_committed_first_and_named_by_version(url: str) -> None:
    publish(url, "a")
    found = []
    published = publish(url, "b", meanwhile=lambda: found.append(DeltaTable(f"{url}_popular").version()))
    assert found == [1]
    assert published.metadata["popular_version"] == 1
    assert next(open_tables(url).published()).metadata["popular_version"] == 1
    assert open_tables(url).popular()["RUN_ID"].to_pylist() == ["b"]


def test_a_run_is_published_once(url: str) -> None:
    first = publish(url, "a")
    assert publish(url, "a").version == first.version
    publish(url, "b")
    assert publish(url, "a").version == first.version
    assert served(url) == (1, {("u", "b"), ("v", "b")})
    assert DeltaTable(f"{url}_popular").version() == 1


@pytest.mark.parametrize("existing", [[], ["before"]])
def test_of_two_tries_that_overlap_one_publishes(url: str, existing: list[str]) -> None:
    for run_id in existing:
        publish(url, run_id)
    inner: list[Published] = []
    outer = publish(url, "a", meanwhile=lambda: inner.append(publish(url, "a")))
    assert outer.version == inner[0].version == len(existing)
    assert served(url) == (len(existing), {("u", "a"), ("v", "a")})
    assert DeltaTable(f"{url}_popular").version() == len(existing)


def test_tries_that_race_from_the_start_publish_once(url: str) -> None:
    barrier, versions = Barrier(4), []

    def attempt() -> None:
        barrier.wait()
        versions.append(publish(url, "a").version)

    threads = [Thread(target=attempt) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert versions == [0, 0, 0, 0]
    assert DeltaTable(url).version() == DeltaTable(f"{url}_popular").version() == 0


def test_another_run_that_publishes_meanwhile_is_not_overwritten(url: str) -> None:
    publish(url, "a")
    with pytest.raises(OSError, match="try again"):
        publish(url, "b", meanwhile=lambda: publish(url, "c"))
    assert served(url) == (1, {("u", "c"), ("v", "c")})
    assert publish(url, "b").version == 2


def test_an_older_run_does_not_replace_a_newer_one(url: str) -> None:
    publish(url, "new", as_of=FEBRUARY)
    before = DeltaTable(f"{url}_popular").version()
    with pytest.raises(Superseded, match="new"):
        publish(url, "old", as_of=JANUARY)
    assert served(url) == (0, {("u", "new"), ("v", "new")})
    assert DeltaTable(f"{url}_popular").version() == before


def test_an_older_run_does_not_replace_one_that_comes_meanwhile(url: str) -> None:
    publish(url, "a", as_of=JANUARY)
    with pytest.raises(OSError, match="try again"):
        publish(url, "old", meanwhile=lambda: publish(url, "new", as_of=FEBRUARY))
    assert served(url)[1] == {("u", "new"), ("v", "new")}


@pytest.mark.parametrize("error", [RuntimeError("half way"), KeyboardInterrupt()])
@pytest.mark.parametrize("existing", [[], ["a"]])
def test_an_error_half_way_leaves_the_table_whole(
    url: str, error: BaseException, existing: list[str]
) -> None:
    for run_id in existing:
        publish(url, run_id)

    with pytest.raises(type(error)) as raised:
        publish(url, "b", error=error)
    assert raised.value is error
    assert runs(url) == existing
    if existing:
        assert served(url) == (0, {("u", "a"), ("v", "a")})
    publish(url, "b")
    assert runs(url) == ["b", *existing]


@pytest.mark.parametrize("by", ["version", "moment"])
def test_a_rollback_takes_runs_back_and_they_can_be_published_again(url: str, by: str) -> None:
    publish(url, "a")
    time.sleep(0.1)
    between = datetime.now(UTC)
    time.sleep(0.1)  # Delta takes the time of a file's change, which may lag by some milliseconds
    publish(url, "b")
    publish(url, "c")
    DeltaTable(url).restore(0 if by == "version" else between)
    assert runs(url) == ["a"]
    assert publish(url, "c").version == 4
    assert runs(url) == ["c", "a"]
    assert publish(url, "a").version == 3
    assert served(url) == (4, {("u", "c"), ("v", "c")})


def test_compaction_changes_nothing(url: str) -> None:
    publish(url, "a")
    publish(url, "b", metadata={"mark": 1})
    for row in ("w", "x"):
        write_deltalake(url, pa.Table.from_batches([batch("b", JANUARY, row)]), mode="append")
    DeltaTable(url).optimize.compact()
    assert runs(url) == ["b", "a"]
    newest = next(open_tables(url).published())
    assert newest.version == DeltaTable(url).version() == 4
    assert newest.metadata["mark"] == 1


def test_vacuumed_versions_are_no_longer_published(url: str) -> None:
    for run_id in ("a", "b"):
        publish(url, run_id)
    DeltaTable(url).vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    assert runs(url) == ["b"]
    assert publish(url, "c").run_id == "c"
    assert runs(url) == ["c", "b"]


def test_a_log_that_was_cleaned_up_is_no_error(url: str) -> None:
    for run_id in ("a", "b", "c", "d"):
        publish(url, run_id)
    DeltaTable(url).create_checkpoint()
    for version in (0, 1):  # what Delta does by itself, 30 days later
        (Path(url) / "_delta_log" / f"{version:020d}.json").unlink()
    assert runs(url)[0] == "d"
    assert publish(url, "e").version == 4
    assert runs(url)[:2] == ["e", "d"]


def test_a_table_of_others_is_left_alone(url: str) -> None:
    write_deltalake(url, pa.table({"theirs": [1]}))
    with pytest.raises(BadSettings, match="other columns"):
        publish(url, "a")
    assert DeltaTable(url).to_pyarrow_table().to_pydict() == {"theirs": [1]}


def test_a_place_that_can_not_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadSettings, match="nowhere://"):
        publish("nowhere://table", "a")
    with pytest.raises(OSError, match="file/table"):
        publish(str(tmp_path / "file" / "table"), "a")


def test_rows_of_users_come_in_order(url: str) -> None:
    publish(url, "a")
    tables = open_tables(url)
    assert tables.for_users(["v", "u"])["USER_ID"].to_pylist() == ["u", "v"]
    assert len(tables.for_users(["nobody"])) == 0
    assert tables.rows(0).count_rows() == 2


def test_reading_where_no_table_is_names_the_setting(url: str) -> None:
    with pytest.raises(BadSettings, match="table="):
        open_tables(url).for_users(["u"])
    with pytest.raises(BadSettings, match="table="):
        open_tables(url).popular()


def test_a_damaged_log_is_told_in_one_line(tmp_path: Path) -> None:
    url = str(tmp_path / "table")
    publish(url, "one")
    (Path(url) / "_delta_log" / f"{0:020}.json").write_text("garbage")
    with pytest.raises(OSError, match=r"table: can't be read as a Delta table.*another table$") as raised:
        next(open_tables(url).published(), None)
    assert "\n" not in str(raised.value)


def test_a_file_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "table").write_text("")
    with pytest.raises(BadSettings, match="is a file"):
        next(open_tables(str(tmp_path / "table")).published(), None)
