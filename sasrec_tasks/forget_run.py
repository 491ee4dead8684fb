"""A run's folder without some users: every file in which they stand, and what is counted by users' places.

Users are numbered in order of USER_ID, and those after a user who goes move up by one, in all files alike. Items keep
their numbers, which the weights know them by: one that only this user had stays in the catalogue. Figures (metrics,
counts of items, summaries) stay what they were when they were measured.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sasrec_tasks import abandoned, files, rewriting, run_folders, shards
from sasrec_tasks.approval import APPROVAL
from sasrec_tasks.artifacts import Damaged, Marker, RunStore, Summary, write_json
from sasrec_tasks.contents import (
    EXAMPLES,
    EXCLUDED,
    MANIFEST,
    OWN_ROWS,
    RANKS,
    REJECTED,
    REPORT,
    ROWS_AT_ONCE,
    SNAPSHOT,
    STRANGERS,
    USERS,
    snapshot_writer,
)
from sasrec_tasks.failures import FAILURE
from sasrec_tasks.mentions import Mentions

log = logging.getLogger(__name__)

Mask = npt.NDArray[np.bool_]

EVENTS = ("items.npy", "outcomes.npy", "timestamps.npy")
WITH_TEXTS = ("validate", "evaluate", "eligible", "gate", "export")
"""Tasks whose JSON files may hold values of the data; the manifest names files of the source, which stay its names."""

FORGOTTEN = "users_forgotten"
"""Key of a summary whose task's files have lost users since."""


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """What was done to a run's folder."""

    run_id: str
    files: int = 0  # rewritten
    discarded: dict[str, str] = field(default_factory=dict)  # task → why it is to be run again


def clean(run: RunStore, mentions: Mentions) -> Cleaned:
    """Take users out of a run's folder. A kill half way is gone on with by the next call.

    Raises:
        OSError: it can't be read or written, or a task commits all the time. Trying again is safe.
    """
    before = run_folders.listed(run)
    with rewriting.locked(run):
        _remove_unfinished(run)
        discarded: dict[str, str] = {}
        number = 0
        while True:
            folder = _Folder(run, mentions, _markers(run))
            try:
                number += rewriting.rewrite(run, folder.make, before=folder.markers)
                break
            except (Damaged, ValueError, LookupError, TypeError) as error:
                # those that are read by it can't be made either, and go in the next round
                run.discard(folder.task)
                discarded[folder.task] = mentions.without(str(error))
        number += sum(_clean_json(run, name, mentions) for name in (FAILURE, APPROVAL))
    if run.is_local and before:
        _look_as_old(run, before.changed_at)
    return Cleaned(run_id=run.run_id, files=number, discarded=discarded)


def _look_as_old(run: RunStore, moment: datetime) -> None:
    """Have no file look younger than before: `prune` would keep the folder longer for it."""
    for file in files.listed(run.fs, run.root):
        if file.changed_at > moment:
            with suppress(FileNotFoundError):
                os.utime(file.path, (moment.timestamp(), moment.timestamp()))


def _markers(run: RunStore) -> dict[str, Marker]:
    return {task: marker for task in rewriting.TASKS if (marker := run.marker(task))}


def _remove_unfinished(run: RunStore) -> None:
    """What tries have left that were killed: nobody reads it."""
    with suppress(FileNotFoundError):
        run.fs.rm(f"{run.root}/{shards.FOLDER}", recursive=True)
    for task in rewriting.TASKS:
        if run.is_local:
            abandoned.remove(Path(run.root), f".{task}.")
        if run.marker(task) is None:
            run.discard(task)
    for name in (FAILURE, APPROVAL) if run.is_local else ():
        abandoned.remove(Path(run.root), f".{name}.", written_in_one_go=True)


def _clean_json(run: RunStore, name: str, mentions: Mentions) -> int:
    with suppress(FileNotFoundError, ValueError):
        before = json.loads(run.fs.cat_file(f"{run.root}/{name}"))
        after = mentions.without_in_json(before)
        if after != before:
            files.replace(run.fs, f"{run.root}/{name}", (json.dumps(after, indent=2) + "\n").encode())
            return 1
    return 0


