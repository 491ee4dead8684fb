from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from sasrec_tasks.errors import BadData, BadSettings
from sasrec_tasks.sources.files import list_files


@pytest.fixture(params=["local", "memory"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Files as engines leave them; the URL of their folder."""
    folder = f"file://{tmp_path}" if request.param == "local" else f"memory://{uuid.uuid4().hex}"
    fs, root = fsspec.core.url_to_fs(folder)
    for name in (
        "b.parquet", "a.parquet", "dt=2024-01-01/c.parquet", "dt=2024-01-02/country=de/d.pq", "_SUCCESS",
        "README.md", "_temporary/0/e.parquet", ".hidden.parquet", "dt=2024-01-01/.c.parquet.crc",
        "dt=2024-01-01/_metadata",
    ):  # fmt: skip
        fs.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
        fs.pipe_file(f"{root}/{name}", name.encode())
    return folder


def names(source: str, below: str) -> list[str]:
    _, root = fsspec.core.url_to_fs(below)
    return [file.path.removeprefix(f"{root}/") for file in list_files(source)[1]]


ALL = ["a.parquet", "b.parquet", "dt=2024-01-01/c.parquet", "dt=2024-01-02/country=de/d.pq"]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("", ALL),
        ("/", ALL),
        ("/a.parquet", ALL[:1]),
        ("/README.md", ["README.md"]),  # named outright: whether it is parquet, reading it tells
        ("/*.parquet", ALL[:2]),
        ("/[b-z].parquet", ["b.parquet"]),
        ("/?.parquet", ALL[:2]),
        ("/dt=2024-01-01/*", ALL[2:3]),
        ("/dt=2024-*", ALL[2:]),
        ("/dt=*/*.parquet", ALL[2:3]),
        ("/**/*.p*q*", ALL),
        ("/dt=2024-01-02", ALL[3:]),
        ("/_temporary/*/*.parquet", ["_temporary/0/e.parquet"]),
    ],
)
def test_files_folders_partitions_and_globs(tree: str, source: str, found: list[str]) -> None:
    assert names(tree + source, tree) == found


def test_sizes_are_those_of_the_files(tree: str) -> None:
    assert [file.bytes for file in list_files(tree)[1]] == [len(name) for name in ALL]


def test_a_changed_file_has_another_version(tree: str) -> None:
    before = list_files(f"{tree}/a.parquet")[1]
    assert list_files(f"{tree}/a.parquet")[1] == before
    fs, path = fsspec.core.url_to_fs(f"{tree}/a.parquet")
    fs.pipe_file(path, b"A.PARQUET")
    if tree.startswith("file"):
        os.utime(path, ns=(1, 1))
    assert list_files(f"{tree}/a.parquet")[1] != before


@pytest.mark.parametrize("missing", ["/none.parquet", "/none/", "/none/*.parquet", "/none-*", "/dt=2025-*"])
def test_what_is_not_there_is_named(tree: str, missing: str) -> None:
    with pytest.raises(BadData, match="source") as raised:
        list_files(tree + missing)
    assert tree + missing in str(raised.value)


def test_a_folder_without_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b")
    with pytest.raises(BadData, match="no parquet file") as raised:
        list_files(str(tmp_path))
    assert str(tmp_path) in str(raised.value)


@pytest.mark.parametrize("source", ["", "nosuch://x/y", "memory://x::nosuch://y"])
def test_a_source_of_no_known_kind_is_a_bad_setting(source: str) -> None:
    with pytest.raises(BadSettings, match="source"):
        list_files(source)


def test_a_name_with_a_pattern_in_it_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a[1].parquet").write_bytes(b"1")
    (tmp_path / "a1.parquet").write_bytes(b"22")
    assert [file.bytes for file in list_files(str(tmp_path / "a[1].parquet"))[1]] == [1]


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.parquet").write_bytes(b"abc")
    (tmp_path / "seen").mkdir()
    (tmp_path / "seen" / "link.parquet").symlink_to(tmp_path / "real" / "a.parquet")
    for source in ("seen", "seen/*.parquet", "seen/link.parquet"):
        assert [file.bytes for file in list_files(str(tmp_path / source))[1]] == [3]


@pytest.mark.parametrize("source", ["", "/", "/*.parquet", "/*/*.parquet", "/**/*.parquet"])
@pytest.mark.parametrize("partitioned", [None, ["day"]])
def test_a_delta_table_is_refused_since_its_folder_holds_replaced_rows(
    tmp_path: Path, source: str, partitioned: Any
) -> None:
    table = str(tmp_path / "table")
    for mode in ("append", "overwrite"):
        write_deltalake(table, pa.table({"a": [1], "day": ["x"]}), mode=mode, partition_by=partitioned)
    with pytest.raises(BadData, match=r"table: is a Delta table"):
        list_files(table + source)
    with pytest.raises(BadData, match="is a Delta table"):
        list_files(str(tmp_path))
