"""Work on users, part by part, by actors that load what they need once.

Ray Data gives a lost node's parts to others. Each part is one file that is written whole, so that one which was made
twice is there once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data

from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.config import Settings
from sasrec_tasks.errors import RetryCannotHelp
from sasrec_tasks.on_ray import cluster
from sasrec_tasks.progress import bar
from sasrec_tasks.shards import Shards

log = logging.getLogger(__name__)

PARTS = 32
"""At least, where there are enough users: little is lost with a worker, and none is waited for long."""

MOST_USERS, MOST_SCORES = 65_536, 2**36
"""Of a part; so many scores take two cores a minute or so. Where a part takes longer than `ray.wait_minutes`, it looks
as if nothing came of it."""

Make = Callable[[range], pa.Table]
"""Users → their part."""


Maker = Callable[[Shards, Settings], Make]
"""Loads what is needed for all parts."""


class _Actor:
    def __init__(self, maker: Maker, run: str, task: str, fingerprint: str) -> None:
        self._shards = Shards(RunStore(run), task, fingerprint)
        self._shards.store.trust("split")  # the job has read it all
        try:
            self._make = maker(self._shards, self._shards.store.settings())
        except RetryCannotHelp as error:  # Ray tells only that the actor has died
            self._shards.fail(error)
            raise

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if not self._shards.has(row["number"]):
            self._shards.write(row["number"], self._make(range(row["start"], row["stop"])))
        return row | {"node": ray.get_runtime_context().get_node_id()}


def users_of_part(users: int, items: int) -> int:
    """How many users a part has, of so many in all and so many items."""
    return max(1, min(MOST_USERS, MOST_SCORES // max(items, 1), -(-users // PARTS)))


def make_all(parts: list[range], maker: Maker, shards: Shards, settings: Settings) -> None:
    """Make the parts that are not there, and say when all are."""
    missing = [number for number in range(len(parts)) if not shards.has(number)]
    if missing:
        rows = [{"number": n, "start": parts[n].start, "stop": parts[n].stop} for n in missing]
        cluster.limit_data(settings.ray)
        made = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _Actor,
            fn_constructor_args=(maker, shards.store.uri, shards.task, shards.fingerprint),
            concurrency=(1, settings.ray.workers),
            **cluster.options(settings.ray),
        )
        users = np.array([len(part) for part in parts])
        done, nodes = int(users.sum() - users[missing].sum()), set()
        with bar(shards.task, int(users.sum()), "users") as advance:
            advance(done)
            for row in made.iter_rows():
                done += row["stop"] - row["start"]
                nodes.add(row["node"])
                advance(done)
        log.info("%s: %d parts, made on %d node(s)", shards.task, len(missing), len(nodes))
    shards.finish(len(parts))
