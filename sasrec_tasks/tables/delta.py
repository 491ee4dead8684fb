"""Delta Lake tables: one folder, atomic versions, no server and no catalogue."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, TableNotFoundError

from sasrec_tasks.errors import BadSettings
from sasrec_tasks.tables.protocol import POPULAR, RECOMMENDATIONS, Published

log = logging.getLogger(__name__)

METADATA = "sasrec"
"""Key of a publish's metadata in the Delta log."""


class DeltaTables:
    """The recommendations at `url`, the popular items at `<url>_popular`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.popular_url = f"{self.url}_popular"

    def published(self) -> Iterator[Published]:
        """What is published, newest first; see `Tables`.

        Run and moment are read off each version's rows: restore, compaction and vacuum make
        versions that carry none of our metadata, and after a restore the rows say who is served.
        """
        table = _open(self.url)
        if table is None:
            return
        history = {int(entry["version"]): entry for entry in reversed(table.history())}  # oldest first
        metadata = {
            found["run_id"]: found for entry in history.values() if (found := _metadata(entry)) is not None
        }
        version, last_run = table.version(), None
        while version >= 0:
            run = _run_of(self.url, version)
            if run and run[0] != last_run:
                last_run = run[0]
                yield Published(
                    version=version, run_id=run[0], as_of=run[1], metadata=metadata.get(run[0], {})
                )
            version = _before(version, history.get(version, {}))

    def publish(
        self,
        rows: Iterator[pa.RecordBatch],
        popular: pa.Table,
        *,
        run_id: str,
        as_of: datetime,
        metadata: dict[str, Any],
    ) -> Published:
        """Publish a run once; see `Tables`.

        Raises:
            CommitFailedError: another run was published meanwhile. Trying again is safe.
        """
        table = _open(self.url)
        done = self._published_run(run_id)
        if done:
            log.info("export: run %s is version %d of %s already", run_id, done.version, self.url)
            return done
        popular_version = self._publish_popular(popular, run_id)
        content = {
            **metadata,
            "run_id": run_id,
            "as_of": as_of.isoformat(),
            "popular_version": popular_version,
        }
        reader = pa.RecordBatchReader.from_batches(RECOMMENDATIONS, rows)
        try:
            version = _replace(self.url, table, reader, content)
        except CommitFailedError:
            done = self._published_run(run_id)  # by another try of this task
            if done:
                return done
            raise
        return Published(version=version, run_id=run_id, as_of=as_of, metadata=content)

    def rows(self, version: int) -> ds.Dataset:
        """A version of the recommendations."""
        return DeltaTable(self.url, version=version).to_pyarrow_dataset()

    def for_users(self, users: Sequence[str]) -> pa.Table:
        """The rows of some users; see `Tables`."""
        rows = _opened(self.url).to_pyarrow_dataset().to_table(filter=ds.field("USER_ID").isin(list(users)))
        return rows.sort_by([("USER_ID", "ascending"), ("RANK", "ascending")])

    def popular(self) -> pa.Table:
        """The popular items, best first."""
        return _opened(self.popular_url).to_pyarrow_table().sort_by("RANK")

    def _published_run(self, run_id: str) -> Published | None:
        return next((published for published in self.published() if published.run_id == run_id), None)

    def _publish_popular(self, popular: pa.Table, run_id: str) -> int:
        table = _open(self.popular_url)
        if table is not None and (run := _run_of(self.popular_url, table.version())) and run[0] == run_id:
            return int(table.version())  # an earlier try came this far
        return _replace(self.popular_url, table, popular.cast(POPULAR), {"run_id": run_id})


def _open(url: str) -> DeltaTable | None:
    try:
        return DeltaTable(url)
    except TableNotFoundError:
        return None


def _opened(url: str) -> DeltaTable:
    table = _open(url)
    if table is None:
        raise BadSettings(f"table={url!r}: no table there: check the setting, or publish a run first")
    return table


def _replace(url: str, table: DeltaTable | None, rows: Any, content: dict[str, Any]) -> int:
    """Replace all rows in one commit on top of the version that was looked at; fails if it is not the newest."""
    write_deltalake(
        url if table is None else table,
        rows,
        mode="error" if table is None else "overwrite",
        commit_properties=CommitProperties(
            custom_metadata={METADATA: json.dumps(content)}, max_commit_retries=0
        ),
    )
    return int((DeltaTable(url) if table is None else table).version())


def _run_of(url: str, version: int) -> tuple[str, datetime] | None:
    """RUN_ID and AS_OF of a version's rows; None if it has none, or its files are vacuumed."""
    try:
        head = DeltaTable(url, version=version).to_pyarrow_dataset().head(1, columns=["RUN_ID", "AS_OF"])
    except (OSError, TableNotFoundError, ValueError):
        return None
    if not len(head):
        return None
    moment: datetime = head["AS_OF"][0].as_py()
    return str(head["RUN_ID"][0].as_py()), moment.astimezone(UTC)


def _metadata(entry: dict[str, Any]) -> dict[str, Any] | None:
    try:
        content = json.loads(entry[METADATA])
    except (KeyError, TypeError, ValueError):
        return None
    return content if isinstance(content, dict) and "run_id" in content else None


def _before(version: int, entry: dict[str, Any]) -> int:
    """The version that came before, where a restore leads back to the one that it restored."""
    restored = (entry.get("operationParameters") or {}).get("version")
    if entry.get("operation") == "RESTORE" and restored is not None:
        return int(restored)
    return version - 1
