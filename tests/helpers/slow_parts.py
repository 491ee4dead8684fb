"""Parts that take a second each, made on the cluster that is named: `slow_parts.py ADDRESS RUN`."""

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


def slow(shards: Shards, settings: Settings) -> parts.Make:
    """Says nothing but the users of a part."""

    def make(users: range) -> pa.Table:
        time.sleep(1)
        return pa.table({"user": list(users)})

    return make


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    address, run = sys.argv[1:]
    ray.init(address=address, log_to_driver=False)
    store = RunStore(run)
    parts.make_all([range(n, n + 1) for n in range(40)], slow, Shards(store, "slow", "f"), store.settings())
