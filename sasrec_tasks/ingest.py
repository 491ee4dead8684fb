"""Task 1: copy the interactions, as they are now, into the run's folder.

Later tasks read this frozen snapshot only, so that a retry sees the same events however the
source has grown meanwhile. Events at or after `as_of` are not read, so that a backfill can't learn
from what came later.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sasrec_tasks import forgotten as forgotten_users
from sasrec_tasks.artifacts import RunStore, Summary, write_json
from sasrec_tasks.config import Ingest, Settings
from sasrec_tasks.contents import COLUMNS, MANIFEST, ROWS_AT_ONCE, SNAPSHOT, snapshot_writer
from sasrec_tasks.errors import BadData, BadSettings
from sasrec_tasks.forgotten import Forgotten
from sasrec_tasks.one_unit import OneUnit
from sasrec_tasks.progress import bar
from sasrec_tasks.sources import Part, Source, open_source, since
from sasrec_tasks.timestamps import first_tick_at

log = logging.getLogger(__name__)

PLAIN = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
"""Types that Arrow can't filter, and those that hold the same."""

COUNTS = ("rows_read", "rows", "rows_at_or_after_as_of", "rows_before_lookback")
"""Of a part, and of all."""

FORGOTTEN = "rows_of_forgotten_users"
"""Of a part, and of all, in a store that has forgotten somebody."""


def run(store: RunStore, settings: Settings) -> Summary:
    """Freeze the source into `ingest/`.

    Returns:
        files, rows, rows_at_or_after_as_of, rows_before_lookback, cut_by, timestamp_unit; where the store has
        forgotten users, rows_of_forgotten_users, which were left out.

    Raises:
        BadData: nothing to read, a damaged file, a column that is missing.
        BadSettings: a source outside the allowed roots, a mapping to an unknown column.
    """
    log.info("ingest: run %s is in %s", store.run_id, store.uri)
    unknown = set(settings.ingest.columns.values()) - set(COLUMNS)
    if unknown:
        raise BadSettings(
            f"ingest.columns: maps to {', '.join(sorted(unknown))}: the columns are {', '.join(COLUMNS)}"
        )
    twice = [column for column, times in Counter(settings.ingest.columns.values()).items() if times > 1]
    if twice:
        raise BadSettings(f"ingest.columns: maps more than one column to {', '.join(sorted(twice))}")
    as_of = settings.as_of or datetime.now(UTC)
    names = _names(settings.ingest)
    types = {names["OUTCOME"]: pa.float64(), names["TIMESTAMP"]: pa.int64()}

    @cache
    def source() -> Source:
        return open_source(settings, as_of, types)

    forgotten = forgotten_users.read(store.store)
    parts = _parts_of_published(store) or [asdict(part) for part in source().parts]
    return store.once(
        "ingest",
        lambda folder: _Snapshot(source(), settings, as_of, forgotten).write(folder),
        unchanged=forgotten_users.unchanged(store.store, forgotten),
        settings={
            "source": settings.source,
            "files": parts,
            "as_of": as_of.isoformat(),
            **settings.ingest.model_dump(mode="json", exclude={"allowed_roots"}),
        },
    )


def _parts_of_published(store: RunStore) -> list[dict[str, Any]] | None:
    """What a run had read that was exported: clearing it reads nothing new, however the source has grown."""
    if not (store.marker("ingest") and store.marker("export")):
        return None
    parts: list[dict[str, Any]] | None = store.read_json("ingest", MANIFEST).get("parts")
    return parts


def _names(config: Ingest) -> dict[str, str]:
    """Column of the contract → its name in the source."""
    return {column: column for column in COLUMNS} | {column: name for name, column in config.columns.items()}


