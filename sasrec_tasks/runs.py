"""The table of runs: a row for each, whatever became of it.

A Delta table beside the recommendations, `<table>_runs`; where those are in a database, `.runs` in the store.
It outlives the runs' folders.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from sasrec_tasks import traces
from sasrec_tasks.artifacts import Marker, RunStore
from sasrec_tasks.config import GROUPS, Settings
from sasrec_tasks.contents import METRICS, VERDICT, protocol
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.mentions import Mentions
from sasrec_tasks.naming import as_names
from sasrec_tasks.tables import Published, delta_forget, delta_prune, open_tables
from sasrec_tasks.tables.delta_files import dataset

log = logging.getLogger(__name__)

Ending = Literal["published", "superseded", "refused", "failed"]

ROLLED_BACK = "rolled back"
"""What is shown as the ending of a run that was published, and rolled back since."""

ATTEMPTS = 5
"""To write a row down while others write theirs."""

UNUSED_HOURS = 48
"""That a data file is kept after its rows were written anew: somebody may still read it."""

MOMENT = pa.timestamp("us", tz="UTC")

RUNS = pa.schema(
    [
        pa.field("RUN_ID", pa.string(), nullable=False),
        pa.field("AS_OF", MOMENT, nullable=False),
        pa.field("FINISHED_AT", MOMENT, nullable=False),
        pa.field("ENDING", pa.string(), nullable=False),  # published, superseded, refused, failed
        pa.field("TASK", pa.string(), nullable=False),  # the last that ran
        pa.field("REASON", pa.string()),  # why it was not published, or not in all tables
        pa.field("VERSION", pa.int64()),
        pa.field("CHAMPION", pa.string()),  # run id
        pa.field("ROWS", pa.int64()),
        pa.field("REJECTED", pa.int64()),
        pa.field("EVENTS", pa.int64()),
        pa.field("USERS", pa.int64()),
        pa.field("ITEMS", pa.int64()),
        pa.field("NDCG", pa.float64()),  # NDCG@10 of the ranking that is served
        pa.field("NDCG_LOW", pa.float64()),  # of its 95% interval
        pa.field("NDCG_HIGH", pa.float64()),
        pa.field("HR", pa.float64()),  # HR@10
        pa.field("POPULARITY_NDCG", pa.float64()),
        pa.field("SECONDS", pa.float64()),
        pa.field("PEAK_MB", pa.int64()),
        pa.field("TASKS", pa.string()),  # JSON: task → seconds, peak_mb
        pa.field("METRICS", pa.string()),  # JSON: evaluate/metrics.json
        pa.field("SETTINGS", pa.string(), nullable=False),  # JSON
        pa.field("DATA", pa.string()),  # sha256 of what `split` left
        pa.field("MODEL", pa.string()),  # sha256 of the weights that were measured
        pa.field(
            "REFITTED", pa.string()
        ),  # sha256 of those that made the table, if they were refitted from MODEL
        pa.field("PROFILE", pa.string()),  # JSON: what `validate` found tonight's data to be like
        pa.field("VERDICT", pa.string()),  # JSON: passed, forced, asks, and the rules without their words
    ]
)


def url_of(table: str, store: str) -> str:
    """Where the runs of a table are kept.

    Raises:
        BadSettings: in the store, and that is not named.
    """
    folder = open_tables(table).folder
    if not folder and not store:
        raise BadSettings("store: not set: the runs of a table in a database are kept there (--store)")
    return f"{folder}_runs" if folder else f"{store.rstrip('/')}/.runs"


def record(
    store: RunStore, settings: Settings, *, task: str, ending: Ending, reason: str = ""
) -> dict[str, Any] | None:
    """Write a run's row, in the place of an earlier one; a failure is a warning, what was published stays so.

    Returns:
        The row; None if the run's folder can't be read.
    """
    row = None
    try:
        row = _row(store, settings, task, ending, reason)
        _upsert(url_of(settings.table, store.store), row)
    except (DeltaError, OSError) as error:
        log.warning("runs: %s could not be written down: %s", store.run_id, error)
    return row


def read(url: str, columns: Sequence[str] | None = None) -> pa.Table:
    """All runs that are written down, in order of as_of.

    Args:
        columns: some of them; None is all.

    Raises:
        OSError: there is a table that can't be read.
    """
    try:
        table = DeltaTable(url)
    except TableNotFoundError:
        return RUNS.empty_table().select(columns or RUNS.names)
    except DeltaError as error:
        raise OSError(
            f"{url}: the table of runs can't be read: {str(error).partition(chr(10))[0]}"
        ) from error
    needed = set(RUNS.names if columns is None else {*columns, "AS_OF", "FINISHED_AT"})
    found = dataset(table).to_table([field.name for field in table.schema().fields if field.name in needed])
    for column in RUNS:
        if column.name in needed - set(found.column_names):  # written before there was one
            found = found.append_column(column, pa.nulls(len(found), column.type))
    wanted = pa.schema([column for column in RUNS if column.name in needed])
    found = found.select(wanted.names).cast(wanted)
    return found.sort_by([("AS_OF", "ascending"), ("FINISHED_AT", "ascending")]).select(columns or RUNS.names)


def with_rollbacks(runs: pa.Table, table: str) -> pa.Table:
    """Runs as `read` gives them, where ENDING is "rolled back" for those that were published and rolled back since.

    The table itself says which: a run's row is of the time when the run ended.

    Args:
        table: as the setting.

    Raises:
        BadSettings, OSError: the table can't be read.
    """
    back = pa.array(sorted(open_tables(table).rolled_back()), pa.string())
    is_back = pc.and_(pc.equal(runs["ENDING"], "published"), pc.is_in(runs["RUN_ID"], back))
    place = runs.column_names.index("ENDING")
    return runs.set_column(place, runs.schema.field(place), pc.if_else(is_back, ROLLED_BACK, runs["ENDING"]))


def forget(url: str, mentions: Mentions) -> int:
    """Take users out of the reasons, which may name a value of the data, and out of all that older versions leave.

    Returns:
        Rows that named one of them.

    Raises:
        OSError: the table can't be read, or was written to meanwhile. Trying again is safe.
    """
    if not traces.in_folders([url], mentions).found:
        return 0
    try:
        table = DeltaTable(url)
        rows = dataset(table).to_table()
        before = rows["REASON"].to_pylist()
        after = [reason and mentions.without(reason) for reason in before]
        place = rows.schema.get_field_index("REASON")
        # in any case: what older versions leave is removed from under the newest one
        write_deltalake(
            table,
            rows.set_column(place, rows.schema.field(place), pa.array(after, rows.schema.field(place).type)),
            mode="overwrite",
            commit_properties=CommitProperties(max_commit_retries=0),
        )
        delta_forget.remove_before(DeltaTable(url))
    except DeltaError as error:
        raise OSError(f"{url}: users can't be taken out of the table of runs: {error}: try again") from error
    return sum(old != new for old, new in zip(before, after, strict=True))


def remove_leftovers(url: str, *, left_alone: datetime, dry_run: bool) -> int:
    """Remove the data files that no row is in any more, and what killed writers have left; all rows stay.

    Args:
        left_alone: what has changed since then may be at work, or be read.

    Returns:
        Bytes freed.

    Raises:
        OSError: the table can't be read, or was written to meanwhile. Trying again is safe.
    """
    try:
        return delta_prune.remove_leftovers(
            DeltaTable(url), hours=UNUSED_HOURS, left_alone=left_alone, dry_run=dry_run
        )
    except TableNotFoundError:
        return 0
    except DeltaError as error:
        raise OSError(f"{url}: what is left over can't be removed: {error}") from error


def _upsert(url: str, row: dict[str, Any]) -> None:
    """Write a row in the place of that of the same run, if it says something else; another writer's row stays."""
    rows = pa.Table.from_pylist([row], RUNS)
    if _says_the_same(url, rows):  # a run that had ended was cleared: it ended when it did
        return
    for attempt in range(ATTEMPTS):
        try:
            write_deltalake(url, RUNS.empty_table(), mode="ignore")  # where there is no table yet
            merge = DeltaTable(url).merge(
                rows,
                predicate="old.RUN_ID = new.RUN_ID",
                source_alias="new",
                target_alias="old",
                merge_schema=True,
                # on top of what was looked at: rows that two tries of a task add at once are no conflict to Delta Lake
                commit_properties=CommitProperties(max_commit_retries=0),
            )
            merge.when_matched_update_all().when_not_matched_insert_all().execute()
            return
        except DeltaError:  # another one has written meanwhile; of the first version, no class says so
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(random.uniform(0.05, 0.5))


