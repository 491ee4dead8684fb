"""A few users of a run, what they did last and what they would be served, for people to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sasrec_tasks import trained
from sasrec_tasks.artifacts import write_json
from sasrec_tasks.contents import EXAMPLES, USERS
from sasrec_tasks.rows import Rows
from sasrec_tasks.sasrec.sequences import Int64
from sasrec_tasks.tables.protocol import RECOMMENDATIONS

NUMBER = 5
RECENT_ITEMS = 5
SERVED_ITEMS = 10


def write(folder: Path, rows: Rows, weights: str = trained.GATED) -> None:
    """Write `examples.json`: users from the whole range of history lengths, shortest first, a dict each.

    user (id), events (number), recent (item ids, newest last), served (rank, item, score, origin; best first).

    Args:
        weights: the task that left them.
    """
    users = _choose(rows)
    served = pa.Table.from_batches(rows.of_places(users, weights), RECOMMENDATIONS).to_pylist()
    found = [
        _example(rows, int(user), name, served) for user, name in zip(users, _ids(rows, users), strict=True)
    ]
    write_json(folder / EXAMPLES, found)


def _choose(rows: Rows) -> Int64:
    """Places of users who have rows, by the length of their history; all of them where there are few."""
    active = rows.eligible.active
    users = np.arange(len(rows.data.events)) if active is None else np.flatnonzero(active)
    by_length = users[np.argsort(rows.data.events.lengths[users], kind="stable")]
    places = (
        np.linspace(0, len(by_length) - 1, min(NUMBER, len(by_length)) + 2).round()[1:-1].astype(np.int64)
    )
    return by_length[np.unique(places)]


def _ids(rows: Rows, users: Int64) -> list[str]:
    """USER_ID of places, in their order; the file is read a block at a time."""
    found: dict[int, str] = {}
    first = 0
    file = pq.ParquetFile(rows.store.folder("split") / USERS, pre_buffer=False)
    for batch in file.iter_batches(columns=["USER_ID"]):
        for user in users[(users >= first) & (users < first + len(batch))]:
            found[int(user)] = batch.column(0)[int(user) - first].as_py()
        first += len(batch)
    return [found[int(user)] for user in users]


def _example(rows: Rows, user: int, name: str, served: list[dict[str, Any]]) -> dict[str, Any]:
    end, length = rows.data.events.ends[user], int(rows.data.events.lengths[user])
    recent = rows.data.events.items[end - min(length, RECENT_ITEMS) : end]
    return {
        "user": name,
        "events": length,
        "recent": [str(rows.items[item]) for item in recent],
        "served": [
            {"rank": row["RANK"], "item": row["ITEM_ID"], "score": row["SCORE"], "origin": row["ORIGIN"]}
            for row in served
            if row["USER_ID"] == name
        ][:SERVED_ITEMS],
    }
