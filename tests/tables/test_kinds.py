"""What a table of any kind promises: one whole version per run, and a way back."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from threading import Barrier, Thread
from typing import Any

import pyarrow as pa
import pytest

from sasrec_tasks.errors import BadSettings
from sasrec_tasks.tables import Published, Superseded, open_tables
from sasrec_tasks.tables.protocol import POPULAR, RECOMMENDATIONS

JANUARY, FEBRUARY = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)

Publish = Callable[..., Published]
Runs = Callable[[str], list[str]]
Served = Callable[[str], tuple[int, set[tuple[str, str]]]]


def test_nothing_is_published_where_no_table_is(url: str, runs: Runs) -> None:
    assert runs(url) == []
    assert list(open_tables(url).kept()) == []


def test_each_run_replaces_all_rows_in_one_version(url: str, publish: Publish, served: Served) -> None:
    assert publish(url, "a").version == 0
    assert publish(url, "b", metadata={"metrics": {"x": 0.5}}).version == 1
    assert served(url) == (1, {("u", "b"), ("v", "b")})
    assert open_tables(url).popular()["RUN_ID"].to_pylist() == ["b"]
    newest, oldest = open_tables(url).published()
    assert (newest.run_id, newest.version, newest.as_of) == ("b", 1, JANUARY)
    assert newest.metadata["metrics"] == {"x": 0.5}
    assert (oldest.run_id, oldest.version) == ("a", 0)


def test_rows_of_a_version_are_of_the_tables_columns(url: str, publish: Publish) -> None:
    publish(url, "a")
    publish(url, "b")
    for version, run_id in enumerate("ab"):
        rows = open_tables(url).rows(version).read_all()
        assert rows.schema.equals(RECOMMENDATIONS, check_metadata=False)
        assert rows.column("RUN_ID").to_pylist() == [run_id, run_id]
        assert rows.column("AS_OF").to_pylist() == [JANUARY, JANUARY]


def test_a_run_is_published_once(url: str, publish: Publish, served: Served) -> None:
    first = publish(url, "a")
    assert publish(url, "a").version == first.version
    publish(url, "b")
    assert publish(url, "a").version == first.version
    assert served(url) == (1, {("u", "b"), ("v", "b")})
    assert [kept.version for kept in open_tables(url).kept()] == [1, 0]


@pytest.mark.parametrize("existing", [[], ["before"]])
def test_of_two_tries_that_overlap_one_publishes(
    url: str, existing: list[str], publish: Publish, served: Served
) -> None:
    for run_id in existing:
        publish(url, run_id)
    inner: list[Published] = []
    outer = publish(url, "a", meanwhile=lambda: inner.append(publish(url, "a")))
    assert outer.version == inner[0].version == len(existing)
    assert served(url) == (len(existing), {("u", "a"), ("v", "a")})


def test_tries_that_race_from_the_start_publish_once(url: str, publish: Publish) -> None:
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
    assert [kept.version for kept in open_tables(url).kept()] == [0]


def test_runs_that_race_are_each_published_whole_or_told_to_try_again(
    url: str, publish: Publish, served: Served
) -> None:
    barrier = Barrier(4)
    others: list[OSError] = []

    def attempt(run_id: str) -> None:
        barrier.wait()
        while True:
            try:
                publish(url, run_id)
                return
            except OSError as error:
                # the S3 server of the tests answers one request at a time, and may keep one waiting for too long
                if not any(told in str(error) for told in ("try again", "timed out")):
                    others.append(error)
                    return
                time.sleep(0.2)

    threads = [Thread(target=attempt, args=(run_id,)) for run_id in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = list(open_tables(url).kept())
    assert not others
    assert [each.version for each in kept] == [3, 2, 1, 0]
    assert {each.run_id for each in kept} == set("abcd")
    for each in kept:
        assert open_tables(url).rows(each.version).read_all()["RUN_ID"].to_pylist() == [each.run_id] * 2


def test_another_run_that_publishes_meanwhile_is_not_overwritten(
    url: str, publish: Publish, served: Served
) -> None:
    publish(url, "a")
    with pytest.raises(OSError, match="try again"):
        publish(url, "b", meanwhile=lambda: publish(url, "c"))
    assert served(url) == (1, {("u", "c"), ("v", "c")})
    assert publish(url, "b").version == 2


def test_an_older_run_does_not_replace_a_newer_one(url: str, publish: Publish, served: Served) -> None:
    publish(url, "new", as_of=FEBRUARY)
    with pytest.raises(Superseded, match="new"):
        publish(url, "old", as_of=JANUARY)
    assert served(url) == (0, {("u", "new"), ("v", "new")})
    assert open_tables(url).popular()["RUN_ID"].to_pylist() == ["new"]


def test_an_older_run_does_not_replace_one_that_comes_meanwhile(
    url: str, publish: Publish, served: Served
) -> None:
    publish(url, "a", as_of=JANUARY)
    with pytest.raises(OSError, match="try again"):
        publish(url, "old", meanwhile=lambda: publish(url, "new", as_of=FEBRUARY))
    assert served(url)[1] == {("u", "new"), ("v", "new")}


@pytest.mark.parametrize("error", [RuntimeError("half way"), KeyboardInterrupt()])
@pytest.mark.parametrize("existing", [[], ["a"]])
def test_an_error_half_way_leaves_the_table_whole(
    url: str, error: BaseException, existing: list[str], publish: Publish, served: Served, runs: Runs
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


def test_rows_of_users_come_in_order(url: str, publish: Publish) -> None:
    publish(url, "a")
    tables = open_tables(url)
    assert tables.for_users(["v", "u"])["USER_ID"].to_pylist() == ["u", "v"]
    assert tables.for_users(["nobody"]).num_rows == tables.for_users([]).num_rows == 0


def test_any_number_of_users_is_read_at_once(url: str, publish: Publish) -> None:
    publish(url, "a")
    many = [f"user {number}" for number in range(70_000)]
    assert open_tables(url).for_users(["u", *many, "v", "\0"])["USER_ID"].to_pylist() == ["u", "v"]


def test_a_publish_may_have_no_rows_and_is_one_all_the_same(
    url: str, publish: Publish, served: Served, runs: Runs
) -> None:
    tables = open_tables(url)

    def publish_none(run_id: str, *batches: pa.RecordBatch) -> int:
        popular = POPULAR.empty_table()
        return tables.publish(iter(batches), popular, run_id=run_id, as_of=JANUARY, metadata={}).version

    none = RECOMMENDATIONS.empty_table().to_batches()
    assert publish_none("empty") == publish_none("empty") == 0
    publish(url, "a")
    assert publish_none("other", *none) == publish_none("other") == 2
    assert runs(url) == ["other", "a", "empty"]
    assert [kept.run_id for kept in tables.kept()] == ["other", "a", "empty"]
    assert tables.rows(2).read_all().num_rows == tables.popular(2).num_rows == tables.popular().num_rows == 0
    assert tables.rollback(at(url, "a")).version == 3
    assert served(url)[1] == {("u", "a"), ("v", "a")}
    assert tables.rollback(at(url, "empty")).version == 4
    assert runs(url) == ["empty"]
    assert tables.rows(4).read_all().num_rows == tables.popular(4).num_rows == 0


def test_reading_where_no_table_is_names_the_setting(url: str) -> None:
    with pytest.raises(BadSettings, match="table="):
        open_tables(url).for_users(["u"])
    with pytest.raises(BadSettings, match="table="):
        open_tables(url).popular()


# Rollback


def at(url: str, run_id: str) -> Published:
    return next(kept for kept in open_tables(url).kept() if kept.run_id == run_id)


def test_a_rollback_serves_an_earlier_publish_whole_as_a_new_version(
    url: str, publish: Publish, served: Served, runs: Runs
) -> None:
    for run_id in "abc":
        publish(url, run_id, metadata={"of": run_id})
    back = open_tables(url).rollback(at(url, "a"))
    assert (back.version, back.run_id, back.as_of) == (3, "a", JANUARY)
    assert served(url) == (3, {("u", "a"), ("v", "a")})
    assert open_tables(url).popular()["RUN_ID"].to_pylist() == ["a"]
    assert open_tables(url).rows(3).read_all().column("RUN_ID").to_pylist() == ["a", "a"]
    assert runs(url) == ["a"]
    newest = next(open_tables(url).published())
    assert newest.metadata["of"] == "a"
    assert newest.metadata["rolled_back"] == {"run_id": "c", "version": 2}


def test_a_rollback_keeps_what_was_published_before(url: str, publish: Publish, runs: Runs) -> None:
    for run_id in "abc":
        publish(url, run_id)
    open_tables(url).rollback(at(url, "b"))
    assert runs(url) == ["b", "a"]
    assert open_tables(url).rolled_back() == {"c"}
    open_tables(url).rollback(at(url, "a"))
    assert runs(url) == ["a"]
    assert open_tables(url).rolled_back() == {"b", "c"}
    assert {kept.run_id for kept in open_tables(url).kept()} == set("abc")


def test_a_rollback_can_be_taken_back(url: str, publish: Publish, served: Served, runs: Runs) -> None:
    for run_id in "abc":
        publish(url, run_id)
    open_tables(url).rollback(at(url, "a"))
    assert open_tables(url).rollback(at(url, "c")).version == 4
    assert served(url) == (4, {("u", "c"), ("v", "c")})
    assert runs(url)[0] == "c"
    assert open_tables(url).rolled_back() == set()
    assert open_tables(url).popular()["RUN_ID"].to_pylist() == ["c"]


def test_a_rollback_to_what_is_served_does_nothing(url: str, publish: Publish) -> None:
    publish(url, "a")
    assert open_tables(url).rollback(at(url, "a")).version == 0
    assert len(list(open_tables(url).kept())) == 1


def test_a_run_that_was_published_since_is_not_rolled_back(
    url: str, publish: Publish, served: Served
) -> None:
    for run_id in "ab":
        publish(url, run_id)
    tables, to, known = open_tables(url), at(url, "a"), at(url, "b")
    publish(url, "c")
    with pytest.raises(OSError, match="by another run meanwhile: try again"):
        tables.rollback(to, instead_of=known)
    assert served(url) == (2, {("u", "c"), ("v", "c")})
    assert tables.popular()["RUN_ID"].to_pylist() == ["c"]
    done = tables.rollback(to, instead_of=at(url, "c"))
    assert tables.rollback(to, instead_of=known).version == done.version  # tried again, after the commit
    assert served(url) == (3, {("u", "a"), ("v", "a")})


def test_after_a_rollback_runs_are_published_as_ever(url: str, publish: Publish, runs: Runs) -> None:
    for run_id, as_of in (("a", JANUARY), ("b", FEBRUARY)):
        publish(url, run_id, as_of=as_of)
    open_tables(url).rollback(at(url, "a"))
    assert publish(url, "c", as_of=JANUARY).version == 3  # no longer older than what is served
    assert runs(url) == ["c", "a"]
    assert publish(url, "b", as_of=FEBRUARY).version == 4  # was rolled back: published again
    assert runs(url) == ["b", "c", "a"]


# Readers


def test_a_reader_sees_one_run_whole_while_others_are_published(url: str, publish: Publish) -> None:
    publish(url, "0")
    found: list[set[str]] = []
    errors: list[BaseException] = []
    done = False

    def read() -> None:
        try:
            while not done:
                found.append(set(open_tables(url).for_users(["u", "v"])["RUN_ID"].to_pylist()))
        except BaseException as error:
            errors.append(error)

    reader = Thread(target=read)
    reader.start()
    for number in range(1, 8):
        publish(url, str(number))
    done = True
    reader.join()
    assert not errors
    assert all(len(runs) == 1 for runs in found)
    order = [int(*runs) for runs in found]
    assert order == sorted(order)


def test_many_rows_come_back_as_they_were(url: str) -> None:
    users = pa.array([f"user {n:06}" for n in range(50_000) for _ in range(2)])
    n = len(users)
    as_of: Any = pa.repeat(pa.scalar(JANUARY, RECOMMENDATIONS.field("AS_OF").type), n)
    columns = [
        users,
        pa.array([1, 2] * (n // 2), pa.int32()),
        pa.array([f"item {number % 97}" for number in range(n)]),
        pa.array([0.25, -1.5] * (n // 2), pa.float32()),
        pa.repeat("model", n),
        pa.repeat("a", n),
        as_of,
    ]
    rows = pa.Table.from_arrays(columns, schema=RECOMMENDATIONS)
    popular = rows.drop_columns("USER_ID").slice(0, 2)
    tables = open_tables(url)
    tables.publish(iter(rows.to_batches(8192)), popular, run_id="a", as_of=JANUARY, metadata={})
    assert tables.rows(0).read_all().equals(rows)
    assert tables.for_users(["user 049999"]).equals(rows.slice(n - 2))
