"""The data files of a Delta table, written in the order of the rows.

deltalake's own writer shares batches out among threads and mixes their order. Rows in order of USER_ID lie in few
files of a known range each, so that a reader who asks for one user opens one file, and one group of its rows.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.transaction import AddAction
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from sasrec_tasks import filesystem
from sasrec_tasks.files import File, is_local, listed, naming, sync

ROWS = 2**21
"""Of a file."""

ROW_GROUP = 2**16

STAGED = re.compile(r".*#\d+")
"""Names of what deltalake writes on a disk before it is renamed or linked to its own name."""


class DataFiles:
    """New files in the folder of a table, which no version names yet."""

    def __init__(self, url: str) -> None:
        self.fs, root = filesystem.opened(url, "table")
        self.root = root.rstrip("/")
        self.written: list[str] = []

    def write(self, rows: Iterable[pa.RecordBatch], schema: pa.Schema) -> list[AddAction]:
        """Write all rows; nothing is left of them if that fails.

        Returns:
            What to add to the table in its next version. Once that is tried, whatever comes of it, the files
            stay: a commit that seems to have failed may have reached the log.
        """
        self.fs.makedirs(self.root, exist_ok=True)
        try:
            return [self._write_one(table, schema) for table in _in_files(rows, schema)]
        except BaseException:
            for name in self.written:
                with suppress(OSError):  # it is not there, or is left to prune: why it failed matters more
                    self.fs.rm_file(f"{self.root}/{name}")
            raise

    def _write_one(self, table: pa.Table, schema: pa.Schema) -> AddAction:
        name = f"part-{len(self.written):05d}-{uuid.uuid4()}.zstd.parquet"
        self.written.append(name)
        with naming(self.root):
            with self.fs.open(f"{self.root}/{name}", "wb") as file:
                pq.write_table(table, file, compression="zstd", row_group_size=ROW_GROUP)
            sync(self.fs, f"{self.root}/{name}")
        return AddAction(
            path=name,
            size=int(self.fs.size(f"{self.root}/{name}")),
            partition_values={},
            modification_time=int(time.time() * 1000),
            data_change=True,
            stats=json.dumps(_statistics(table, schema)),
        )


def folder_of(table: DeltaTable) -> str:
    """URL of a table's folder as file systems take it; deltalake's has %20 for a space."""
    return unquote(table.table_uri)


def in_folder(url: str) -> dict[str, File]:
    """Name → file, of all data files in the folder of a table."""
    fs, root = filesystem.opened(url, "table")
    below = len(root.rstrip("/")) + 1
    return {
        file.path.rpartition("/")[2]: file
        for file in listed(fs, root)
        if file.path.endswith(".parquet") and not file.path[below:].startswith(("_", "."))
    }


def staged(url: str) -> dict[str, File]:
    """Name → file, of what is in the folder or in the log of a table, and has not come to its own name."""
    fs, root = filesystem.opened(url, "table")
    return {file.path: file for file in listed(fs, root) if STAGED.fullmatch(file.path.rpartition("/")[2])}


def dataset(table: DeltaTable) -> ds.Dataset:
    """The rows of a version.

    Files of this machine are read by pyarrow itself: through the file system that deltalake hands to it, a file takes
    longer, and a process that ends while its threads still read does not survive it.
    """
    fs, root = filesystem.opened(folder_of(table), "table")
    own = SubTreeFileSystem(root, LocalFileSystem()) if is_local(fs) else None
    return table.to_pyarrow_dataset(filesystem=own)


def in_order(table: DeltaTable) -> Iterator[pa.RecordBatch]:
    """The rows of a version in the order in which they were written, as the files' names tell it."""
    found = dataset(table)
    for file in sorted(found.get_fragments(), key=lambda fragment: str(fragment.path)):
        yield from file.to_batches(schema=found.schema)


def _in_files(rows: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of each file; one of none, if there are none."""
    waiting: list[pa.RecordBatch] = []
    number, is_first = 0, True
    for batch in rows:
        waiting.append(batch)
        number += len(batch)
        if number >= ROWS:
            yield pa.Table.from_batches(waiting, schema)
            waiting, number, is_first = [], 0, False
    if number or is_first:
        yield pa.Table.from_batches(waiting, schema)


def _statistics(table: pa.Table, schema: pa.Schema) -> dict[str, Any]:
    """Number of rows, and the range of the columns that readers look for."""
    columns = [name for name in ("USER_ID", "ITEM_ID", "RANK") if name in schema.names]
    ranges = {name: pc.min_max(table[name]).as_py() for name in columns} if len(table) else {}
    return {
        "numRecords": len(table),
        "minValues": {name: found["min"] for name, found in ranges.items()},
        "maxValues": {name: found["max"] for name, found in ranges.items()},
        "nullCount": dict.fromkeys(schema.names, 0),
    }
