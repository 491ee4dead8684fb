"""The files of all versions, by one replay of the log, are those that deltalake says of each."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError
from hypothesis import given, settings
from hypothesis import strategies as st

from sasrec_tasks.tables import Keep, Published, Recommendations, open_tables
from sasrec_tasks.tables.delta_replay import Names, files_of_versions, of_version

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)

Batch = Callable[..., pa.RecordBatch]
Publish = Callable[..., Published]


def by_deltalake(url: str) -> dict[int, Names]:
    """What is to be found: each version, opened."""
    found = {}
    for version in range(DeltaTable(url).version() + 1):
        try:
            found[version] = of_version(DeltaTable(url, version=version))
        except DeltaError:
            continue
    return found


def change(url: str, what: str, number: int, publish: Publish, batch: Batch) -> None:
    """One more version; nothing of what can't be done to a table that is not there."""
    if what == "publish" or not DeltaTable.is_deltatable(url):
        publish(url, f"run {number}")
    elif what == "append":
        write_deltalake(url, pa.Table.from_batches([batch(f"run {number}", JANUARY, "w")]), mode="append")
    elif what == "compact":
        DeltaTable(url).optimize.compact()
    elif what == "restore":
        DeltaTable(url).restore(number // 2)
    elif what == "delete":
        DeltaTable(url).delete("USER_ID = 'w'")
    elif what == "checkpoint":
        DeltaTable(url).create_checkpoint()


@settings(max_examples=15, deadline=None)
@given(
    changes=st.lists(
        st.sampled_from(["publish", "append", "compact", "restore", "delete", "checkpoint"]), max_size=8
    ),
    cleaned=st.integers(0, 4),
)
def test_it_is_what_deltalake_says(publish: Publish, batch: Batch, changes: list[str], cleaned: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        url = f"{folder}/a table"
        for number, what in enumerate(["publish", *changes]):
            if what != "restore" or number // 2 < DeltaTable(url).version():
                change(url, what, number, publish, batch)
        assert files_of_versions(DeltaTable(url)) == by_deltalake(url)
        DeltaTable(url).create_checkpoint()
        for version in range(min(cleaned, DeltaTable(url).version())):  # as Delta does after 30 days
            (Path(url) / "_delta_log" / f"{version:020d}.json").unlink()
        # a version whose log has a gap is not told, where deltalake at times makes one up of the rest
        found, expected = files_of_versions(DeltaTable(url)), by_deltalake(url)
        assert found == {version: expected[version] for version in found}
        assert DeltaTable(url).version() in found


def test_versions_after_the_one_that_is_open_are_not_told(tmp_path: Path, publish: Publish) -> None:
    url = str(tmp_path / "table")
    publish(url, "a")
    before = DeltaTable(url)
    publish(url, "b")
    assert list(files_of_versions(before)) == [0]


def test_listing_opens_no_more_tables_for_more_versions(
    tmp_path: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(tmp_path / "table")
    opened = []
    make = DeltaTable.__init__

    def counting(table: DeltaTable, *args: object, **kwargs: object) -> None:
        opened.append(table)
        make(table, *args, **kwargs)

    def opens() -> list[int]:
        tables = open_tables(url)
        numbers = []
        for ask in (
            lambda: list(tables.kept()),
            lambda: tables.popular(1),
            lambda: Recommendations(url, version=1),
            lambda: tables.prune(Keep(versions=2, days=None), dry_run=True),
        ):
            opened.clear()
            ask()
            numbers.append(len(opened))
        return numbers

    monkeypatch.setattr(DeltaTable, "__init__", counting)
    for number in range(3):
        publish(url, f"run {number}")
    few = opens()
    for number in range(3, 10):
        publish(url, f"run {number}")
    assert opens() == few