def _says_the_same(url: str, rows: pa.Table) -> bool:
    """Whether the run of a row is written down like this, but for the moment."""
    try:
        table = DeltaTable(url)
    except TableNotFoundError:
        return False
    there = dataset(table).to_table(filter=ds.field("RUN_ID") == rows["RUN_ID"][0])
    if len(there) != 1 or there.column_names != rows.column_names:
        return False
    old, new = (found.drop_columns("FINISHED_AT").to_pylist() for found in (there, rows))
    return bool(old == new)


def _row(store: RunStore, settings: Settings, task: str, ending: Ending, reason: str) -> dict[str, Any]:
    markers = {name: found for name in GROUPS if (found := store.marker(name))}
    metrics = store.read_json("evaluate", METRICS) if "evaluate" in markers else {}
    verdict = store.read_json("gate", VERDICT) if "gate" in markers else {}
    served = protocol(settings)
    figures: Mapping[str, Any] = metrics.get(served, {})
    low, high = figures.get("ci95", {}).get("ndcg@10", (None, None))
    peaks = [marker.peak_rss_mb for marker in markers.values() if marker.peak_rss_mb]
    version = _summary(markers, "export").get("version")
    if ending in ("failed", "refused") and (published := _published(store, settings)):
        ending, version = "published", published.version
    return {
        "RUN_ID": store.run_id,
        "AS_OF": settings.as_of,
        "FINISHED_AT": datetime.now(UTC),
        "ENDING": ending,
        "TASK": task,
        "REASON": reason or None,
        "VERSION": version,
        "CHAMPION": (verdict.get("champion") or {}).get("run_id"),
        "ROWS": _summary(markers, "validate").get("rows"),
        "REJECTED": _summary(markers, "validate").get("rejected"),
        **{name.upper(): _summary(markers, "split").get(name) for name in ("events", "users", "items")},
        "NDCG": figures.get("ndcg@10"),
        "NDCG_LOW": low,
        "NDCG_HIGH": high,
        "HR": figures.get("hr@10"),
        "POPULARITY_NDCG": metrics.get("baselines", {}).get("popularity", {}).get(served, {}).get("ndcg@10"),
        "SECONDS": sum(marker.seconds for marker in markers.values()),
        "PEAK_MB": max(peaks, default=None),
        "TASKS": json.dumps(
            {name: {"seconds": each.seconds, "peak_mb": each.peak_rss_mb} for name, each in markers.items()}
        ),
        "METRICS": json.dumps(metrics) if metrics else None,
        "SETTINGS": json.dumps(as_names(settings)),
        "DATA": markers["split"].digest if "split" in markers else None,
        "MODEL": metrics.get("model"),
        "REFITTED": _summary(markers, "export").get("refit", {}).get("model"),
        "PROFILE": json.dumps(profile) if (profile := _summary(markers, "validate").get("profile")) else None,
        "VERDICT": json.dumps(_short(verdict)) if verdict else None,
    }


def _published(store: RunStore, settings: Settings) -> Published | None:
    """What the table holds of a run that came to no good end: the first of several tables may have it, and serve it."""
    try:
        published = open_tables(settings.table).published()
        return next((each for each in published if each.run_id == store.run_id), None)
    except (BadSettings, OSError) as error:  # perhaps why it failed
        log.warning("runs: whether %s is published could not be read: %s", store.run_id, error)
        return None


def _short(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """A verdict's figures and limits."""
    rules = [{name: of for name, of in rule.items() if name != "reason"} for rule in verdict["rules"]]
    return {name: verdict[name] for name in ("passed", "forced", "asks")} | {"rules": rules}


def _summary(markers: Mapping[str, Marker], task: str) -> dict[str, Any]:
    return markers[task].summary if task in markers else {}
