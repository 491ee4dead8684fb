"""Publish a run in a process of its own and stop just before its rows would be served: `stopped.py URL RUN_ID`.

Prints "staged" there, and waits to be killed.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable

from sasrec_tasks.tables import open_tables
from sasrec_tasks.tables.parquet import ParquetTables
from sasrec_tasks.tables.postgres import PostgresTables
from sasrec_tasks.tables.protocol import POPULAR, RECOMMENDATIONS

commit = DeltaTable.create_write_transaction


def stop(*_: object, **__: object) -> None:
    sys.stdout.write("staged\n")
    sys.stdout.flush()
    time.sleep(600)


def commit_popular_items(table: DeltaTable, *arguments: Any, **options: Any) -> None:
    """The commit of the recommendations is the one that serves them."""
    if not table.table_uri.rstrip("/").endswith("_popular"):
        stop()
    commit(table, *arguments, **options)


if __name__ == "__main__":
    url, run_id = sys.argv[1:]
    # the last step of each kind
    DeltaTable.create_write_transaction = commit_popular_items
    ParquetTables._point_at = PostgresTables._serve = stop  # type: ignore[method-assign]
    as_of = datetime(2026, 1, 1, tzinfo=UTC)
    about = {"RANK": 1, "ITEM_ID": "i", "SCORE": 1.0, "ORIGIN": "model", "RUN_ID": run_id, "AS_OF": as_of}
    rows = pa.RecordBatch.from_pylist([{"USER_ID": user, **about} for user in "uv"], RECOMMENDATIONS)
    popular = pa.Table.from_pylist([about], POPULAR)
    open_tables(url).publish(iter([rows]), popular, run_id=run_id, as_of=as_of, metadata={})
