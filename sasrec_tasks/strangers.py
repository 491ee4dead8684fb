"""Users whom a run does not know, but to whom a table of pairs leaves out items.

Readers give the popular items to a user who is not in the table, and can't know what is left out to whom. So those to
whom one of the popular items is left out get rows of their own, though they have no events.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sasrec_tasks import scratch
from sasrec_tasks.sasrec.sequences import Int64, Sequences

PAIRS = pa.schema([("USER_ID", pa.string()), ("ITEM", pa.int32())])  # index of the item in the catalogue

CONCERNED = """
SELECT USER_ID, ITEM FROM pairs
WHERE USER_ID IN (SELECT USER_ID FROM pairs JOIN popular USING (ITEM)) ORDER BY USER_ID, ITEM
"""


class Strangers:
    """Their pairs, on disk while they are collected."""

    def __init__(self, database: Any) -> None:
        self.database = database
        database.execute("CREATE TABLE pairs (USER_ID VARCHAR, ITEM INTEGER)")

    def add(self, users: pa.Array, items: Int64) -> None:
        """Pairs of users, and items by index."""
        if len(users):
            self.database.register("rows", pa.table([users, items.astype(np.int32)], schema=PAIRS))
            self.database.execute("INSERT INTO pairs FROM rows")
            self.database.unregister("rows")

    def write(self, file: Path) -> int:
        """Each pair once, in order; their number."""
        in_order = "SELECT DISTINCT * FROM pairs ORDER BY USER_ID, ITEM"
        done = self.database.execute(f"COPY ({in_order}) TO {_quoted(file)} (FORMAT parquet)")
        return int(done.fetchall()[0][0])


@contextmanager
def collected() -> Iterator[Strangers]:
    """A place for the pairs, gone when it is left."""
    with scratch.database(memory_limit="512MB") as database:
        yield Strangers(database)


def concerned(file: Path, popular: Int64) -> tuple[pa.Array, Sequences]:
    """Those who must not get one of the popular items.

    Args:
        file: as `Strangers.write` leaves it.
        popular: item indices.

    Returns:
        USER_IDs in order, and what is left out to each.
    """
    with scratch.database(memory_limit="512MB") as database:
        database.register("popular", pa.table({"ITEM": popular.astype(np.int32)}))
        database.execute(f"CREATE VIEW pairs AS FROM read_parquet({_quoted(file)})")
        found = database.sql(CONCERNED).to_arrow_table()
    users = found["USER_ID"].combine_chunks()
    if not len(users):
        return pa.array([], pa.string()), Sequences.from_offsets(
            np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
        )
    ends = pc.run_end_encode(users, run_end_type=pa.int64())
    offsets = np.concatenate([[0], ends.run_ends.to_numpy()])
    items = found["ITEM"].to_numpy()
    return ends.values.cast(pa.string()), Sequences.from_offsets(
        offsets, items, np.zeros(len(items), dtype=np.float32)
    )


def merged(one: Iterable[pa.RecordBatch], other: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Rows of two streams as one in order of USER_ID, whole users in a batch, as in each of the two.

    Args:
        one: rows in order of USER_ID.
        other: of other users.
    """
    streams = [(batch for batch in stream if len(batch)) for stream in (one, other)]
    heads = [next(stream, None) for stream in streams]
    while heads[0] is not None and heads[1] is not None:
        last = min(head.column("USER_ID")[-1].as_py() for head in heads if head is not None)
        taken = []
        for place, head in enumerate(heads):
            assert head is not None
            upto = pc.sum(pc.less_equal(head.column("USER_ID"), last)).as_py()
            taken += [head.slice(0, upto)] if upto else []
            heads[place] = head.slice(upto) if upto < len(head) else next(streams[place], None)
        if len(taken) == 1:
            yield taken[0]
        else:
            in_order = pa.Table.from_batches(taken).sort_by([("USER_ID", "ascending"), ("RANK", "ascending")])
            yield from in_order.combine_chunks().to_batches()
    for head, stream in zip(heads, streams, strict=True):
        if head is not None:
            yield head
            yield from stream


def _quoted(file: Path) -> str:
    return "'" + str(file).replace("'", "''") + "'"
