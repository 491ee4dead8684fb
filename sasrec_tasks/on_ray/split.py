"""`split` on a cluster: events are brought together by ranges of USER_ID, and each range is sorted by itself.

Ranges rather than hashes of USER_ID: the order of users is that of their ids, so that the sorted ranges, one after
another, are what one machine makes, to the byte. Ray Data moves the events; the SQL of one machine sorts a range.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray.data
from ray.data.aggregate import Count, Min

from sasrec_tasks import scratch, sorting
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.config import Settings, Split
from sasrec_tasks.contents import ARRAYS, COLUMNS, REJECTED, SNAPSHOT
from sasrec_tasks.on_ray import cluster
from sasrec_tasks.shards import Shards

log = logging.getLogger(__name__)

EVENTS_OF_RANGE = 2_000_000
"""About so many: they are sorted in memory, a few hundred MB."""

LEAST_RANGES = 8

SAMPLED_PER_RANGE = 1000
"""USER_IDs that are looked at to make ranges of about as many events."""

NOBODY = pa.table({"USER_ID": pa.array([], pa.string()), "events": pa.array([], pa.int64())})

ITEMS, RANGES = "items", "ranges"
"""Names of the parts that hold the catalogue, and where each range ends."""


def run(shards: Shards, settings: Settings) -> None:
    """Leave the catalogue, and a row per user with the events in order, range after range."""
    store, split = shards.store, settings.split
    for task in ("ingest", "validate"):
        store.folder(task)  # its files are whole: workers read parts of them
    snapshot = _opened(store, "ingest", SNAPSHOT)
    groups = [{"group": number} for number in range(snapshot.num_row_groups)]
    rows = snapshot.metadata.num_rows
    ranges = max(LEAST_RANGES, -(-rows // EVENTS_OF_RANGE))
    every = max(rows // (ranges * SAMPLED_PER_RANGE), 1)
    cluster.limit_data(settings.ray)
    options = cluster.options(settings.ray, gpus=False)
    valid = ray.data.from_items(groups, override_num_blocks=len(groups)).map_batches(
        partial(_events, run=store.uri), batch_size=1, batch_format="pyarrow", **options
    )
    items = _catalogue(valid, split)
    shards.write(ITEMS, items)
    log.info("split: %s items", f"{len(items):,}")
    if not shards.has(RANGES):
        drawn = valid.map_batches(partial(_sampled, every=every), batch_format="pyarrow", **options)
        sample = pa.concat_tables(drawn.iter_batches(batch_size=None, batch_format="pyarrow"))
        shards.write(RANGES, _last_of_ranges(sample, ranges))
    bounds = shards.read(RANGES)["USER_ID"].to_pylist()
    log.info("split: %d ranges of users", len(bounds) + 1)
    known = ray.put(items.select(["index", "ITEM_ID"]))
    done = (
        valid.map_batches(partial(_ranged, bounds=bounds), batch_format="pyarrow", **options)
        .groupby("range", num_partitions=len(bounds) + 1)
        .map_groups(
            partial(
                _sorted,
                items=known,
                split=split,
                threads=max(int(settings.ray.cpus_per_worker), 1),
                key=_key(shards),
            ),
            batch_format="pyarrow",
            **options,
        )
    )
    repeats = 0
    for row in done.iter_rows():
        repeats += row["repeats"]
    for number in range(len(bounds) + 1):
        if not shards.has(number):  # the ids above the last one that was looked at are all rejected
            shards.write(number, _by_user(NOBODY, []))
    shards.finish(len(bounds) + 1, repeats=repeats)


def _key(shards: Shards) -> tuple[str, str, str]:
    return shards.store.uri, shards.task, shards.fingerprint


def _opened(store: RunStore, task: str, name: str) -> pq.ParquetFile:
    """A file of a finished task, of which no more is read than is asked for."""
    return pq.ParquetFile(store.fs.open(f"{store.root}/{task}/{name}", "rb"))


def _events(groups: pa.Table, *, run: str) -> pa.Table:
    """The valid events of row groups of the snapshot, with their numbers in it."""
    store = RunStore(run)
    snapshot = _opened(store, "ingest", SNAPSHOT)
    sizes = [snapshot.metadata.row_group(number).num_rows for number in range(snapshot.num_row_groups)]
    before = np.cumsum([0, *sizes])
    rejected = _opened(store, "validate", REJECTED).read(columns=["row"])["row"]
    found = []
    for number in groups["group"].to_pylist():
        events = snapshot.read_row_group(number, columns=list(COLUMNS))
        row = pa.array(np.arange(before[number], before[number + 1]))
        events = events.append_column("row", row)
        found.append(events.filter(pc.invert(pc.is_in(row, rejected.cast(row.type).combine_chunks()))))
    return pa.concat_tables(found)


def _catalogue(valid: ray.data.Dataset, split: Split) -> pa.Table:
    counted = valid.groupby("ITEM_ID").aggregate(
        Count(alias_name="events"), Min("TIMESTAMP", alias_name="first_event")
    )
    items = pa.concat_tables(counted.iter_batches(batch_size=None, batch_format="pyarrow"))
    items = items.filter(pc.greater_equal(items["events"], split.min_item_events)).sort_by("ITEM_ID")
    index = pa.array(np.arange(1, len(items) + 1, dtype=np.int32))
    columns = {"index": index, **{name: items[name] for name in ("ITEM_ID", "events", "first_event")}}
    return pa.table(
        list(columns.values()), schema=pa.schema([(name, each.type) for name, each in columns.items()])
    )


def _sampled(events: pa.Table, *, every: int) -> pa.Table:
    return events.select(["USER_ID"]).take(pa.array(np.arange(0, len(events), every)))


def _last_of_ranges(sample: pa.Table, ranges: int) -> pa.Table:
    """The greatest USER_ID of each range but the last, in order."""
    ids = sample.sort_by("USER_ID")
    places = np.arange(1, ranges) * len(ids) // ranges
    return (
        ids.take(pa.array(places if len(ids) else [], pa.int64()))
        .group_by("USER_ID")
        .aggregate([])
        .sort_by("USER_ID")
    )


def _ranged(events: pa.Table, *, bounds: list[str]) -> pa.Table:
    users = events["USER_ID"].combine_chunks().dictionary_encode()
    of_id = np.searchsorted(
        np.array(bounds, dtype=object), np.array(users.dictionary.to_pylist(), dtype=object)
    )
    return events.append_column("range", pa.array(of_id[users.indices.to_numpy()].astype(np.int64)))


def _sorted(
    events: pa.Table, *, items: ray.ObjectRef, split: Split, threads: int, key: tuple[str, str, str]
) -> pa.Table:
    """Write the part of a range."""
    run, task, fingerprint = key
    shards = Shards(RunStore(run), task, fingerprint)
    number = events["range"][0].as_py()
    with scratch.database(memory_limit=split.memory_limit.replace(" ", ""), threads=threads) as db:
        db.register("valid", events)
        db.register("items", ray.get(items))
        sorting.number_users(db, split)
        users = db.sql("SELECT USER_ID, events FROM users ORDER BY index").to_arrow_table()
        found = sorting.Sorted(db, split)
        columns = [part for part in found if len(part["user"])]
    shards.write(number, _by_user(users, columns))
    return pa.table({"range": [number], "repeats": [found.repeats]})


def _by_user(users: pa.Table, parts: Sequence[Mapping[str, Any]]) -> pa.Table:
    """A row per user, with lists of their events."""

    def column(name: str, dtype: type[np.generic]) -> np.ndarray:
        joined: np.ndarray = np.concatenate(
            [np.empty(0, dtype), *(part[name].astype(dtype) for part in parts)]
        )
        return joined

    lengths = np.bincount(column("user", np.int64), minlength=len(users))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]))
    lists = {
        name: pa.LargeListArray.from_arrays(offsets, pa.array(column(name, dtype)))
        for name, dtype in ARRAYS.items()
    }
    return pa.table({"USER_ID": users["USER_ID"], "events": users["events"], **lists})
