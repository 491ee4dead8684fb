"""A DuckDB database on disk for the length of a piece of work, so that this need not fit in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb


@contextmanager
def database(folder: Path | str | None = None, **config: Any) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection; what is spilled goes to the same place, and all of it is gone afterwards.

    Args:
        folder: where to put it; None is the system's place for such files.
        config: DuckDB's settings, for instance memory_limit.
    """
    with tempfile.TemporaryDirectory(prefix="duckdb-", dir=folder) as scratch:
        own = {"temp_directory": scratch, "autoinstall_known_extensions": False}
        with duckdb.connect(f"{scratch}/scratch.duckdb", config={**own, **config}) as db:
            yield db
