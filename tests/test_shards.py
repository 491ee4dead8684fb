from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.errors import BadData, BadSettings
from sasrec_tasks.shards import FOLDER, Shards


@pytest.fixture(params=["local", "s3"])
def shards(request: pytest.FixtureRequest, tmp_path: Path) -> Shards:
    store = tmp_path.as_uri() if request.param == "local" else request.getfixturevalue("bucket")
    return Shards(RunStore(f"{store.removeprefix('file://')}/run"), "export", "fingerprint")


def part(number: int) -> pa.Table:
    return pa.table({"number": [number]})


def test_parts_come_in_their_order_when_all_are_said_to_be_there(shards: Shards) -> None:
    for number in (2, 0, 1):
        shards.write(number, part(number))
    with pytest.raises(OSError, match="has not finished"):
        list(shards.all())
    shards.finish(3, repeats=7)
    assert shards.finished() == {"parts": 3, "named": [], "repeats": 7}
    assert [each["number"].to_pylist() for each in shards.all()] == [[0], [1], [2]]


def test_a_part_that_is_made_twice_is_there_once(shards: Shards) -> None:
    assert not shards.has(0)
    for _ in range(2):
        shards.write(0, part(5))
    assert shards.has(0)
    shards.finish(1)
    assert [each["number"].to_pylist() for each in shards.all()] == [[5]]


@pytest.mark.parametrize("gone", ["000001.parquet", "names.parquet"])
def test_what_was_finished_is_not_any_more_when_a_file_is_gone(shards: Shards, gone: str) -> None:
    """As where a user was forgotten while a job was at work."""
    for name in (0, 1, "names"):
        shards.write(name, part(7))
    shards.finish(2, named=["names.parquet"])
    assert shards.finished()
    shards.store.fs.rm_file(f"{shards.folder}/{gone}")
    assert shards.finished() is None
    with pytest.raises(OSError, match="1 parts were removed meanwhile: try again"):
        shards.finish(2, named=["names.parquet"])


def test_no_parts_are_all_there(shards: Shards) -> None:
    shards.finish(0)
    assert shards.finished() == {"parts": 0, "named": []}
    assert list(shards.all()) == []


def test_parts_of_other_inputs_are_others(shards: Shards) -> None:
    shards.write(0, part(1))
    assert not Shards(shards.store, "export", "other").has(0)
    assert not Shards(shards.store, "evaluate", "fingerprint").has(0)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (BadData("x.parquet: bad"), BadData),
        (BadSettings("train.epochs: bad"), BadSettings),
        (KeyError("a"), OSError),
    ],
)
def test_what_went_wrong_is_raised_by_the_task(shards: Shards, raised: Exception, told: Any) -> None:
    assert shards.failure() is None
    shards.fail(raised)
    failure = shards.failure()
    assert type(failure) is told
    assert str(raised) in str(failure)
    shards.forget_failure()
    assert shards.failure() is None


def test_nothing_is_left_of_parts_that_are_removed(shards: Shards) -> None:
    shards.write(0, part(0))
    shards.finish(1)
    shards.remove_all()
    shards.remove_all()
    assert shards.finished() is None
    shards.store.fs.invalidate_cache()
    assert not shards.store.fs.find(f"{shards.store.root}/{FOLDER}")
