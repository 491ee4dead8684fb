"""Parts that take a known time each, made on a cluster, as a job or by who names it: workers of known speed.

python benchmarks/slow_parts.py RUN PARTS SECONDS [ADDRESS]
"""

from __future__ import annotations

import logging
import sys
import time

import pyarrow as pa
import ray

from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.config import Settings
from sasrec_tasks.on_ray import parts
from sasrec_tasks.shards import Shards

TASK = "slow"


class Slow:
    """Says nothing but the users of a part, after so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, shards: Shards, settings: Settings) -> parts.Make:
        """Waits like who works."""

        def make(users: range) -> pa.Table:
            time.sleep(self.seconds)
            return pa.table({"user": list(users)})

        return make


def main(run: str, number: int, seconds: float, address: str) -> None:
    """Have them made, each of one user."""
    ray.init(address=address, log_to_driver=False)
    store = RunStore(run)
    parts.make_all(
        [range(n, n + 1) for n in range(number)], Slow(seconds), Shards(store, TASK, "f"), store.settings()
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    run, number, seconds, *address = sys.argv[1:]
    main(run, int(number), float(seconds), *(address or ["auto"]))
