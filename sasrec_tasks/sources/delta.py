"""A Delta table, at the version that was the newest at `as_of`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from sasrec_tasks import files, filesystem, roots
from sasrec_tasks.contents import ROWS_AT_ONCE
from sasrec_tasks.errors import BadData, BadSettings
from sasrec_tasks.sources.blaming import Blaming
from sasrec_tasks.sources.protocol import CutBy, Part
from sasrec_tasks.tables.delta_files import dataset
from sasrec_tasks.tables.delta_log import Log

log = logging.getLogger(__name__)


def is_delta(url: str) -> bool:
    """Whether a Delta table lies at a URL."""
    try:
        fs, path = filesystem.opened(url, "source")
    except BadSettings:
        return False
    return bool(fs.exists(f"{path.rstrip('/')}/_delta_log"))


class DeltaSource:
    """The data files of one version.

    Where the table had no version yet at ``as_of``, or keeps it no more, the newest is read, and events are taken
    by their own time.

    Args:
        allowed_roots: what links, and the log, may lead to.
        setting: what names the table, for messages.

    Raises:
        BadData: the table can't be read, or needs what the reader doesn't know.
        BadSettings: a file of it lies under none of the roots.
    """

    def __init__(
        self,
        url: str,
        *,
        as_of: datetime,
        allowed_roots: tuple[str, ...] | None = None,
        setting: str = "source",
    ) -> None:
        self.url = url
        self.is_local = files.is_local(filesystem.opened(url, "source")[0])
        roots.check(setting, f"{url}/_delta_log", allowed_roots)
        table, self.cut_by = _at(url, as_of)
        self.about: dict[str, Any] = {"delta_version": int(table.version())}
        try:
            self.dataset = dataset(table)
        except DeltaError as error:
            raise BadData(f"{url}: {error}: export it as plain parquet") from error
        version = str(table.version())
        self.fragments = {fragment.path: fragment for fragment in self.dataset.get_fragments()}
        self.parts: list[Part] = [
            Part(path=path, bytes=size, version=version) for path, size in _files(table)
        ]
        if not self.parts:
            raise BadData(f"{url}: version {version} holds no rows")
        for part in self.parts:  # whoever may write there may have put in links, or a path that leads out
            roots.check(setting, part.path if "://" in part.path else f"{url}/{part.path}", allowed_roots)
        if lost := [part.path for part in self.parts if part.path not in self.fragments]:
            raise BadData(
                f"{url}: version {version} names {len(lost)} files in a way that is not known here, for instance "
                f"{lost[0]!r}: write the table anew, or export it as plain parquet"
            )

    def schema(self, part: Part) -> pa.Schema:
        """The table's columns; see `Source`."""
        return self.dataset.schema

    def batches(self, part: Part, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows of a file; see `Source`."""
        path = f"{self.url}/{part.path}"
        with Blaming(path, local=self.is_local):
            try:
                yield from self.fragments[part.path].to_batches(
                    schema=self.dataset.schema,
                    columns=list(columns),
                    batch_size=ROWS_AT_ONCE,
                    fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True),
                )
            except FileNotFoundError as error:
                raise BadData(
                    f"{path}: is gone, though version {part.version} holds it: the table was vacuumed too early, "
                    "restore the file"
                ) from error


def _at(url: str, as_of: datetime) -> tuple[DeltaTable, CutBy]:
    try:
        table = DeltaTable(url)
        newest = int(table.version())
        moments = {version: int(entry["timestamp"]) for version, entry in Log(table).entries.items()}
    except DeltaError as error:
        raise BadData(f"{url}: can't be read as a Delta table: {error}") from error
    limit = as_of.timestamp() * 1000
    there = [version for version, moment in moments.items() if moment <= limit]
    if not there:
        log.warning(
            "%s had no version at as_of (%s): version %d is read as it is now",
            url,
            as_of.isoformat(),
            newest,
        )
        return table, "event time"
    if (version := max(there)) != newest:
        try:
            table = DeltaTable(url, version=version)
        except DeltaError as error:
            raise BadData(
                f"{url}: version {version}, the newest at as_of, can't be read any more: {error}"
            ) from error
    return table, "delta version"


def _files(table: DeltaTable) -> list[tuple[str, int]]:
    """Paths and bytes of the files, in the order in which they were written."""
    actions = pa.table(table.get_add_actions(flatten=True))
    columns = (actions[name].to_pylist() for name in ("modification_time", "path", "size_bytes"))
    # The log names files by URL: what a partition's folder is called stands there once more encoded.
    return [(unquote(path), int(size)) for _, path, size in sorted(zip(*columns, strict=True))]