class _Folder:
    """The files of a run's tasks, and what becomes of them."""

    def __init__(self, run: RunStore, mentions: Mentions, markers: dict[str, Marker]) -> None:
        self.run, self.mentions, self.markers = run, mentions, markers
        self.users = pa.array(sorted(mentions.users), pa.string())
        self.task = ""

    def make(self, task: str, to: Path) -> Summary | None:
        """Write a task's files anew, those in which the users are; see `rewriting.rewrite`."""
        self.task = task
        summary = self.mentions.without_in_json(self.markers[task].summary)
        made = MAKERS[task](self, to) if task in MAKERS else 0
        for name in self.markers[task].files if task in WITH_TEXTS else ():
            if name.endswith(".json") and not (to / name).exists():
                self._json(task, name, to)
        if made:
            summary[FORGOTTEN] = summary.get(FORGOTTEN, 0) + made
        return summary if made or any(to.iterdir()) or summary != self.markers[task].summary else None

    def _json(self, task: str, name: str, to: Path) -> None:
        before = self.run.read_json(task, name)
        after = self.mentions.without_in_json(before)
        if after != before:
            write_json(to / name, after)

    # By task: how many users there were in its files

    def ingest(self, to: Path) -> int:
        mask, users = self.rows
        if not mask.any():
            return 0
        parquet = self._parquet("ingest", SNAPSHOT)
        kept = ~mask
        with snapshot_writer(to / SNAPSHOT, parquet.schema_arrow) as writer:
            first = 0
            for batch in parquet.iter_batches(ROWS_AT_ONCE):
                writer.write_table(
                    pa.Table.from_batches([batch.filter(pa.array(kept[first : first + len(batch)]))])
                )
                first += len(batch)
        manifest = self.run.read_json("ingest", MANIFEST)
        first = 0
        for entry in manifest["files"]:
            gone = int(mask[first : first + entry["rows"]].sum())
            first += entry["rows"]
            _count(entry, gone)
        if first != len(mask):
            raise ValueError(f"{MANIFEST} counts {first} rows, where {SNAPSHOT} has {len(mask)}")
        _count(manifest, int(mask.sum()))
        write_json(to / MANIFEST, manifest)
        return users

    def validate(self, to: Path) -> int:
        mask, users = self.rows
        if not mask.any():
            return 0
        rejected = pq.read_table(self._file("validate", REJECTED))
        rows = rejected["row"].to_numpy()
        moved = rows - np.cumsum(mask)[rows] if len(rows) else rows
        table = rejected.set_column(0, rejected.schema.field("row"), pa.array(moved, pa.int64()))
        pq.write_table(table.filter(pa.array(~mask[rows])), to / REJECTED, compression="zstd")
        report = self.run.read_json("validate", REPORT)
        report["examples"] = [
            {**example, "row": int(example["row"] - mask[: example["row"]].sum())}
            for example in report["examples"]
            if not mask[example["row"]]
        ]
        write_json(to / REPORT, self.mentions.without_in_json(report))
        return users

    def split(self, to: Path) -> int:
        mask = self.places
        if not mask.any():
            return 0
        if len(mask) - mask.sum() < 2:
            raise ValueError("fewer than two users are left")
        table = pq.read_table(self._file("split", USERS)).filter(pa.array(~mask))
        index = table.schema.get_field_index("index")
        numbers = pa.array(np.arange(len(table)), table.schema.field(index).type)
        pq.write_table(
            table.set_column(index, table.schema.field(index), numbers), to / USERS, compression="zstd"
        )
        for name in EVENTS:
            self._without_slices("split", name, to)
        np.save(to / "offsets.npy", self._offsets_without("split"))
        return int(mask.sum())

    def evaluate(self, to: Path) -> int:
        return self._filtered("evaluate", RANKS, to)

    def eligible(self, to: Path) -> int:
        users = self._filtered("eligible", STRANGERS, to)
        if EXCLUDED[0] in self.markers["eligible"].files and self.places.any():
            self._without_slices("eligible", EXCLUDED[1], to)
            np.save(to / EXCLUDED[0], self._offsets_without("eligible"))
            users += int(self.places.sum())
        return users

    def export(self, to: Path) -> int:
        return self._filtered("export", OWN_ROWS, to) + self._examples("export", to)

    def gate(self, to: Path) -> int:
        return self._examples("gate", to)

    def _examples(self, task: str, to: Path) -> int:
        if EXAMPLES not in self.markers[task].files:
            return 0
        examples = self.run.read_json(task, EXAMPLES)
        kept = [example for example in examples if example["user"] not in self.mentions.users]
        if len(kept) < len(examples):
            write_json(to / EXAMPLES, kept)
        return len(examples) - len(kept)

    # Who and where

    @cached_property
    def rows(self) -> tuple[Mask, int]:
        """Which rows of the snapshot are theirs, and of how many users."""
        masks, found = [np.zeros(0, bool)], Counter[str]()
        for batch in self._parquet("ingest", SNAPSHOT).iter_batches(ROWS_AT_ONCE, columns=["USER_ID"]):
            theirs = _is_in(batch.column(0), self.users)
            masks.append(theirs)
            found.update(
                str(each) for each in pc.unique(batch.column(0).filter(pa.array(theirs))).to_pylist()
            )
        return np.concatenate(masks), len(found)

    @cached_property
    def places(self) -> Mask:
        """Which users of `split` they are."""
        ids = pq.read_table(self._file("split", USERS), columns=["USER_ID"])["USER_ID"]
        return _is_in(ids, self.users)

    def _filtered(self, task: str, name: str, to: Path) -> int:
        """A parquet file without their rows; how many users it had."""
        if name not in self.markers[task].files:
            return 0
        parquet = self._parquet(task, name)
        found: set[str] = set()
        with pq.ParquetWriter(to / name, parquet.schema_arrow, compression="zstd") as writer:
            for group in range(parquet.num_row_groups):
                rows = parquet.read_row_group(group)
                theirs = _is_in(rows["USER_ID"], self.users)
                found.update(pc.unique(rows["USER_ID"].filter(pa.array(theirs))).to_pylist())
                writer.write_table(rows.filter(pa.array(~theirs)))
        if not found:
            (to / name).unlink()
        return len(found)

    def _offsets(self, task: str) -> npt.NDArray[np.int64]:
        offsets: npt.NDArray[np.int64] = np.load(self._file(task, "offsets.npy"), allow_pickle=False)
        if len(offsets) != len(self.places) + 1:
            raise ValueError(f"offsets.npy is of {len(offsets) - 1} users, {USERS} of {len(self.places)}")
        return offsets

    def _offsets_without(self, task: str) -> npt.NDArray[np.int64]:
        lengths = np.diff(self._offsets(task))[~self.places]
        return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    def _without_slices(self, task: str, name: str, to: Path) -> None:
        """An array of users' events, one user after another, without theirs; a part at a time."""
        offsets, gone = self._offsets(task), np.flatnonzero(self.places)
        how: Any = "r" if offsets[-1] else None  # nothing can't be mapped
        array = np.load(self._file(task, name), mmap_mode=how, allow_pickle=False)
        if len(array) != offsets[-1]:
            raise ValueError(f"{name} has {len(array)} values, where offsets.npy has {offsets[-1]}")
        starts = np.concatenate([[0], offsets[gone + 1]])
        ends = np.concatenate([offsets[gone], [len(array)]])
        header = np.lib.format.header_data_from_array_1_0(np.empty(0, array.dtype))
        with (to / name).open("wb") as out:
            np.lib.format.write_array_header_1_0(out, header | {"shape": (int((ends - starts).sum()),)})
            for start, end in zip(starts, ends, strict=True):
                for first in range(start, end, ROWS_AT_ONCE):
                    out.write(np.ascontiguousarray(array[first : min(first + ROWS_AT_ONCE, end)]).data)

    def _file(self, task: str, name: str) -> Path:
        if task not in self.markers:
            raise ValueError(f"`{task}` has not finished")
        return self.run.folder(task) / name

    def _parquet(self, task: str, name: str) -> pq.ParquetFile:
        return pq.ParquetFile(self._file(task, name), pre_buffer=False)


MAKERS: dict[str, Callable[[_Folder, Path], int]] = {
    "ingest": _Folder.ingest,
    "validate": _Folder.validate,
    "split": _Folder.split,
    "evaluate": _Folder.evaluate,
    "eligible": _Folder.eligible,
    "gate": _Folder.gate,
    "export": _Folder.export,
}


def _is_in(ids: pa.Array | pa.ChunkedArray, users: pa.Array) -> Mask:
    """Whether each id is of one of the users; an integer is the same id as its text."""
    if pa.types.is_integer(ids.type):
        ids = ids.cast(pa.string())
    if not pa.types.is_string(ids.type):
        return np.zeros(len(ids), bool)
    found: Mask = np.asarray(pc.is_in(ids, users), bool)
    return found


def _count(counts: dict[str, Any], gone: int) -> None:
    counts["rows"] -= gone
    counts["rows_of_forgotten_users"] = counts.get("rows_of_forgotten_users", 0) + gone
