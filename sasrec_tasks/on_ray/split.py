"""`split` on a cluster: events are brought together by ranges of USER_ID, and each range is sorted by itself.

Ranges rather than hashes of USER_ID: the order of users is that of their ids, so that the sorted ranges, one after
another, are what one machine makes, to the byte. Ray Data moves the events; the SQL of one machine sorts a range.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray.data

from sasrec_tasks import scratch, sorting
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.config import Settings, Split
from sasrec_tasks.contents import ARRAYS, COLUMNS, REJECTED, SNAPSHOT
from sasrec_tasks.on_ray import cluster
from sasrec_tasks.progress import bar
from sasrec_tasks.shards import Shards

log = logging.getLogger(__name__)

EVENTS_OF_RANGE = 2_000_000
"""About so many: they are sorted in memory, a few hundred MB. So many are read at once, too."""

LEAST_RANGES = 8

SAMPLED_PER_RANGE = 1000
"""USER_IDs that are looked at to make ranges of about as many events."""

SHARES_OF_WORKER = 4
"""Pieces of the first reading for each worker, so that none is waited for long."""

COUNTED = pa.schema([("ITEM_ID", pa.string()), ("events", pa.int64()), ("first_event", pa.int64())])
"""Items, and how often and since when they are in the events."""

NOBODY = pa.table({"USER_ID": pa.array([], pa.string()), "events": pa.array([], pa.int64())})

ITEMS, RANGES = "items", "ranges"
"""Names of the parts that hold the catalogue, and where each range ends."""


def run(shards: Shards, settings: Settings) -> None:
    """Leave the catalogue, and a row per user with the events in order, range after range."""
    store, split = shards.store, settings.split
    for task in ("ingest", "validate"):
        store.folder(task)  # its files are whole: workers read parts of them
    snapshot = _opened(store, "ingest", SNAPSHOT)
    groups, rows = snapshot.num_row_groups, snapshot.metadata.num_rows
    cluster.limit_data(settings.ray)
    if not (shards.has(ITEMS) and shards.has(RANGES)):
        ranges = max(LEAST_RANGES, -(-rows // EVENTS_OF_RANGE))
        every = max(rows // (ranges * SAMPLED_PER_RANGE), 1)
        catalogue, sample = cluster.unless_stuck(
            settings.ray, lambda: _survey(store, settings, groups, every)
        )
        shards.write(ITEMS, _numbered(catalogue, split))
        shards.write(RANGES, _last_of_ranges(sample, ranges))
    items = shards.read(ITEMS)["ITEM_ID"].combine_chunks()
    bounds = shards.read(RANGES)["USER_ID"].to_pylist()
    log.info("split: %s items, %d ranges of users", f"{len(items):,}", len(bounds) + 1)
    pieces = max(-(-rows // EVENTS_OF_RANGE), SHARES_OF_WORKER * settings.ray.workers)
    repeats = cluster.unless_stuck(
        settings.ray, lambda: _sort(shards, settings, _shared(groups, pieces), items, bounds)
    )
    for number in set(range(len(bounds) + 1)) - set(repeats):  # between two ids, all rejected
        shards.write(number, _by_user(NOBODY, []))
    shards.finish(
        len(bounds) + 1, named=[f"{ITEMS}.parquet", f"{RANGES}.parquet"], repeats=sum(repeats.values())
    )


def _survey(store: RunStore, settings: Settings, groups: int, every: int) -> tuple[pa.Table, pa.Table]:
    """Counts of the items, and one USER_ID in `every`."""
    seen = _shared(groups, SHARES_OF_WORKER * settings.ray.workers).map_batches(
        partial(_surveyed, run=store.uri, every=every),
        batch_size=1,
        batch_format="pyarrow",
        **cluster.options(settings.ray, gpus=False),
    )
    return _together(seen.iter_batches(batch_size=None, batch_format="pyarrow"))


def _sort(
    shards: Shards, settings: Settings, shares: ray.data.Dataset, items: pa.Array, bounds: list[str]
) -> dict[int, int]:
    """Write the parts of all ranges that have users; how many repeats each has left out."""
    options = cluster.options(settings.ray, gpus=False)
    done = (
        shares.map_batches(
            partial(_ranged, run=shards.store.uri, items=ray.put(items), bounds=bounds),
            batch_size=1,
            batch_format="pyarrow",
            **options,
        )
        .groupby("range", num_partitions=len(bounds) + 1)
        .map_groups(
            partial(
                _sorted,
                num_items=len(items),
                split=settings.split,
                threads=max(int(settings.ray.cpus_per_worker), 1),
                key=_key(shards),
            ),
            batch_format="pyarrow",
            **options,
        )
    )
    repeats = {}
    with bar("split", len(bounds) + 1, "ranges of users") as advance:
        for row in done.iter_rows():
            repeats[row["range"]] = row["repeats"]
            advance(len(repeats))
    return repeats


def _key(shards: Shards) -> tuple[str, str, str]:
    return shards.store.uri, shards.task, shards.fingerprint


def _shared(groups: int, shares: int) -> ray.data.Dataset:
    """Row groups of the snapshot, consecutive ones in a row each."""
    pieces = [piece.tolist() for piece in np.array_split(np.arange(groups), max(min(shares, groups), 1))]
    return ray.data.from_items([{"groups": piece} for piece in pieces], override_num_blocks=len(pieces))


def _opened(store: RunStore, task: str, name: str) -> pq.ParquetFile:
    """A file of a finished task, of which no more is read than is asked for."""
    return pq.ParquetFile(store.fs.open(f"{store.root}/{task}/{name}", "rb"))


def _events(shares: pa.Table, run: str, columns: list[str]) -> Iterator[pa.Table]:
    """The valid events of row groups of the snapshot, group by group, with their numbers in it as ``row``."""
    store = RunStore(run)
    snapshot = _opened(store, "ingest", SNAPSHOT)
    sizes = [snapshot.metadata.row_group(number).num_rows for number in range(snapshot.num_row_groups)]
    before = np.cumsum([0, *sizes])
    rejected = np.unique(_opened(store, "validate", REJECTED).read(columns=["row"])["row"].to_numpy())
    for number in itertools.chain(*shares["groups"].to_pylist()):
        events = snapshot.read_row_group(number, columns=columns)
        first, last = np.searchsorted(rejected, before[number : number + 2])
        valid = np.ones(len(events), bool)
        valid[rejected[first:last] - before[number]] = False
        row = pa.array(np.arange(before[number], before[number + 1]))
        yield events.append_column("row", row).filter(pa.array(valid))


def _surveyed(shares: pa.Table, *, run: str, every: int) -> pa.Table:
    """A row per item of the events, and one, without an item, for each USER_ID that is looked at."""
    items, sample = _Items(), []
    for events in _events(shares, run, ["USER_ID", "ITEM_ID", "TIMESTAMP"]):
        ones = pa.array(np.ones(len(events), np.int64))
        items.add(pa.table([events["ITEM_ID"], ones, events["TIMESTAMP"]], schema=COUNTED))
        sample.append(events["USER_ID"].take(pa.array(np.arange(0, len(events), every))).combine_chunks())
    users = pa.table({"USER_ID": pa.chunked_array(sample, pa.string())})
    return pa.concat_tables([items.counted(), users], promote_options="default")


def _together(surveyed: Iterator[pa.Table]) -> tuple[pa.Table, pa.Table]:
    """What all have seen: the items, and the sample of users."""
    items, sample = _Items(), []
    for part in surveyed:
        is_item = pc.is_valid(part["ITEM_ID"])
        items.add(part.filter(is_item).select(COUNTED.names))
        sample.append(part.filter(pc.invert(is_item)).select(["USER_ID"]))
    return items.counted(), pa.concat_tables(sample)


class _Items:
    """Counts of items that come in parts: added up when as many wait as there are sums, so that each is looked at a
    few times, however many parts there are."""

    def __init__(self) -> None:
        self._sums, self._waiting = COUNTED.empty_table(), [COUNTED.empty_table()]

    def add(self, part: pa.Table) -> None:
        """A further part, of the columns of `COUNTED`."""
        self._waiting.append(part)
        if sum(map(len, self._waiting)) > max(len(self._sums), EVENTS_OF_RANGE):
            self.counted()

    def counted(self) -> pa.Table:
        """A row per item of all parts."""
        both = pa.concat_tables([self._sums, *self._waiting])
        found = both.group_by("ITEM_ID").aggregate([("events", "sum"), ("first_event", "min")])
        columns = [found["ITEM_ID"], found["events_sum"], found["first_event_min"]]
        self._sums, self._waiting = pa.table(columns, schema=COUNTED), [COUNTED.empty_table()]
        return self._sums


def _numbered(counted: pa.Table, split: Split) -> pa.Table:
    """The catalogue."""
    items = counted.filter(pc.greater_equal(counted["events"], split.min_item_events)).sort_by("ITEM_ID")
    index = pa.array(np.arange(1, len(items) + 1, dtype=np.int32))
    return items.add_column(0, "index", index)


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


def _ranged(shares: pa.Table, *, run: str, items: ray.ObjectRef, bounds: list[str]) -> pa.Table:
    """The events of a share, with their items' indices for ITEM_ID, null where too few have it, and their ranges."""
    events = pa.concat_tables(_events(shares, run, list(COLUMNS)))
    users = events["USER_ID"].combine_chunks().dictionary_encode()
    of_id = np.searchsorted(
        np.array(bounds, dtype=object), np.array(users.dictionary.to_pylist(), dtype=object)
    )
    index = pc.add(pc.index_in(events["ITEM_ID"], value_set=ray.get(items)), pa.scalar(1, pa.int32()))
    events = events.set_column(events.schema.get_field_index("ITEM_ID"), "ITEM_ID", index)
    return events.append_column("range", pa.array(of_id[users.indices.to_numpy()].astype(np.int64)))


def _sorted(
    events: pa.Table, *, num_items: int, split: Split, threads: int, key: tuple[str, str, str]
) -> pa.Table:
    """Write the part of a range."""
    run, task, fingerprint = key
    shards = Shards(RunStore(run), task, fingerprint)
    number = events["range"][0].as_py()
    with (
        sorting.within_limit(split),
        scratch.database(memory_limit=split.memory_limit.replace(" ", ""), threads=threads) as db,
    ):
        db.register("valid", events)
        db.execute(
            "CREATE TABLE items AS SELECT i::INTEGER AS index, i::INTEGER AS ITEM_ID FROM range(1, $end) t(i)",
            {"end": num_items + 1},
        )
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
