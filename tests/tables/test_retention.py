"""What a table of any kind keeps when it is pruned, and that the rest goes without harm."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest
from adbc_driver_postgresql import dbapi
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sasrec_tasks.tables import Keep, Published, Recommendations, delta_files, delta_prune, open_tables

Publish = Callable[..., Published]
Runs = Callable[[str], list[str]]
Served = Callable[[str], tuple[int, set[tuple[str, str]]]]

LATER = datetime.now(UTC) + timedelta(days=100)
TWO = Keep(versions=2, days=0, now=LATER)

numbers = itertools.count()


@pytest.fixture(params=["delta", "parquet", "postgres"])
def kind(request: pytest.FixtureRequest) -> Callable[[Path], str]:
    """Folder → URL of a table that is not there yet; without S3, which is slow to do much on."""
    if request.param == "postgres":
        server = request.getfixturevalue("postgres")
        return lambda folder: f"{server}&table=retention_{next(numbers)}"
    return lambda folder: f"{'parquet+' if request.param == 'parquet' else ''}{folder}/table"


def contents(url: str) -> dict[str, int]:
    """All that a table holds, by name: bytes of files, or tables and views of a database."""
    if url.startswith("postgresql"):
        server, _, table = url.partition("&table=")
        with dbapi.connect(server) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT relname FROM pg_class WHERE starts_with(relname, $1)", parameters=(table,))
            return {row["relname"]: 0 for row in cursor.fetch_arrow_table().to_pylist()}
    fs, folder = fsspec.core.url_to_fs(url.removeprefix("parquet+"))
    fs.invalidate_cache()
    found = fs.find(folder, detail=True) | fs.find(f"{folder}_popular", detail=True)
    return {name: info["size"] for name, info in found.items() if not name.endswith("/.lock")}


def kept(url: str) -> list[str]:
    """Runs that can be served again, newest first, each once."""
    return list(dict.fromkeys(version.run_id for version in open_tables(url).kept()))


def at(url: str, run_id: str) -> Published:
    return next(kept for kept in open_tables(url).kept() if kept.run_id == run_id)


def assert_all_kept_read(url: str) -> None:
    tables = open_tables(url)
    for version in tables.kept():
        rows = tables.rows(version.version).read_all()
        assert rows["USER_ID"].to_pylist() == ["u", "v"]
        assert set(rows["RUN_ID"].to_pylist()) == {version.run_id}
        assert tables.popular(version.version)["RUN_ID"].to_pylist() == [version.run_id]


def test_old_publishes_go_and_what_they_said_stays(
    url: str, publish: Publish, runs: Runs, served: Served
) -> None:
    for run_id in "abcde":
        publish(url, run_id, metadata={"of": run_id})
    size = len(contents(url))
    (pruned,) = open_tables(url).prune(TWO)
    assert [version.run_id for version in pruned.removed] == ["c", "b", "a"]
    assert pruned.kept == {"e": "it is served", "d": "one of the newest 2 publishes"}
    assert pruned.bytes > 0
    assert len(contents(url)) < size
    assert kept(url) == ["e", "d"]
    assert served(url) == (4, {("u", "e"), ("v", "e")})
    assert_all_kept_read(url)
    published = list(open_tables(url).published())
    assert [(each.run_id, each.version, each.metadata["of"]) for each in published] == [
        ("e", 4, "e"), ("d", 3, "d"), ("c", 2, "c"), ("b", 1, "b"), ("a", 0, "a")
    ]  # fmt: skip
    assert publish(url, "a").version == 0  # a run is published once, whether or not its rows are kept
    assert publish(url, "f").version == 5


def test_the_rows_of_a_pruned_version_are_refused_by_name(url: str, publish: Publish, served: Served) -> None:
    for run_id in "abc":
        publish(url, run_id)
    gone = at(url, "a")
    open_tables(url).prune(TWO)
    tables = open_tables(url)
    for read in (
        lambda: tables.rows(0).read_all(),
        lambda: tables.for_users(["u"], 0),
        lambda: tables.popular(0),
        lambda: tables.rollback(gone),
        lambda: Recommendations(url).changes(since_version=0),
    ):
        with pytest.raises(OSError, match=r"version 0 is not kept any more: .*prune\.keep_versions"):
            read()
    assert served(url) == (2, {("u", "c"), ("v", "c")})


def test_a_kept_publish_can_be_rolled_back_to_and_forward_again(
    url: str, publish: Publish, served: Served
) -> None:
    for run_id in "abc":
        publish(url, run_id)
    open_tables(url).prune(TWO)
    for version, run_id in enumerate(["b", "c"], 3):
        open_tables(url).rollback(at(url, run_id))
        assert served(url) == (version, {("u", run_id), ("v", run_id)})
        open_tables(url).prune(TWO)
        assert kept(url)[0] == run_id
        assert set(kept(url)) == {"b", "c"}
        assert_all_kept_read(url)


def test_what_is_served_again_after_a_rollback_counts_as_newest(
    url: str, publish: Publish, served: Served
) -> None:
    for run_id in "abc":
        publish(url, run_id)
    open_tables(url).rollback(at(url, "a"))
    open_tables(url).prune(TWO)
    assert kept(url) == ["a", "c"]
    assert served(url)[1] == {("u", "a"), ("v", "a")}
    assert_all_kept_read(url)


def test_what_was_served_in_the_last_days_is_kept_whatever_its_number(url: str, publish: Publish) -> None:
    for run_id in "abcd":
        publish(url, run_id)
    open_tables(url).prune(Keep(versions=2, days=1))
    assert kept(url) == ["d", "c", "b", "a"]
    open_tables(url).prune(Keep(versions=2, days=None, now=LATER))
    assert kept(url) == ["d", "c", "b", "a"]
    open_tables(url).prune(Keep(versions=3, days=99, now=LATER))
    assert kept(url) == ["d", "c", "b"]


def test_a_publish_ages_from_when_it_was_replaced_not_from_when_it_was_made() -> None:
    days = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day) for day in (0, 1, 90, 100)]
    versions = [
        Published(version=n, run_id=run_id, as_of=days[0], at=days[n])
        for n, run_id in ((3, "d"), (2, "c"), (1, "b"), (0, "a"))
    ]
    assert list(Keep(versions=2, days=30, now=days[3]).runs(versions)) == ["d", "c", "b"]


def test_a_reader_of_what_was_just_replaced_goes_on(url: str, publish: Publish) -> None:
    publish(url, "a")
    reader = Recommendations(url)
    publish(url, "b")
    open_tables(url).prune(TWO)
    assert reader.for_user("u")["ITEM_ID"].tolist() == ["of a"]
    assert len(reader.to_pandas()) == 2
    with pytest.raises(ValueError, match="at least 2"):
        Keep(versions=1, days=0)


def test_a_dry_run_says_the_same_and_changes_nothing(url: str, publish: Publish) -> None:
    for run_id in "abcd":
        publish(url, run_id)
    before = contents(url)
    told = open_tables(url).prune(TWO, dry_run=True)
    assert contents(url) == before
    assert open_tables(url).prune(TWO) == told
    (again,) = open_tables(url).prune(TWO)
    assert (again.removed, again.leftovers, again.bytes) == ((), 0, 0)


def test_there_is_nothing_to_prune_where_no_table_is(url: str) -> None:
    assert open_tables(url).prune(TWO) == []


@given(
    steps=st.lists(
        st.one_of(
            st.just(("publish", 0)),
            st.tuples(st.just("rollback"), st.integers(0, 5)),
            st.tuples(st.just("prune"), st.integers(2, 4)),
        ),
        min_size=3,
        max_size=12,
    )
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_done_what_is_kept_is_whole_and_what_is_served_stays(
    kind: Callable[[Path], str], steps: list[tuple[str, int]], publish: Publish, served: Served
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        url = kind(Path(folder))
        publish(url, "0")
        for place, (step, number) in enumerate(steps, 1):
            if step == "publish":
                publish(url, str(place))
            elif step == "rollback":
                choice = kept(url)
                run_id = choice[number % len(choice)]
                open_tables(url).rollback(at(url, run_id))
                assert served(url)[1] == {("u", run_id), ("v", run_id)}
            else:
                before, newest = kept(url), served(url)
                open_tables(url).prune(Keep(versions=number, days=0, now=LATER))
                assert kept(url) == before[:number]
                assert served(url) == newest
            assert_all_kept_read(url)


# What is killed half way


@pytest.fixture
def killed_prunes(
    tmp_path: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch, killed_at: Any
) -> Callable[[str], Iterator[str]]:
    """Prefix → the same table, pruned and killed at each of its removals."""
    monkeypatch.setattr(delta_files, "ROWS", 1)  # two files each

    def tables(prefix: str) -> Iterator[str]:
        whole = tmp_path / "whole"
        for run_id in "abcd":
            publish(f"{prefix}{whole}/table", run_id)
        for number in itertools.count():
            folder = tmp_path / str(number)
            shutil.copytree(whole, folder)
            with killed_at(number) as kill:
                open_tables(f"{prefix}{folder}/table").prune(TWO)
            if not kill.happened:
                return
            yield f"{prefix}{folder}/table"

    return tables


@pytest.mark.parametrize("prefix", ["", "parquet+"])
def test_a_kill_at_any_removal_leaves_no_version_half_there_and_the_next_time_goes_on(
    prefix: str, killed_prunes: Callable[[str], Iterator[str]], tmp_path: Path, served: Served
) -> None:
    kills = 0
    for url in killed_prunes(prefix):
        kills += 1
        assert served(url) == (3, {("u", "d"), ("v", "d")})
        assert_all_kept_read(url)
        assert {"c", "d"} <= set(kept(url)) <= set("abcd")
        open_tables(url).prune(TWO)
        assert kept(url) == ["d", "c"]
        assert_all_kept_read(url)
    undisturbed = contents(f"{prefix}{tmp_path}/{kills}/table")
    assert kills >= 4
    for number in range(kills):
        assert len(contents(f"{prefix}{tmp_path}/{number}/table")) == len(undisturbed)


@pytest.mark.parametrize("prefix", ["", "parquet+"])
def test_what_is_left_of_a_damaged_version_that_is_served_stays(
    prefix: str, tmp_path: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delta_files, "ROWS", 1)
    url = f"{prefix}{tmp_path}/table"
    for run_id in "abc":
        publish(url, run_id)
    before = contents(url)
    publish(url, "d")
    newest = sorted(contents(url).keys() - before.keys())
    lost, *left = [file for file in newest if file.endswith(".parquet") and "/table/" in file]
    Path(lost).unlink()
    open_tables(url).prune(TWO)
    assert left
    assert all(Path(file).exists() for file in left)


@pytest.mark.parametrize(
    ("prefix", "left"),
    [("", "part-00000-x.zstd.parquet"), ("parquet+", "publishes/000007-x/recommendations.parquet")],
)
def test_what_a_killed_publish_left_goes_when_it_is_old(
    tmp_path: Path, prefix: str, left: str, publish: Publish
) -> None:
    url, file = f"{prefix}{tmp_path}/table", tmp_path / "table" / left
    publish(url, "a")
    before = contents(url)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"123")
    (pruned,) = open_tables(url).prune(Keep(versions=2, days=0))  # a publish may be at work on it
    assert (pruned.leftovers, file.exists()) == (0, True)
    (pruned,) = open_tables(url).prune(Keep(versions=2, days=0, now=datetime.now(UTC) + timedelta(days=3)))
    assert (pruned.leftovers, pruned.bytes) == (1, 3)
    assert contents(url) == before


def test_a_drop_that_can_not_be_leaves_all_as_it_is(postgres: str, publish: Publish, served: Served) -> None:
    table = f"retention_{next(numbers)}"
    url = f"{postgres}&table={table}"
    for run_id in "abcd":
        publish(url, run_id)
    place = next(name for name in contents(url) if name.startswith(f"{table}_1_") and name.count("_") == 3)
    with dbapi.connect(postgres) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE VIEW of_others_{table} AS SELECT * FROM {place}")
        connection.commit()
    with pytest.raises(OSError, match=f"of_others_{table}"):
        open_tables(url).prune(TWO)
    assert kept(url) == ["d", "c", "b", "a"]
    assert served(url) == (3, {("u", "d"), ("v", "d")})


def test_files_that_a_rollback_may_need_meanwhile_stay(tmp_path: Path, publish: Publish) -> None:
    url = f"{tmp_path}/table"
    publish(url, "a")
    before = DeltaTable(url)
    publish(url, "b")
    files = delta_files.in_folder(url)
    with pytest.raises(OSError, match="meanwhile, nothing was removed"):
        delta_prune.remove(before, files)
    assert delta_files.in_folder(url) == files


def test_delta_versions_are_those_of_publishes_alone(tmp_path: Path, publish: Publish) -> None:
    url = f"{tmp_path}/table"
    for run_id in "abc":
        publish(url, run_id)
    open_tables(url).prune(TWO)
    assert (DeltaTable(url).version(), DeltaTable(f"{url}_popular").version()) == (2, 2)


def test_several_tables_are_pruned_each_and_go_back_together(
    tmp_path: Path, postgres: str, publish: Publish, runs: Runs
) -> None:
    urls = [f"{tmp_path}/delta", f"parquet+{tmp_path}/plain", f"{postgres}&table=retention_{next(numbers)}"]
    url = ",".join(urls)
    publish(urls[1], "first here")
    for run_id in "abc":
        publish(url, run_id)
    pruned = open_tables(url).prune(TWO)
    assert [[version.run_id for version in each.removed] for each in pruned] == [
        ["a"],
        ["a", "first here"],
        ["a"],
    ]
    assert [kept(each) for each in urls] == [["c", "b"]] * 3
    open_tables(url).rollback(at(url, "b"))
    assert [runs(each)[0] for each in urls] == ["b"] * 3


def test_what_killed_publishes_and_prunes_leave_on_a_disk_goes(tmp_path: Path, publish: Publish) -> None:
    url = f"{tmp_path}/delta"
    publish(url, "a")
    for folder in (tmp_path / "delta", tmp_path / "delta_popular"):
        (folder / "_delta_log" / "00000000000000000001.json#1").write_text("half")
    before = contents(url)
    open_tables(url).prune(Keep(versions=2, days=0))
    assert contents(url) == before  # a commit may be at work
    (pruned,) = open_tables(url).prune(TWO)
    assert pruned.leftovers == 1
    assert contents(url).keys() == {name for name in before if "#" not in name}

    url = f"parquet+{tmp_path}/plain"
    publish(url, "a")
    half = tmp_path / "plain" / "publishes" / "000007-0badf00d"
    half.mkdir()
    open_tables(url).prune(Keep(versions=2, days=0))
    assert half.exists()
    open_tables(url).prune(TWO)
    assert not half.exists()
    assert_all_kept_read(url)
