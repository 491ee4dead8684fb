"""Task 3: every user's events in order of time, as flat arrays.

Sorted by TIMESTAMP; events that tie keep the order in which they came in. DuckDB does it within a
memory limit and spills the rest to disk. Which events are training, validation and test follows
from the order alone (`LeaveLastTwoOut`), so nothing is copied apart.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from os import SEEK_END
from pathlib import Path
from typing import BinaryIO

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sasrec_tasks import contents, engine, scratch, sorting
from sasrec_tasks.artifacts import RunStore, Summary
from sasrec_tasks.config import Settings
from sasrec_tasks.contents import ARRAYS, ITEMS, REJECTED, SNAPSHOT, USERS
from sasrec_tasks.engine import Cluster
from sasrec_tasks.errors import BadData, BadSettings
from sasrec_tasks.progress import bar
from sasrec_tasks.sasrec.sequences import Sequences

log = logging.getLogger(__name__)

USERS_AT_ONCE = 122_880
"""In a row group of `users.parquet`, as DuckDB makes them."""

Array = npt.NDArray[np.generic]

VALID = """
CREATE VIEW valid AS
SELECT * FROM (SELECT *, file_row_number AS row FROM read_parquet($snapshot, file_row_number = true))
ANTI JOIN (SELECT DISTINCT row FROM read_parquet($rejected)) USING (row)
"""


def run(store: RunStore, settings: Settings) -> Summary:
    """Write `items.parquet`, `users.parquet` and the arrays.

    Returns:
        users, items, events, users_evaluated, repeats (dropped), warnings.

    Raises:
        BadData: fewer than two users or items, or nobody with the three events an evaluation needs.
    """
    checked = store.marker("validate")
    if checked and checked.summary["problems"]:
        raise BadData(f"{settings.source}: refused by `validate`: " + "; ".join(checked.summary["problems"]))
    reads = ["ingest", "validate"]
    hangs_on = settings.split.model_dump(mode="json", exclude={"memory_limit", "spill_folder"})

    def work(cluster: Cluster | None, folder: Path) -> Summary:
        return _put_together(cluster, settings, folder) if cluster else _split(store, settings, folder)

    return engine.once(store, settings, "split", work, reads=reads, hangs_on=hangs_on)


def _put_together(cluster: Cluster, settings: Settings, folder: Path) -> Summary:
    """The files, from what a cluster has sorted: users in order, range after range, each with their events."""
    repeats = int(cluster.made()["repeats"])
    items = cluster.shards.read("items")
    pq.write_table(items.cast(_never_null(items.schema)), folder / ITEMS, compression="zstd")
    lengths = [np.zeros(1, np.int64)]
    schema = _never_null(pa.schema([("index", pa.int64()), ("USER_ID", pa.string()), ("events", pa.int64())]))
    users = 0
    with (
        pq.ParquetWriter(folder / USERS, schema, compression="zstd") as writer,
        _arrays(folder) as write,
    ):
        for part in cluster.parts():
            index = pa.array(np.arange(users, users + len(part)))
            writer.write_table(
                pa.Table.from_arrays([index, part["USER_ID"], part["events"]], schema=schema), USERS_AT_ONCE
            )
            users += len(part)
            write({name: pc.list_flatten(part[name]).to_numpy() for name in ARRAYS})
            lengths.append(pc.list_value_length(part["item"]).to_numpy())
    np.save(folder / "offsets.npy", np.cumsum(np.concatenate(lengths)))
    return _summary(folder, settings, repeats)


def _never_null(schema: pa.Schema) -> pa.Schema:
    """As DuckDB writes columns without nulls."""
    return pa.schema([field.with_nullable(False) for field in schema])


def _split(store: RunStore, settings: Settings, folder: Path) -> Summary:
    spill = settings.split.spill_folder
    if spill and not Path(spill).is_dir():
        raise BadSettings(f"split.spill_folder={spill!r}: no such folder: make it, or leave it unset")
    limit = settings.split.memory_limit.replace(" ", "")
    with (
        sorting.within_limit(settings.split),
        scratch.database(spill or folder, memory_limit=limit, preserve_insertion_order=False) as db,
    ):
        repeats = _write(db, store, settings, folder)
    return _summary(folder, settings, repeats)


def _write(db: duckdb.DuckDBPyConnection, store: RunStore, settings: Settings, folder: Path) -> int:
    """Write the files; how many repeats were dropped."""
    snapshot = store.folder("ingest") / SNAPSHOT
    rejected = store.folder("validate") / REJECTED
    db.execute(VALID.replace("$snapshot", _quoted(snapshot)).replace("$rejected", _quoted(rejected)))
    db.execute(sorting.CATALOGUE, {"min_item_events": settings.split.min_item_events})
    sorting.number_users(db, settings.split)
    for table, file in (("items", ITEMS), ("users", USERS)):
        db.execute(
            f"COPY (FROM {table} ORDER BY index) TO {_quoted(folder / file)} (FORMAT parquet, COMPRESSION zstd)"
        )
    total, num_users = db.execute("SELECT sum(events)::BIGINT, count(*) FROM users").fetchall()[0]
    lengths = np.zeros(num_users, np.int64)
    events = sorting.Sorted(db, settings.split)
    with bar("split", total, "events") as advance, _arrays(folder) as write:
        for columns in events:
            write(columns)
            if len(users := columns["user"].astype(np.int64)):
                lengths[users[0] : users[-1] + 1] += np.bincount(users - users[0])
            advance(events.read)
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    return events.repeats


@contextmanager
def _arrays(folder: Path) -> Iterator[Callable[[Mapping[str, Array]], None]]:
    """What appends the columns item, outcome and timestamp to the files of arrays."""
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(_npy(folder / f"{name}s.npy", dtype)) for name, dtype in ARRAYS.items()
        }

        def write(columns: Mapping[str, Array]) -> None:
            for name, out in files.items():
                out.write(np.ascontiguousarray(columns[name], ARRAYS[name]).data)

        yield write


@contextmanager
def _npy(path: Path, dtype: type[np.generic]) -> Iterator[BinaryIO]:
    """A file of a one-dimensional array, whose values are to be written: unlike a memory map's, its pages
    don't count as this process's memory."""
    with path.open("wb") as file:

        def write_header(length: int) -> int:
            header = np.lib.format.header_data_from_array_1_0(np.empty(0, dtype)) | {"shape": (length,)}
            file.seek(0)
            np.lib.format.write_array_header_1_0(file, header)
            return file.tell()

        begin = write_header(0)
        yield file
        length = (file.seek(0, SEEK_END) - begin) // np.dtype(dtype).itemsize
        assert write_header(length) == begin  # NumPy pads headers to the same size


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _summary(folder: Path, settings: Settings, repeats: int) -> Summary:
    """Counts, after refusing what can't be learned from."""
    offsets, items, outcomes = (
        np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("offsets", "items", "outcomes")
    )
    events = Sequences.from_offsets(offsets, items, outcomes)
    num_users, num_items = len(events), int(items.max(initial=0))
    source = settings.source
    if num_users < 2:
        raise BadData(f"{source}: USER_ID: all rows are of one user: recommendations are learned from many")
    if num_items < 2:
        raise BadData(
            f"{source}: ITEM_ID: {num_items} item(s) with split.min_item_events={settings.split.min_item_events} "
            "events: at least 2 are needed"
        )
    split = contents.leave_last_two_out(events, settings)
    evaluated = len(split.test)
    if evaluated == 0:
        chosen = "" if settings.split.min_outcome is None else f" of OUTCOME ≥ {settings.split.min_outcome:g}"
        raise BadData(
            f"{source}: USER_ID: no user has {max(3, settings.split.min_user_events)} events{chosen} "
            f"(the longest history has {int(split.whole.lengths.max(initial=0))}): one each is held out for "
            "test and validation, so a longer period, or a lower split.min_outcome or split.min_user_events, is needed"
        )
    warnings = []
    short = float((events.lengths <= 2).mean())
    if short > 0.5:
        warnings.append(
            f"{short:.0%} of the users have two events or fewer: a sequence model is the wrong tool for them, "
            "a popularity or item-to-item table would serve them as well"
        )
        log.warning("split: %s", warnings[-1])
    log.info("split: %s users are evaluated; %s repeats are dropped", f"{evaluated:,}", f"{repeats:,}")
    return {
        "users": num_users,
        "items": num_items,
        "events": len(items),
        "users_evaluated": evaluated,
        "repeats": repeats,
        "warnings": warnings,
    }
