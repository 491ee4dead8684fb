"""What the harness calls in the processes that it kills, where the package's own functions take no JSON."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from sasrec_tasks import forget as forgetting
from sasrec_tasks import pipeline, prune, rollback
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.config import Prune
from sasrec_tasks.naming import from_names
from sasrec_tasks.tables import Recommendations, open_tables
from sasrec_tasks.tables.protocol import POPULAR, RECOMMENDATIONS


def start(values: dict[str, Any], run_id: str) -> str:
    """Start a run; its URL."""
    return pipeline.start(from_names(values), run_id).uri


def run_all(run: str) -> dict[str, Any]:
    """All tasks of a run, and `prune`."""
    return pipeline.run_all(RunStore(run))


def roll_back(table: str, run_id: str = "") -> dict[str, Any]:
    """Serve an earlier publish again."""
    return rollback.roll_back(table, run_id=run_id)


def prune_at(
    table: str, store: str, settings: dict[str, Any], moment: str, current: str = ""
) -> dict[str, Any]:
    """Prune as if it were another time, in ISO 8601."""
    now = datetime.fromisoformat(moment).astimezone(UTC)
    return prune.prune(table, store, Prune(**settings), current=current, now=now).as_dict()


def forget(user: str, table: str, store: str) -> None:
    """Forget a user; nothing may be found of them afterwards."""
    report = forgetting.forget([user], table=table, store=store)
    if report.searched.found or any(cleaned.discarded for cleaned in report.runs):
        raise AssertionError(str(report))


def read(table: str) -> dict[str, Any]:
    """What a consumer gets who reads all of the newest version."""
    recommendations = Recommendations(table)
    rows = recommendations.to_pandas()
    return {
        "version": recommendations.version,
        "run_id": recommendations.run_id,
        "runs": sorted(rows["RUN_ID"].unique()),
        "rows": len(rows),
        "popular": sorted(recommendations.popular()["RUN_ID"].unique()),
    }


def run_from(run: str, first: str) -> None:
    """The tasks of a run from one of them on."""
    tasks = pipeline.tasks_of(RunStore(run).settings())
    for task in tasks[tasks.index(first) :]:
        pipeline.run_task(task, run)


def impatient(call: str, *arguments: Any) -> Any:
    """A call where a server that is silent counts as gone after a second or two, and not after minutes."""
    import s3fs

    from sasrec_tasks import postgresql, s3

    os.environ |= {"AWS_TIMEOUT": "1s", "AWS_MAX_ATTEMPTS": "1"}
    postgresql.SILENCE, s3.LONGEST = 2.0, 5.0
    s3fs.S3FileSystem.read_timeout = s3fs.S3FileSystem.connect_timeout = 1
    module, _, name = call.partition(":")
    return getattr(importlib.import_module(module), name)(*arguments)


def publish_large(table: str, run_id: str, megabytes: int, as_of: str) -> int:
    """Publish rows that no codec makes smaller; their number."""
    import s3fs

    s3fs.S3FileSystem.default_block_size = (
        5 * 2**20
    )  # parts of less than the usual 50 MB, so that there are a few
    rng = np.random.default_rng(len(run_id))
    rows = megabytes * 2**20 // 16

    def batches() -> Iterator[pa.RecordBatch]:
        for first in range(0, rows, 2**16):
            number = min(2**16, rows - first)
            items = rng.bytes(16 * number).hex()
            yield pa.RecordBatch.from_pydict(
                {
                    "USER_ID": [f"{first + n:09d}" for n in range(number)],
                    "RANK": [1] * number,
                    "ITEM_ID": [items[32 * n : 32 * n + 32] for n in range(number)],
                    "SCORE": [0.5] * number,
                    "ORIGIN": ["model"] * number,
                    "RUN_ID": [run_id] * number,
                    "AS_OF": [moment] * number,
                },
                RECOMMENDATIONS,
            )

    moment = datetime.fromisoformat(as_of).astimezone(UTC)
    popular = {
        "RANK": 1,
        "ITEM_ID": "p",
        "SCORE": 0.5,
        "ORIGIN": "popular",
        "RUN_ID": run_id,
        "AS_OF": moment,
    }
    return (
        open_tables(table)
        .publish(
            batches(), pa.Table.from_pylist([popular], POPULAR), run_id=run_id, as_of=moment, metadata={}
        )
        .version
    )


def publish_small(table: str, run_id: str) -> int:
    """Publish a row for each of 200 users; the version."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    same = {"RANK": 1, "ITEM_ID": f"of {run_id}", "SCORE": 0.5, "ORIGIN": "model", "RUN_ID": run_id}
    rows = [{**same, "AS_OF": moment, "USER_ID": f"{number:03d}"} for number in range(200)]
    batches = pa.Table.from_pylist(rows, RECOMMENDATIONS).to_batches(50)
    popular = pa.Table.from_pylist([{**same, "AS_OF": moment}], POPULAR)
    tables = open_tables(table)
    return tables.publish(iter(batches), popular, run_id=run_id, as_of=moment, metadata={}).version
