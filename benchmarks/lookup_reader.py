"""Looks users up in a table, in a process of its own: `lookup.py` starts it.

    python benchmarks/lookup_reader.py task.json

`task.json` holds url, way, users and where to leave the result.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
from deltalake import DeltaTable

from sasrec_tasks.tables import Recommendations
from sasrec_tasks.tables.parquet import POINTER, PREFIX

Lookup = Callable[[str], Any]  # USER_ID → the user's rows

SELECT = "SELECT ITEM_ID, SCORE FROM recommendations WHERE USER_ID = '{user}' ORDER BY RANK"


def reader(url: str) -> Lookup:
    """The package's own."""
    return Recommendations(url).for_user


def duckdb_on(url: str) -> Lookup:
    """DuckDB, as the README shows it on a Delta table, or on the file that a parquet table serves."""
    db = duckdb.connect()
    if url.startswith(PREFIX):
        db.sql(f"CREATE VIEW recommendations AS SELECT * FROM read_parquet('{served(url)}')")
    else:
        db.register("recommendations", DeltaTable(url).to_pyarrow_dataset())
    return lambda user: db.sql(SELECT.format(user=user)).df()


def served(url: str) -> Path:
    """The file that a parquet table serves."""
    folder = Path(url.removeprefix(PREFIX))
    return folder / str(json.loads((folder / POINTER).read_text(encoding="utf-8"))["recommendations"])


WAYS: dict[str, Callable[[str], Lookup]] = {"the package's reader": reader, "DuckDB": duckdb_on}


def timed(url: str, way: str, users: list[str]) -> dict[str, list[float]]:
    """Milliseconds of each lookup.

    Returns:
        first: of the first user, with all that a process does but once. opened: of the users, the table opened anew
        for each. warm: of the users, from the table that is open.
    """
    opened = WAYS[way]
    found: dict[str, list[float]] = {"first": [], "opened": [], "warm": []}
    started = time.perf_counter()
    rows = len(opened(url)(users[0]))
    found["first"].append((time.perf_counter() - started) * 1e3)
    lookup = opened(url)
    for user in users[1:]:
        for name, call in (("opened", lambda user: opened(url)(user)), ("warm", lookup)):
            started = time.perf_counter()
            assert len(call(user)) == rows, user
            found[name].append((time.perf_counter() - started) * 1e3)
    return found


def main(file: Path) -> None:
    """Look up, and leave the result."""
    task = json.loads(file.read_text(encoding="utf-8"))
    result = timed(task["url"], task["way"], task["users"])
    Path(task["result"]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
