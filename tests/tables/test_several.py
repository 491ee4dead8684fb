"""Several tables in one publish: the same rows in each, a failure is made good, and back together."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sasrec_tasks.tables import Published, open_tables
from sasrec_tasks.tables.parquet import ParquetTables

Publish = Callable[..., Published]
Runs = Callable[[str], list[str]]

numbers = itertools.count()


@pytest.fixture
def urls(tmp_path: Path, postgres: str) -> list[str]:
    return [f"{tmp_path}/delta", f"parquet+{tmp_path}/plain", f"{postgres}&table=several_{next(numbers)}"]


def test_each_has_the_same_rows_and_the_first_says_the_version(
    urls: list[str], publish: Publish, runs: Runs
) -> None:
    publish(urls[0], "before")
    published = publish(", ".join(urls), "a")
    assert published.version == 1
    first, *others = [open_tables(url).for_users(["u", "v"]) for url in urls]
    assert first["RUN_ID"].to_pylist() == ["a", "a"]
    assert all(rows.equals(first) for rows in others)
    assert runs(",".join(urls)) == ["a", "before"]
    assert open_tables(",".join(urls)).url == urls[0]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0]])
def test_a_table_that_failed_is_made_good_without_a_second_version_in_the_first(
    urls: list[str], order: list[int], publish: Publish, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = ",".join(urls[place] for place in order)
    publish(url, "a")

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("lost")

    with monkeypatch.context() as patch:
        patch.setattr(ParquetTables, "_write", fail)
        with pytest.raises(ConnectionError):
            publish(url, "b")
    assert runs(urls[order[0]]) == ["b", "a"]
    assert runs(urls[order[1]]) == runs(urls[order[2]]) == ["a"]
    assert publish(url, "b").version == 1
    assert [runs(each) for each in urls] == [["b", "a"]] * 3
    assert all(len(list(open_tables(each).kept())) == 2 for each in urls)


def test_they_go_back_together(urls: list[str], publish: Publish, runs: Runs) -> None:
    url = ",".join(urls)
    publish(urls[1], "first here")  # versions need not be the same
    for run_id in "ab":
        publish(url, run_id)
    to = next(kept for kept in open_tables(url).kept() if kept.run_id == "a")
    assert open_tables(url).rollback(to).version == 2
    assert [runs(each)[0] for each in urls] == ["a"] * 3


def test_they_stay_where_they_are_if_one_can_not_go_back(
    urls: list[str], publish: Publish, runs: Runs
) -> None:
    publish(urls[0], "a")
    publish(",".join(urls), "b")
    to = next(kept for kept in open_tables(urls[0]).kept() if kept.run_id == "a")
    with pytest.raises(OSError, match=rf"no rows of run a: .* or roll back {re.escape(urls[0])} alone"):
        open_tables(",".join(urls)).rollback(to)
    assert [runs(each)[0] for each in urls] == ["b"] * 3
    open_tables(urls[0]).rollback(to)
    assert [runs(each)[0] for each in urls] == ["a", "b", "b"]
    publish(",".join(urls), "c")
    assert [runs(each)[0] for each in urls] == ["c"] * 3


def test_one_that_holds_a_later_night_stays_and_the_others_are_published(
    urls: list[str], publish: Publish, runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    publish(urls[1], "later", as_of=datetime(2026, 3, 1, tzinfo=UTC))
    with caplog.at_level(logging.WARNING):
        assert publish(",".join(urls), "a").version == 0
    assert [runs(each) for each in urls] == [["a"], ["later"], ["a"]]
    assert "run later of 2026-03-01T00:00:00+00:00 is published: it stays as it is" in caplog.text


def test_a_publish_that_is_overtaken_by_a_rollback_or_a_publish_leaves_all_alike(
    urls: list[str], publish: Publish, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = ",".join(urls)
    publish(url, "a")
    to = next(open_tables(url).kept())
    first_publish = ParquetTables.publish

    def overtaken(by: Callable[[], object]) -> Callable[..., Published]:
        def publish_late(tables: ParquetTables, *rows: Any, **about: Any) -> Published:
            monkeypatch.setattr(ParquetTables, "publish", first_publish)
            by()
            return first_publish(tables, *rows, **about)

        return publish_late

    monkeypatch.setattr(ParquetTables, "publish", overtaken(lambda: open_tables(url).rollback(to)))
    publish(url, "b")
    assert [runs(each)[0] for each in urls] == ["a"] * 3
    monkeypatch.setattr(ParquetTables, "publish", overtaken(lambda: publish(url, "d")))
    publish(url, "c")
    assert [runs(each)[0] for each in urls] == ["d"] * 3
    publish(url, "c")
    assert [runs(each)[0] for each in urls] == ["d"] * 3
