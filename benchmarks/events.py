"""Interactions of any size, for timing: string ids, in no order, a fifth of them tied in time.

    python benchmarks/events.py --out events.parquet --events 50_000_000 --users 1_000_000 --items 100_000

Users are as active, and items as popular, as a log-normal and a Zipf law say; nothing is to be learned
from what follows what. Written a chunk at a time, so that memory does not grow with the events.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [
        ("USER_ID", pa.string()),
        ("ITEM_ID", pa.string()),
        ("OUTCOME", pa.float64()),
        ("TIMESTAMP", pa.int64()),
    ]
)
START, YEAR = 1_735_689_600, 365 * 24 * 3600  # seconds: 2025, as long as a year
CHUNK = 1_000_000  # events
TIED = 0.21  # share of events at one of a user's busy moments
BUSY_MOMENTS = 3  # of a user
TIMES = np.uint64(0x9E3779B97F4A7C15)  # golden ratio: spreads a number over all bits


def main() -> None:
    """Write a file."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--out", type=Path, required=True, help="parquet file")
    arguments.add_argument("--events", type=int, default=50_000_000)
    arguments.add_argument("--users", type=int, default=1_000_000)
    arguments.add_argument("--items", type=int, default=100_000)
    arguments.add_argument("--bad", type=float, default=0.0, help="share of rows that a contract rejects")
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    write(options.out, options.events, options.users, options.items, bad=options.bad, seed=options.seed)


def write(
    file: Path,
    events: int,
    users: int,
    items: int,
    *,
    bad: float = 0.0,
    every_item: bool = False,
    seed: int = 0,
) -> None:
    """Write so many events; of a share ``bad`` of them, half have no item and half an infinite outcome.

    With ``every_item`` the first events are of one item each, so that none is left out.
    """
    random = np.random.default_rng(seed)
    active = np.cumsum(random.lognormal(0, 1, users))
    popular = np.cumsum(1 / (10 + random.permutation(items)))
    with pq.ParquetWriter(file, SCHEMA) as writer:
        for start in range(0, events, CHUNK):
            n = min(CHUNK, events - start)
            user = np.searchsorted(active, random.random(n) * active[-1])
            item = np.searchsorted(popular, random.random(n) * popular[-1])
            if every_item and start < items:
                named = np.arange(start, min(start + n, items))
                item[: len(named)] = named
            moment = (user * BUSY_MOMENTS + random.integers(BUSY_MOMENTS, size=n)).astype(np.uint64) * TIMES
            tied = random.random(n) < TIED
            time = START + np.where(tied, moment % YEAR, random.integers(YEAR, size=n)).astype(np.int64)
            outcome = random.integers(1, 6, size=n).astype(np.float64)
            wrong = random.random(n) < bad
            first = random.random(n) < 0.5
            outcome[wrong & first] = np.inf
            columns = [
                ids("user-", user),
                ids("item-", item, missing=wrong & ~first),
                pa.array(outcome),
                pa.array(time),
            ]
            writer.write_table(pa.table(columns, schema=SCHEMA))


def ids(prefix: str, numbers: np.ndarray, missing: np.ndarray | None = None) -> pa.Array:
    """Text that begins with ``prefix``, null where ``missing``."""
    text = pa.array(numbers, pa.int64(), mask=missing).cast(pa.string())
    return pc.binary_join_element_wise(prefix, text, "")


if __name__ == "__main__":
    main()
