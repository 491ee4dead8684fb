"""A search that finds an id wherever a file can hold it, and nothing where there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from sasrec_tasks.mentions import Mentions
from sasrec_tasks.traces import in_folders

USER = "user-of-this-test"
OTHERS = [f"user-{number}" for number in range(1000)]

Plant = Callable[[Path], object]


def parquet(file: Path, table: pa.Table, **how: object) -> None:
    pq.write_table(table, file, compression="zstd", **how)


def in_statistics(folder: Path) -> None:
    table = pa.table({"USER_ID": [USER, "user-1"]})
    write_deltalake(str(folder / "table"), table)
    for file in (folder / "table").glob("*.parquet"):
        file.unlink()


def in_a_checkpoint(folder: Path) -> None:
    in_statistics(folder)
    DeltaTable(str(folder / "table")).create_checkpoint()
    for file in (folder / "table" / "_delta_log").glob("*.json"):
        file.unlink()


PLANTED: dict[str, Plant] = {
    "a column": lambda folder: parquet(folder / "a.parquet", pa.table({"USER_ID": [*OTHERS, USER]})),
    "a dictionary": lambda folder: parquet(
        folder / "a.parquet", pa.table({"USER_ID": pa.array([*OTHERS, USER]).dictionary_encode()})
    ),
    "a plain column": lambda folder: parquet(
        folder / "a.parquet", pa.table({"USER_ID": [*OTHERS, USER]}), use_dictionary=False
    ),
    "large text": lambda folder: parquet(
        folder / "a.parquet", pa.table({"USER_ID": pa.array([USER], pa.large_string())})
    ),
    "a nested column": lambda folder: parquet(
        folder / "a.parquet", pa.table({"of": [{"users": [{"user": "user-1"}, {"user": USER}]}]})
    ),
    "a reason": lambda folder: parquet(folder / "a.parquet", pa.table({"REASON": [f"bad: {USER!r}", None]})),
    "bytes in a column": lambda folder: parquet(
        folder / "a.parquet", pa.table({"raw": pa.array([b"\0" + USER.encode()], pa.binary())})
    ),
    "metadata": lambda folder: parquet(
        folder / "a.parquet", pa.table({"x": [1]}).replace_schema_metadata({"made for": USER})
    ),
    "statistics in a log": in_statistics,
    "statistics in a checkpoint": in_a_checkpoint,
    "json": lambda folder: (folder / "a.json").write_text(json.dumps([{"user": USER}])),
    "json escaped": lambda folder: (folder / "a.json").write_text(json.dumps({"a": f"é {USER}"})),
    "a key": lambda folder: (folder / "a.json").write_text(json.dumps({USER: 1})),
    "json without an end": lambda folder: (folder / "_SUCCESS").write_text('{"a": "' + USER),
    "markdown": lambda folder: (folder / "card.md").write_text(f"of {USER}."),
    "an array": lambda folder: np.save(folder / "a.npy", np.frombuffer(b"\0" + USER.encode(), np.uint8)),
    "bytes": lambda folder: (folder / "a.bin").write_bytes(b"\0\xff" * 4096 + USER.encode() + b"\0"),
    "text named parquet": lambda folder: (folder / "a.parquet").write_text(f"'{USER}'"),
    "a name": lambda folder: (folder / USER).write_text(""),
    "a hidden file": lambda folder: (folder / ".x").write_text(USER),
}


@pytest.mark.parametrize("where", PLANTED)
def test_it_is_found_in(where: str, tmp_path: Path) -> None:
    PLANTED[where](tmp_path)
    searched = in_folders([str(tmp_path)], Mentions([USER]))
    assert searched.found
    assert USER not in "".join(searched.found)
    assert searched.files >= 1
    others = in_folders([str(tmp_path)], Mentions(["user-of-this-tes", "user-of-this-test-2"])).found
    assert others == () or where in ("bytes", "bytes in a column", "an array")  # which know no words


def test_a_dictionary_is_searched_as_it_was_written_with_what_no_row_uses(tmp_path: Path) -> None:
    ids = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0]), pa.array(["user-1", "user-2", USER]))
    pq.write_table(pa.table({"USER_ID": ids}), tmp_path / "a.parquet", compression="none")
    assert USER not in pq.read_table(tmp_path / "a.parquet")["USER_ID"].to_pylist()
    is_there = USER.encode() in (tmp_path / "a.parquet").read_bytes()
    assert bool(in_folders([str(tmp_path)], Mentions([USER])).found) == is_there


def test_a_short_id_is_looked_for_where_ids_stand_and_not_among_numbers(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", pa.table({"USER_ID": ["41"], "ITEM_ID": ["42"], "RANK": [42]}))
    np.save(tmp_path / "a.npy", np.full(1000, 42))
    (tmp_path / "a.json").write_text(json.dumps({"rows": 42, "version": "42", "item": "42"}))
    assert in_folders([str(tmp_path)], Mentions(["42"])).found == ()
    parquet(tmp_path / "b.parquet", pa.table({"USER_ID": pa.array([41, 42])}))
    found = in_folders([str(tmp_path)], Mentions(["42"])).found
    assert found == (f"{tmp_path}/b.parquet: statistics of USER_ID", f"{tmp_path}/b.parquet: column USER_ID")


def test_what_is_counted_is_what_is_there(tmp_path: Path) -> None:
    assert in_folders([str(tmp_path / "nowhere")], Mentions([USER])).files == 0
    (tmp_path / "a").mkdir()
    for number in range(3):
        (tmp_path / "a" / f"{number}.json").write_text("{}")
    searched = in_folders([str(tmp_path)], Mentions([USER]))
    assert (searched.files, searched.bytes, searched.found) == (3, 6, ())
