"""The whole pipeline with source, store and table on S3."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import write_deltalake

from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.pipeline import TASKS, newest_run, run_task
from sasrec_tasks.tables import Recommendations

Command = Callable[..., Any]


def test_night_after_night_on_s3(
    place: Any, bucket: str, chains: Callable[[], pa.Table], command: Command
) -> None:
    place.source, place.store, place.table = f"{bucket}/events", f"{bucket}/runs", f"{bucket}/table"
    with fsspec.open(f"{bucket}/events/date=2025-12-30/part.parquet", "wb") as file:
        pq.write_table(chains(), file)
    first = place.run("first")
    assert place.run("second", {"as_of": "2026-01-02"}).marker("gate").summary["champion"] == "first"
    assert newest_run(place.store).run_id == "second"
    served = Recommendations(place.table)
    assert (served.version, served.run_id, served.users()) == (1, "second", 100)
    assert set(served.for_user("user 3")["RUN_ID"]) == {"second"}
    again = [run_task(task, first.uri) for task in TASKS]  # clearing a finished run changes nothing
    assert [marker.summary for task in TASKS if (marker := RunStore(first.uri).marker(task))] == again
    assert Recommendations(place.table).version == 1

    shown = command("history", "--table", place.table, "--json")
    assert [row["RUN_ID"] for row in json.loads(shown.out)] == ["first", "second"]
    assert command("rollback", "--table", place.table).status == 0
    assert Recommendations(place.table).run_id == "first"


def test_events_of_a_delta_table_on_s3(place: Any, bucket: str, chains: Callable[[], pa.Table]) -> None:
    place.source, place.store = f"{bucket}/events", f"{bucket}/runs"
    write_deltalake(place.source, chains())
    store = place.run("run", upto="split")
    assert store.read_json("ingest", "manifest.json")["rows"] == len(chains())
    assert RunStore(store.uri).marker("split").summary["users"] == 100  # type: ignore[union-attr]