class _Snapshot:
    """Streams the source, one part's batch after another, into one parquet file."""

    def __init__(self, source: Source, settings: Settings, as_of: datetime, forgotten: Forgotten) -> None:
        self.source, self.as_of, self.forgotten = source, as_of, forgotten
        self.counts = COUNTS + ((FORGOTTEN,) if forgotten.hashes else ())
        self.since = since(settings, as_of)
        self.name = settings.source
        self.config: Ingest = settings.ingest
        self.names = _names(self.config)  # contract → source
        self.times = OneUnit(self.config, self.names["TIMESTAMP"])
        self.odd_share = settings.validate_.max_rejected_share

    def write(self, folder: Path) -> Summary:
        schemas = [self._schema(part) for part in self.source.parts]
        paths = [part.path for part in self.source.parts]
        kinds = [schema.field(self.names["TIMESTAMP"]).type for schema in schemas]
        self.times.settle(zip(paths, kinds, strict=True))
        entries: list[dict[str, Any]] = []
        writer: pq.ParquetWriter | None = None
        waiting: list[pa.RecordBatch] = []
        total = sum(part.bytes for part in self.source.parts)
        done = 0
        first_schema, first_path = None, ""
        with bar("ingest", total, "bytes") as advance:
            for part in self.source.parts:
                entry: dict[str, Any] = {
                    "file": part.path,
                    "bytes": part.bytes,
                    **dict.fromkeys(self.counts, 0),
                }
                for batch in self._batches(part):
                    kept = self._without_forgotten(self._in_window(batch, entry), entry)
                    if first_schema is None:
                        first_schema, first_path = kept.schema, part.path
                        writer = snapshot_writer(folder / SNAPSHOT, kept.schema)
                    _require_same(first_schema, first_path, kept.schema, part.path)
                    waiting.append(kept)
                    if sum(map(len, waiting)) >= ROWS_AT_ONCE:
                        _flush(writer, waiting)
                done += part.bytes
                advance(done)
                entries.append(entry)
        if writer is None or first_schema is None:
            raise BadData(
                f"{self.name}: no rows in {len(self.source.parts)} file(s): there is nothing to learn from"
            )
        _flush(writer, waiting)
        writer.close()

        counts = {name: sum(entry[name] for entry in entries) for name in self.counts}
        self.times.require(counts["rows_read"], self.odd_share)
        if counts["rows"] == 0:
            window = f"at or after as_of ({self.as_of.isoformat()})"
            if self.since:
                window += f" or before the look-back ({self.since.isoformat()})"
            if counts.get(FORGOTTEN):
                window += f", or of users who were forgotten ({counts[FORGOTTEN]:,})"
            raise BadData(
                f"{self.name}: all {counts['rows_read']:,} rows are {window}: "
                f"check as_of, and ingest.timestamp_unit (taken as {self.times.unit!r})"
            )
        manifest = {
            "source": self.name,
            "as_of": self.as_of.isoformat(),
            "since": self.since.isoformat() if self.since else None,
            "cut_by": self.source.cut_by,
            **self.source.about,
            "timestamp_unit": self.times.unit or None,
            **{name: counts[name] for name in self.counts if name != "rows_read"},
            "columns": self.names,
            "files": entries,
            "parts": [asdict(part) for part in self.source.parts],
        }
        write_json(folder / MANIFEST, manifest)
        log.info(
            "ingest: cut by %s; left out: %s rows at or after as_of, %s before the look-back",
            self.source.cut_by,
            f"{counts['rows_at_or_after_as_of']:,}",
            f"{counts['rows_before_lookback']:,}",
        )
        if FORGOTTEN in counts:
            log.info("ingest: left out: %s rows of users who were forgotten", f"{counts[FORGOTTEN]:,}")
        return {
            "files": len(entries),
            **{name: counts[name] for name in self.counts if name != "rows_read"},
            "cut_by": self.source.cut_by,
            "timestamp_unit": self.times.unit or None,
        }

    def _schema(self, part: Part) -> pa.Schema:
        """The schema of a part that has all needed columns."""
        schema = self.source.schema(part)
        needed = self._needed(schema)
        missing = [name for name in needed if name not in schema.names]
        twice = [name for name in dict.fromkeys(needed) if schema.names.count(name) > 1]
        if twice:
            raise BadData(f"{part.path}: more than one column {', '.join(twice)}: rename or drop one of them")
        if not missing:
            return schema
        hints = [f"it has {', '.join(schema.names) or 'no columns'}"]
        by_lower = {name.lower(): name for name in schema.names}
        renames = {
            by_lower[name.lower()]: name for name in missing if name in COLUMNS and name.lower() in by_lower
        }
        hints.append(f"name them with ingest.columns, for instance {renames or {'user_id': 'USER_ID'}}")
        if self.names["OUTCOME"] in missing:
            hints.append("for a source without OUTCOME (clicks) set ingest.default_outcome=1")
        raise BadData(f"{part.path}: missing column {', '.join(missing)}: " + "; ".join(hints))

    def _needed(self, schema: pa.Schema) -> list[str]:
        return [
            name
            for column, name in self.names.items()
            if column != "OUTCOME" or not self._has_default_outcome(schema)
        ]

    def _has_default_outcome(self, schema: pa.Schema) -> bool:
        """Whether a file is served by the default: it has no OUTCOME, and none is said to be there."""
        name = self.names["OUTCOME"]
        return (
            self.config.default_outcome is not None
            and name not in self.config.columns
            and name not in schema.names
        )

    def _batches(self, part: Part) -> Iterator[pa.RecordBatch]:
        for batch in self.source.batches(part, self._needed(self.source.schema(part))):
            if len(batch):
                yield self._in_contract(batch, part.path)

    def _in_contract(self, batch: pa.RecordBatch, path: str) -> pa.RecordBatch:
        """Columns named and typed as in the contract; what can't be is left for `validate` to report."""
        columns: list[pa.Array] = []
        for column in COLUMNS:
            if column == "OUTCOME" and self._has_default_outcome(batch.schema):
                columns.append(pa.repeat(pa.scalar(self.config.default_outcome, pa.float64()), len(batch)))
                continue
            values = batch.column(self.names[column])
            if pa.types.is_dictionary(values.type):
                values = values.dictionary_decode()
            if plain := PLAIN.get(values.type):
                values = values.cast(plain)
            try:
                if column == "TIMESTAMP":
                    values = self.times.ticks(values, path)
                elif column == "OUTCOME":
                    values = _outcomes(values)
                else:
                    values = self._ids(values)
            except pa.ArrowInvalid as error:
                raise BadData(
                    f"{path}: {self.names[column]}: {error}: mend or leave out these values in the source"
                ) from error
            columns.append(values)
        return pa.RecordBatch.from_arrays(columns, names=list(COLUMNS))

    def _ids(self, values: pa.Array) -> pa.Array:
        kind = values.type
        if pa.types.is_large_string(kind) or (self.config.cast_ids and pa.types.is_integer(kind)):
            values = values.cast(pa.string())
        values.validate(full=True)  # text that is not UTF-8 would stop a later task
        return values

    def _in_window(self, batch: pa.RecordBatch, counts: dict[str, Any]) -> pa.RecordBatch:
        """Rows before as_of, not before the look-back; those without a time stay, for `validate` to reject."""
        counts["rows_read"] += len(batch)
        times = batch.column("TIMESTAMP")
        unit = self.times.unit
        if unit and pa.types.is_int64(times.type):
            early = pc.fill_null(pc.less(times, first_tick_at(self.as_of, unit)), True)
            counts["rows_at_or_after_as_of"] += len(batch) - (pc.sum(early).as_py() or 0)
            if self.since:
                recent = pc.fill_null(pc.greater_equal(times, first_tick_at(self.since, unit)), True)
                counts["rows_before_lookback"] += len(batch) - (pc.sum(recent).as_py() or 0)
                early = pc.and_(early, recent)
            batch = batch.filter(early)
        counts["rows"] += len(batch)
        return batch

    def _without_forgotten(self, batch: pa.RecordBatch, counts: dict[str, Any]) -> pa.RecordBatch:
        """Rows of users who are not forgotten."""
        kept = self.forgotten.without(batch)
        if left_out := len(batch) - len(kept):
            counts["rows"] -= left_out
            counts[FORGOTTEN] += left_out
        return kept


def _outcomes(values: pa.Array) -> pa.Array:
    kind = values.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return values.cast(pa.float64(), safe=False)
    return values


def _flush(writer: pq.ParquetWriter | None, waiting: list[pa.RecordBatch]) -> None:
    if writer is not None and waiting:
        writer.write_table(pa.Table.from_batches(waiting).combine_chunks())
        waiting.clear()


def _require_same(first: pa.Schema, first_path: str, other: pa.Schema, other_path: str) -> None:
    for a, b in zip(first, other, strict=True):
        if a.type != b.type:
            raise BadData(
                f"{other_path}: {b.name} is {b.type}, but {a.type} in {first_path}: make the files' types the same"
            )
