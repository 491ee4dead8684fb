"""Task 1: copy the interactions, as they are now, into the run's folder.

Later tasks read this frozen snapshot only, so that a retry sees the same events however the
source has grown meanwhile. Events at or after `as_of` are not read, so that a backfill can't learn
from what came later.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sasrec_tasks import roots
from sasrec_tasks.artifacts import RunStore, Summary, write_json
from sasrec_tasks.config import Ingest, Settings
from sasrec_tasks.contents import COLUMNS, MANIFEST, ROWS_AT_ONCE, SNAPSHOT
from sasrec_tasks.errors import BadData, BadSettings
from sasrec_tasks.progress import bar
from sasrec_tasks.sources import SourceFile, list_files
from sasrec_tasks.timestamps import TICKS, first_tick_at, unit_of_integers, unit_of_type

log = logging.getLogger(__name__)


def run(store: RunStore, settings: Settings) -> Summary:
    """Freeze the source into `ingest/`.

    Returns:
        files, rows, rows_at_or_after_as_of, timestamp_unit.

    Raises:
        BadData: nothing to read, a damaged file, a column that is missing.
        BadSettings: a source outside the allowed roots, a mapping to an unknown column.
    """
    unknown = set(settings.ingest.columns.values()) - set(COLUMNS)
    if unknown:
        raise BadSettings(
            f"ingest.columns: maps to {', '.join(sorted(unknown))}: the columns are {', '.join(COLUMNS)}"
        )
    twice = [column for column, times in Counter(settings.ingest.columns.values()).items() if times > 1]
    if twice:
        raise BadSettings(f"ingest.columns: maps more than one column to {', '.join(sorted(twice))}")
    fs, files = list_files(settings.source)
    if getattr(fs, "local_file", False):
        for file in files:  # a link below an allowed root may lead out of it
            roots.check("source", file.path, settings.ingest.allowed_roots)
    as_of = settings.as_of or datetime.now(UTC)
    return store.once(
        "ingest",
        lambda folder: _Snapshot(fs, files, settings, as_of).write(folder),
        settings={
            "source": settings.source,
            "files": [vars(file) for file in files],
            "as_of": as_of.isoformat(),
            **settings.ingest.model_dump(mode="json", exclude={"allowed_roots"}),
        },
    )


class _Snapshot:
    """Streams the files, one row group's batch after another, into one parquet file."""

    def __init__(self, fs: Any, files: list[SourceFile], settings: Settings, as_of: datetime) -> None:
        self.fs, self.files, self.as_of = fs, files, as_of
        self.source = settings.source
        self.config: Ingest = settings.ingest
        self.names = {column: column for column in COLUMNS} | {
            column: name for name, column in self.config.columns.items()
        }  # contract → source
        self.unit = ""
        self.unit_told_by = ""

    def write(self, folder: Path) -> Summary:
        schemas = [self._schema(file) for file in self.files]
        units = [unit for schema in schemas if (unit := unit_of_type(self._type(schema, "TIMESTAMP")))]
        self.unit = max(units, key=lambda unit: TICKS[unit], default="")  # the finest: nothing is lost
        for file, schema in zip(self.files, schemas, strict=True):
            if self.unit and unit_of_type(self._type(schema, "TIMESTAMP")) == self.unit:
                self.unit_told_by = self.unit_told_by or file.path
        entries: list[dict[str, Any]] = []
        writer: pq.ParquetWriter | None = None
        waiting: list[pa.RecordBatch] = []
        total = sum(file.bytes for file in self.files)
        done = 0
        first_schema, first_path = None, ""
        with bar("ingest", total, "bytes") as advance:
            for file in self.files:
                entry: dict[str, Any] = {"file": file.path, "bytes": file.bytes, "rows_read": 0, "rows": 0}
                for batch in self._batches(file):
                    kept = self._before_as_of(batch)
                    entry["rows_read"] += len(batch)
                    entry["rows"] += len(kept)
                    if first_schema is None:
                        first_schema, first_path = kept.schema, file.path
                        writer = _writer(folder / SNAPSHOT, kept.schema)
                    _require_same(first_schema, first_path, kept.schema, file.path)
                    waiting.append(kept)
                    if sum(map(len, waiting)) >= ROWS_AT_ONCE:
                        _flush(writer, waiting)
                done += file.bytes
                advance(done)
                entries.append(entry)
        if writer is None or first_schema is None:
            raise BadData(
                f"{self.source}: no rows in {len(self.files)} file(s): there is nothing to learn from"
            )
        _flush(writer, waiting)
        writer.close()

        rows, read = sum(e["rows"] for e in entries), sum(e["rows_read"] for e in entries)
        if rows == 0:
            raise BadData(
                f"{self.source}: all {read:,} rows are at or after as_of ({self.as_of.isoformat()}): "
                f"check as_of, and ingest.timestamp_unit (taken as {self.unit!r})"
            )
        manifest = {
            "source": self.source,
            "as_of": self.as_of.isoformat(),
            "timestamp_unit": self.unit or None,
            "rows": rows,
            "rows_at_or_after_as_of": read - rows,
            "columns": self.names,
            "files": entries,
        }
        write_json(folder / MANIFEST, manifest)
        log.info(
            "ingest: %s rows of %d file(s), %s left out at or after as_of",
            f"{rows:,}",
            len(entries),
            f"{read - rows:,}",
        )
        return {
            "files": len(entries),
            "rows": rows,
            "rows_at_or_after_as_of": read - rows,
            "timestamp_unit": self.unit or None,
        }

    def _schema(self, file: SourceFile) -> pa.Schema:
        """The schema of a file that has all needed columns."""
        with self._open(file) as content, _blaming(file.path, self.fs):
            schema: pa.Schema = pq.read_schema(content)
        for name, value in self._from_path(file, schema).items():
            schema = schema.append(pa.field(name, value.type))
        needed = self._needed(schema)
        missing = [name for name in needed if name not in schema.names]
        twice = [name for name in dict.fromkeys(needed) if schema.names.count(name) > 1]
        if twice:
            raise BadData(f"{file.path}: more than one column {', '.join(twice)}: rename or drop one of them")
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
        raise BadData(f"{file.path}: missing column {', '.join(missing)}: " + "; ".join(hints))

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

    def _type(self, schema: pa.Schema, column: str) -> pa.DataType:
        return schema.field(self.names[column]).type

    def _open(self, file: SourceFile) -> Any:
        try:
            return self.fs.open(file.path, "rb")
        except PermissionError as error:
            raise BadData(f"{file.path}: no permission to read it") from error

    def _batches(self, file: SourceFile) -> Iterator[pa.RecordBatch]:
        with self._open(file) as content, _blaming(file.path, self.fs):
            # pyarrow's default keeps the bytes of all row groups until the end of the file
            parquet = pq.ParquetFile(content, buffer_size=2**20, pre_buffer=False)
            in_path = self._from_path(file, parquet.schema_arrow)
            needed = [name for name in self._needed(parquet.schema_arrow) if name not in in_path]
            for batch in parquet.iter_batches(batch_size=ROWS_AT_ONCE, columns=needed):
                for name, value in in_path.items():
                    batch = batch.append_column(name, pa.repeat(value, len(batch)))
                if len(batch):
                    yield self._in_contract(batch, file.path)

    def _from_path(self, file: SourceFile, schema: pa.Schema) -> dict[str, pa.Scalar]:
        """Needed columns that the file leaves to its Hive path, of the contract's types."""
        partition = file.partition
        types = {"OUTCOME": pa.float64(), "TIMESTAMP": pa.int64()}
        found = {}
        for column, name in self.names.items():
            if name in partition and name not in schema.names:
                try:
                    found[name] = pa.scalar(partition[name], pa.string()).cast(types.get(column, pa.string()))
                except pa.ArrowInvalid as error:
                    raise BadData(
                        f"{file.path}: {name}: {error}: rename the folder, or put the column into the file"
                    ) from error
        return found

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
            try:
                if column == "TIMESTAMP":
                    values = self._timestamps(values, path)
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
        text = pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
        if text or (self.config.cast_ids and pa.types.is_integer(kind)):
            values = values.cast(pa.string())
        values.validate(full=True)  # text that is not UTF-8 would stop a later task
        return values

    def _timestamps(self, values: pa.Array, path: str) -> pa.Array:
        kind = values.type
        if unit_of_type(kind):
            if pa.types.is_date(kind):
                values = values.cast(pa.timestamp("s" if pa.types.is_date32(kind) else "ms"))
            return values.cast(pa.timestamp(self.unit)).cast(pa.int64())
        if not pa.types.is_integer(kind):
            return values
        values = values.cast(pa.int64())
        unit: str = self.config.timestamp_unit
        if unit == "auto":
            unit = unit_of_integers(values) or self.unit or "s"
        if self.unit and unit != self.unit:
            raise BadData(
                f"{path}: {self.names['TIMESTAMP']} looks like {unit!r}, but {self.unit!r} in "
                f"{self.unit_told_by}: make them the same, or set ingest.timestamp_unit"
            )
        if not self.unit:
            self.unit, self.unit_told_by = unit, path
        return values

    def _before_as_of(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Rows before as_of; those without a time stay, for `validate` to reject."""
        times = batch.column("TIMESTAMP")
        if not self.unit or not pa.types.is_int64(times.type):
            return batch
        early = pc.less(times, first_tick_at(self.as_of, self.unit))
        return batch.filter(pc.fill_null(early, True))


def _outcomes(values: pa.Array) -> pa.Array:
    kind = values.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return values.cast(pa.float64(), safe=False)
    return values


def _writer(file: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """For the snapshot; times as differences, the rest by dictionary: smaller, and written in less time."""
    are_ticks = pa.types.is_int64(schema.field("TIMESTAMP").type)
    return pq.ParquetWriter(
        file,
        schema,
        compression="zstd",
        use_dictionary=[name for name in schema.names if name != "TIMESTAMP"],
        column_encoding={"TIMESTAMP": "DELTA_BINARY_PACKED"} if are_ticks else None,
    )


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


class _blaming:  # noqa: N801 - reads as a clause: `with _blaming(path, fs):`
    """Turns what pyarrow says about a damaged file into an error that names it."""

    def __init__(self, path: str, fs: Any) -> None:
        self.path = path
        self.local = getattr(fs, "local_file", False)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, BadData):
            return
        if isinstance(error, pa.ArrowInvalid | pa.ArrowNotImplementedError) or (
            self.local and isinstance(error, OSError)
        ):
            raise BadData(
                f"{self.path}: can't be read as parquet, it is empty, truncated or damaged: write it again ({error})"
            ) from error
        if isinstance(error, OSError):  # remote: the network's fault, or the file's
            raise OSError(f"{self.path}: can't be read: {error}") from error
