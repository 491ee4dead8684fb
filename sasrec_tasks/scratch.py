"""A DuckDB database on disk for the length of a piece of work, so that this need not fit in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from sasrec_tasks import abandoned


@contextmanager
def database(folder: Path | str | None = None, **config: Any) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection; what is spilled goes to the same place, and all of it is gone afterwards, or, if the process is
    killed, when this host makes the next one.

    Args:
        folder: where to put it; None is the system's place for such files.
        config: DuckDB's settings, for instance memory_limit.

    Raises:
        OSError: a file can't be read or written.
    """
    with abandoned.temporary_folder("sasrec-duckdb-", folder) as place:
        scratch = str(place)
        own = {"temp_directory": scratch, "autoinstall_known_extensions": False}
        try:
            with duckdb.connect(f"{scratch}/scratch.duckdb", config={**own, **config}) as db:
                yield db
        except (
            duckdb.IOException,
            duckdb.TransactionException,
        ) as error:  # the latter of a commit to the disk
            raise OSError(str(error).partition("\n")[0]) from error
