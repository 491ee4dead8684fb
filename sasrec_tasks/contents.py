"""What tasks hand to later ones through a run's folder: file names, and how to read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.config import Settings
from sasrec_tasks.sasrec.sequences import Int64, LeaveLastTwoOut, Sequences
from sasrec_tasks.timestamps import moment_of

COLUMNS = ("USER_ID", "ITEM_ID", "OUTCOME", "TIMESTAMP")
ARRAYS: dict[str, type[np.generic]] = {"item": np.int32, "outcome": np.float32, "timestamp": np.int64}
"""What is kept of an event, in files that are called after it; where each user's begin is in `offsets.npy`."""

ROWS_AT_ONCE = 524_288

SNAPSHOT = "interactions.parquet"
MANIFEST = "manifest.json"
REPORT = "report.json"
REJECTED = "rejected.parquet"
ITEMS = "items.parquet"
USERS = "users.parquet"
HISTORY = "history.parquet"
METRICS = "metrics.json"
RANKS = "ranks.parquet"
MODEL_CARD = "model_card"  # .json and .md
VERDICT = "verdict.json"
EXAMPLES = "examples.json"
EXPORT = "export.json"
OWN_ROWS = "recommendations.parquet"
ELIGIBLE = "eligible"  # a folder as a task's: what narrows the export
EXCLUDED = ("offsets.npy", "excluded.npy")
STRANGERS = "strangers.parquet"

REFIT_NOTE = (
    "The table is made by weights that were refitted from the gated ones on all events, the held-out ones included. "
    "All metrics are those of the gated weights."
)


@dataclass(frozen=True, kw_only=True)
class Interactions:
    """All valid events of a run in order, memory-mapped, and their split."""

    events: Sequences
    timestamps: Int64  # (events,)
    num_items: int
    split: LeaveLastTwoOut


def snapshot_writer(file: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """For the snapshot; times as differences, the rest by dictionary: smaller, and written in less time."""
    are_ticks = pa.types.is_int64(schema.field("TIMESTAMP").type)
    return pq.ParquetWriter(
        file,
        schema,
        compression="zstd",
        use_dictionary=[name for name in schema.names if name != "TIMESTAMP"],
        column_encoding={"TIMESTAMP": "DELTA_BINARY_PACKED"} if are_ticks else None,
    )


def interactions(store: RunStore, settings: Settings) -> Interactions:
    """What `split` left, cut as the settings say."""
    folder = store.folder("split")

    def array(name: str) -> np.ndarray:
        loaded: np.ndarray = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        return loaded

    events = Sequences.from_offsets(array("offsets"), array("items"), array("outcomes"))
    return Interactions(
        events=events,
        timestamps=array("timestamps"),
        num_items=pq.read_metadata(folder / ITEMS).num_rows,
        split=leave_last_two_out(events, settings),
    )


def period(store: RunStore, data: Interactions) -> tuple[str | None, str | None]:
    """Moments of the first and the last event, ISO 8601."""
    if not len(data.timestamps):
        return None, None
    unit = store.read_json("ingest", MANIFEST)["timestamp_unit"]
    first, last = (
        moment_of(int(tick), unit).isoformat() for tick in (data.timestamps.min(), data.timestamps.max())
    )
    return first, last


def leave_last_two_out(events: Sequences, settings: Settings) -> LeaveLastTwoOut:
    """The split that the settings ask for."""
    return LeaveLastTwoOut.of(
        events, min_outcome=settings.split.min_outcome, min_user_events=settings.split.min_user_events
    )


def protocol(settings: Settings) -> str:
    """The ranking that is served: with or without seen items."""
    return "full" if settings.export.exclude_seen else "full_with_seen"


def refit_note(settings: Settings) -> dict[str, str]:
    """What figures must say of themselves where the table is made by other weights than they are of."""
    return {"refit": REFIT_NOTE} if settings.refit.enabled else {}


def item_ids(store: RunStore) -> list[str]:
    """Ids of the items in order of index; the first has index 1."""
    return [str(item) for item in pq.read_table(store.folder("split") / ITEMS)["ITEM_ID"].to_pylist()]


class UserIds:
    """USER_IDs by the users' places; the file is opened once."""

    def __init__(self, store: RunStore) -> None:
        self._file = pq.ParquetFile(store.folder("split") / USERS, pre_buffer=False)
        sizes = (self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups))
        self._bounds = np.cumsum([0, *sizes])

    def __len__(self) -> int:
        return int(self._bounds[-1])

    def of(self, users: range) -> pa.Array:
        """Those of some consecutive users."""
        first, last = np.searchsorted(self._bounds, [users.start, users.stop - 1], side="right") - 1
        names = self._file.read_row_groups(list(range(first, last + 1)), columns=["USER_ID"])["USER_ID"]
        chosen: pa.Array = names.slice(users.start - self._bounds[first], len(users)).combine_chunks()
        return chosen
