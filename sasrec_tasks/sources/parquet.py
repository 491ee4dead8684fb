"""Parquet files, with the columns that stand in their paths."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sasrec_tasks import files, roots
from sasrec_tasks.contents import ROWS_AT_ONCE
from sasrec_tasks.errors import BadData
from sasrec_tasks.sources.blaming import Blaming
from sasrec_tasks.sources.files import SourceFile, list_files
from sasrec_tasks.sources.protocol import CutBy, Part
from sasrec_tasks.sources.template import expanded, is_template

log = logging.getLogger(__name__)


class ParquetSource:
    """The files of a folder, a glob, or one.

    Args:
        as_of: files of a day that had not ended by then are left out, where a part of their path says of which
            day they are (``arrival=2026-01-31``).
        since: so are files of days before, since events don't arrive before they happen.
        data_interval_start: of the run, for a place with `{data_interval_start}` in it.
        arrival: name of the part of the path that says so.
        types: of columns in the path that are no text.
        allowed_roots: what links may lead to.
        setting: what names the source, for messages.

    Raises:
        BadData: no such place, no parquet file in it, or none of a day that had ended.
    """

    def __init__(
        self,
        source: str,
        *,
        as_of: datetime,
        since: datetime | None,
        arrival: str,
        types: Mapping[str, pa.DataType],
        allowed_roots: tuple[str, ...] | None,
        data_interval_start: datetime | None = None,
        setting: str = "source",
    ) -> None:
        self.types, self.setting, self.allowed_roots = types, setting, allowed_roots
        self.data_interval_start = data_interval_start
        self.about: dict[str, Any] = {}
        self.cut_by: CutBy = "event time"
        self.fs, dated = self._listed(source, as_of, since, arrival, allowed_roots)
        self.states: dict[str, tuple[int, ...]] = {}  # of files of this machine
        is_local = files.is_local(self.fs)
        for file, _ in dated:
            if is_local or source.startswith(("http://", "https://")):
                roots.check(setting, file.path, allowed_roots)  # links, of folders and of pages, may lead out
            if is_local:
                self.states[file.path] = _state(_status(file.path))
        found = [file for file, _ in dated]
        if any(day for _, day in dated):
            found = self._arrived(source, arrival, dated, as_of, since)
        self.parts: list[Part] = [*found]

    def _listed(
        self,
        source: str,
        as_of: datetime,
        since: datetime | None,
        arrival: str,
        allowed_roots: tuple[str, ...] | None,
    ) -> tuple[Any, list[tuple[SourceFile, date | None]]]:
        """The files, and the day that each is of."""
        if not is_template(source):
            fs, found = list_files(source, self.setting)
            return fs, [(file, _day(file, arrival)) for file in found]
        dated, missing, fs = [], [], None
        for day, place in expanded(
            source,
            as_of=as_of,
            since=since,
            data_interval_start=self.data_interval_start,
            setting=self.setting,
        ):
            roots.check(self.setting, place, allowed_roots)  # a format can put in what leads out of them
            try:
                fs, found = list_files(place, self.setting)
            except BadData:
                missing.append(place)
                continue
            dated += [(file, day) for file in found]
        if not dated:
            raise BadData(
                f"{source}: none of the {len(missing)} places that it stands for is there, for instance {missing[-1:]}"
            )
        if missing:
            log.warning(
                "ingest: %d of the days of %s are not there, first %s", len(missing), source, missing[0]
            )
        self.about["places_missing"] = missing
        return fs, dated

    def _arrived(
        self,
        source: str,
        arrival: str,
        files_of_days: list[tuple[SourceFile, date | None]],
        as_of: datetime,
        since: datetime | None,
    ) -> list[SourceFile]:
        """The files of days that had ended."""
        undated = next((file.path for file, day in files_of_days if day is None), None)
        if undated:
            raise BadData(
                f"{undated}: has no {arrival}=YYYY-MM-DD in its path, which other files of the source have: move it, "
                'or set ingest.arrival_partition="" to take events by their own time'
            )
        dated = [(file, day) for file, day in files_of_days if day is not None]
        first = since.date() if since else date.min
        chosen = [file for file, day in dated if first <= day and _end(day) <= as_of]
        if not chosen:
            raise BadData(
                f"{source}: no {arrival}=… of a day that had ended by as_of ({as_of.isoformat()}): there are "
                f"{min(day for _, day in dated)} to {max(day for _, day in dated)}"
            )
        self.cut_by = "partition date"
        self.about["files_left_out"] = len(dated) - len(chosen)
        return chosen

    def schema(self, part: Part) -> pa.Schema:
        """Names and types of a file's columns, and of those in its path; see `Source`."""
        with self._reading(part) as content:
            schema: pa.Schema = pq.read_schema(content)
        for name, value in self._in_path(part, schema).items():
            schema = schema.append(pa.field(name, value.type))
        return schema

    def batches(self, part: Part, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows of a file; see `Source`."""
        with self._reading(part) as content:
            # pyarrow's default keeps the bytes of all row groups until the end of the file
            parquet = pq.ParquetFile(
                content, buffer_size=2**20, pre_buffer=False, page_checksum_verification=True
            )
            in_path = self._in_path(part, parquet.schema_arrow)
            inside = [name for name in columns if name not in in_path]
            for batch in parquet.iter_batches(batch_size=ROWS_AT_ONCE, columns=inside):
                for name in columns:
                    if name in in_path:
                        batch = batch.append_column(name, pa.repeat(in_path[name], len(batch)))
                yield batch

    @contextmanager
    def _reading(self, part: Part) -> Iterator[Any]:
        """The content of a file, whole and as it was when it was listed."""
        with self._open(part) as content:
            self._require_allowed(part, content)
            try:
                with Blaming(part.path, local=files.is_local(self.fs)):
                    yield content
            except BadData:
                self._require_unchanged(part, content)  # what is half written is not damaged
                raise
            self._require_unchanged(part, content)

    def _require_allowed(self, part: Part, content: Any) -> None:
        """That the file that was opened lies under the roots, even if it became a link since it was listed."""
        if self.allowed_roots is not None and part.path in self.states:
            opened = Path(f"/proc/self/fd/{content.fileno()}")
            if opened.is_symlink():  # where the system tells
                roots.check(self.setting, str(opened.readlink()), self.allowed_roots)

    def _require_unchanged(self, part: Part, content: Any) -> None:
        """That what was read of a file of this machine is what was listed; another may have its name by now."""
        if part.path in self.states and _state(os.fstat(content.fileno())) != self.states[part.path]:
            raise OSError(
                f"{part.path}: was written to after the source was listed: try again once it is whole, and have the "
                "writer move whole files into place"
            )

    def _in_path(self, part: Part, schema: pa.Schema) -> dict[str, pa.Scalar]:
        """Columns that a file leaves to its path, as Hive does."""
        assert isinstance(part, SourceFile)
        found = {}
        for name, value in part.partition.items():
            if name not in schema.names:
                try:
                    found[name] = pa.scalar(value, pa.string()).cast(self.types.get(name, pa.string()))
                except pa.ArrowInvalid as error:
                    raise BadData(
                        f"{part.path}: {name}: {error}: rename the folder, or put the column into the file"
                    ) from error
        return found

    def _open(self, part: Part) -> Any:
        try:
            return self.fs.open(part.path, "rb")
        except PermissionError as error:
            raise BadData(f"{part.path}: no permission to read it") from error
        except FileNotFoundError as error:
            raise OSError(f"{part.path}: was removed after the source was listed: try again") from error


def _state(found: os.stat_result) -> tuple[int, ...]:
    """What changes when a file does."""
    return found.st_ino, found.st_size, found.st_mtime_ns


def _status(path: str) -> os.stat_result:
    """What the system says of a file; refused is what is none: a pipe would never end, a link may lead nowhere."""
    try:
        found = Path(path).stat()
    except OSError as error:
        if not Path(path).is_symlink():
            raise OSError(f"{path}: was removed after the source was listed: try again") from error
        raise BadData(
            f"{path}: is a link to what is not there ({error.strerror}): mend the link, or take it out of the source"
        ) from error
    if not stat.S_ISREG(found.st_mode):
        raise BadData(f"{path}: is no file: name a file of parquet, or take it out of the source")
    return found


def _day(file: SourceFile, arrival: str) -> date | None:
    """The day that stands in a file's path."""
    try:
        return date.fromisoformat(file.partition.get(arrival) or "")
    except ValueError:
        return None


def _end(day: date) -> datetime:
    """The first moment after a day, UTC; the last that there is, of the last day, which some write for "never"."""
    if day == date.max:
        return datetime.max.replace(tzinfo=UTC)
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
