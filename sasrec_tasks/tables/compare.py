"""Two versions of the table, user by user, in a database on disk: they need not fit in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sasrec_tasks import scratch
from sasrec_tasks.tables.protocol import Tables

COLUMNS = ("USER_ID", "RANK", "ITEM_ID", "ORIGIN")


@contextmanager
def versions(tables: Tables, **named: int | None) -> Iterator[Any]:
    """A DuckDB connection with a table of each name, which holds the rows of a version; none, of None."""
    with scratch.database() as db:
        for name, version in named.items():
            if version is not None:
                db.register("rows", tables.rows(version, COLUMNS))
                db.execute(f"CREATE TABLE {name} AS FROM rows")
                db.unregister("rows")
        yield db
