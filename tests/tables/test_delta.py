"""What a Delta table promises: one whole version per run, and what is served read off its rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from sasrec_tasks.errors import BadSettings
from sasrec_tasks.tables import Published, delta_files, open_tables
from sasrec_tasks.tables.delta import DeltaTables
from sasrec_tasks.tables.delta_files import dataset
from sasrec_tasks.tables.delta_log import Log, metadata_of, run_of
from sasrec_tasks.tables.delta_replay import of_version

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)

Batch = Callable[..., pa.RecordBatch]
Publish = Callable[..., Published]
Runs = Callable[[str], list[str]]
Served = Callable[[str], tuple[int, set[tuple[str, str]]]]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "table")


def test_popular_items_are_committed_first_and_named_by_version(url: str, publish: Publish) -> None:
    publish(url, "a")
    found = []
    published = publish(url, "b", meanwhile=lambda: found.append(DeltaTable(f"{url}_popular").version()))
    assert found == [1]
    assert published.metadata["popular_version"] == 1
    assert next(open_tables(url).published()).metadata["popular_version"] == 1
    assert open_tables(url).popular()["RUN_ID"].to_pylist() == ["b"]


@pytest.mark.parametrize("by", ["version", "moment"])
def test_a_rollback_takes_runs_back_and_they_can_be_published_again(
    url: str, by: str, publish: Publish, runs: Runs, served: Served
) -> None:
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


@pytest.mark.parametrize("after", ["_at", "_serve_popular"])
def test_a_run_that_is_published_during_a_rollback_stays(
    url: str, after: str, publish: Publish, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(url, "a")
    publish(url, "b")
    tables = open_tables(url)
    to = next(kept for kept in tables.kept() if kept.run_id == "a")
    step = getattr(DeltaTables, after)

    def then_published(self: DeltaTables, *arguments: Any) -> Any:
        done = step(self, *arguments)
        publish(url, "c")
        return done

    with monkeypatch.context() as patch:
        patch.setattr(DeltaTables, after, then_published)
        with pytest.raises(OSError, match="by another run meanwhile: try again"):
            tables.rollback(to)
    assert served(url) == (2, {("u", "c"), ("v", "c")})
    assert tables.popular()["RUN_ID"].to_pylist() == ["c"]
    assert tables.rollback(to).version == 3
    assert served(url) == (3, {("u", "a"), ("v", "a")})
    assert tables.popular()["RUN_ID"].to_pylist() == ["a"]


def test_compaction_changes_nothing(url: str, publish: Publish, runs: Runs, batch: Batch) -> None:
    publish(url, "a")
    publish(url, "b", metadata={"mark": 1})
    for row in ("w", "x"):
        write_deltalake(url, pa.Table.from_batches([batch("b", JANUARY, row)]), mode="append")
    DeltaTable(url).optimize.compact()
    assert runs(url) == ["b", "a"]
    newest = next(open_tables(url).published())
    assert newest.version == DeltaTable(url).version() == 4
    assert newest.metadata["mark"] == 1


def test_vacuumed_versions_can_not_be_served_again(url: str, publish: Publish, runs: Runs) -> None:
    for run_id in ("a", "b"):
        publish(url, run_id)
    DeltaTable(url).vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    assert {kept.run_id for kept in open_tables(url).kept()} == {"b"}
    assert runs(url) == ["b", "a"]  # what they said of themselves is in the log
    assert publish(url, "c").run_id == "c"
    assert runs(url) == ["c", "b", "a"]


def test_a_log_that_was_cleaned_up_is_no_error(url: str, publish: Publish, runs: Runs) -> None:
    for run_id in ("a", "b", "c", "d"):
        publish(url, run_id)
    DeltaTable(url).create_checkpoint()
    for version in (0, 1):  # what Delta does by itself, 30 days later
        (Path(url) / "_delta_log" / f"{version:020d}.json").unlink()
    assert runs(url)[0] == "d"
    assert publish(url, "e").version == 4
    assert runs(url)[:2] == ["e", "d"]


def test_a_table_of_others_is_left_alone(url: str, publish: Publish) -> None:
    write_deltalake(url, pa.table({"theirs": [1]}))
    with pytest.raises(BadSettings, match="other columns"):
        publish(url, "a")
    assert DeltaTable(url).to_pyarrow_table().to_pydict() == {"theirs": [1]}


def test_a_place_that_can_not_be_is_named(tmp_path: Path, publish: Publish) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadSettings, match="nowhere://"):
        publish("nowhere://table", "a")
    with pytest.raises(OSError, match="file/table"):
        publish(str(tmp_path / "file" / "table"), "a")


def test_a_damaged_log_is_told_in_one_line(tmp_path: Path, publish: Publish) -> None:
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


def test_the_run_is_told_by_one_file(url: str, publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta_files, "ROWS", 1)
    publish(url, "a")
    table = DeltaTable(url)
    first, second = (Path(url) / name for name in sorted(of_version(table)))
    assert dataset(table).count_rows() == 2
    second.unlink()
    assert run_of(table) == ("a", JANUARY)
    first.unlink()
    assert run_of(table) is None


def test_who_asks_for_the_newest_publish_reads_one_commit(
    url: str, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run_id in "abc":
        publish(url, run_id, metadata={"of": run_id})
    history, limits = DeltaTable.history, []

    def counted(table: DeltaTable, limit: int | None = None) -> Any:
        limits.append(limit)
        return history(table, limit)

    monkeypatch.setattr(DeltaTable, "history", counted)
    newest = next(open_tables(url).published())
    assert (newest.run_id, newest.metadata["of"], limits) == ("c", "c", [1])
    assert newest.at is not None
    assert [each.metadata["of"] for each in open_tables(url).published()] == ["c", "b", "a"]
    DeltaTable(url).vacuum(200, dry_run=False)  # versions of its own, which tell nothing
    assert next(open_tables(url).published()).metadata["of"] == "c"


@pytest.mark.parametrize("version", [0, 1, 2])
def test_what_is_committed_after_a_table_was_opened_is_not_looked_at(
    url: str, version: int, publish: Publish
) -> None:
    for run_id in "abc":
        publish(url, run_id, metadata={"of": run_id})
    log = Log(DeltaTable(url, version=version))
    publish(url, "d")
    told = {number: metadata_of(entry) or {} for number, entry in log.entries.items()}
    assert {number: of["run_id"] for number, of in told.items()} == {n: "abc"[n] for n in range(version + 1)}
    assert log.open == log.entry(version) == log.entries[version]
    assert log.metadata.keys() == set("abc"[: version + 1])
    assert log.metadata_of_run("a")["of"] == "a"
    assert log.metadata_of_run("d") == {}
