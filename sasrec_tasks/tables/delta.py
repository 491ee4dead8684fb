"""Delta Lake tables: one folder, atomic versions, no server and no catalogue."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, Schema
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import create_table_with_add_actions

from sasrec_tasks.errors import BadSettings
from sasrec_tasks.tables.delta_files import DataFiles
from sasrec_tasks.tables.protocol import POPULAR, RECOMMENDATIONS, Published, require_latest

log = logging.getLogger(__name__)

METADATA = "sasrec"
"""Key of a publish's metadata in the Delta log."""


class DeltaTables:
    """The recommendations at `url`, the popular items at `<url>_popular`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.folder: str | None = self.url
        self.popular_url = f"{self.url}_popular"

    def published(self) -> Iterator[Published]:
        """What is published, newest first; see `Tables`.

        Run and moment are read off each version's rows: restore, compaction and vacuum make
        versions that carry none of our metadata, and after a restore the rows say who is served.
        """
        table = _open(self.url)
        if table is None:
            return
        history = {int(entry["version"]): entry for entry in table.history()}
        metadata = _metadata_of_runs(table)
        version, last_run = int(table.version()), None
        run = _run_of(table)  # of the newest version, errors are not taken for "nothing there"
        while True:
            if run and run[0] != last_run:
                last_run = run[0]
                yield Published(
                    version=version, run_id=run[0], as_of=run[1], metadata=metadata.get(run[0], {})
                )
            version = _before(version, history)
            if version not in history:  # the table began here, or its log was cleaned up
                return
            run = _run_of_older(self.url, version)

    def kept(self) -> Iterator[Published]:
        """All that can be served again; see `Tables`."""
        table = _open(self.url)
        if table is None:
            return
        metadata = _metadata_of_runs(table)
        for version in range(int(table.version()), -1, -1):
            if run := _run_of_older(self.url, version):
                yield Published(
                    version=version, run_id=run[0], as_of=run[1], metadata=metadata.get(run[0], {})
                )

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
            Superseded: rows of a later `as_of` are published.
            BadSettings: the table has other columns.
            OSError: another run was published meanwhile, or the place can't be written to. Trying
                again is safe.
        """
        table = _open(self.url)  # before looking at it: a commit from here on makes ours fail
        if done := self._published_run(run_id):
            log.info("export: run %s is version %d of %s already", run_id, done.version, self.url)
            return done
        require_latest(next(self.published(), None), as_of)
        popular_version = self._publish_popular(popular, run_id)
        content = {
            **metadata,
            "run_id": run_id,
            "as_of": as_of.isoformat(),
            "popular_version": popular_version,
        }
        try:
            version = _replace(self.url, table, rows, RECOMMENDATIONS, content)
        except OSError:
            if done := self._published_run(run_id):  # by another try of this task
                return done
            raise
        return Published(version=version, run_id=run_id, as_of=as_of, metadata=content)

    def rollback(self, to: Published) -> Published:
        """Serve an earlier version again; see `Tables`."""
        newest = next(self.published(), None)
        if newest is None or newest.run_id == to.run_id:
            return to if newest is None else newest
        popular = _opened(self.popular_url)
        if (earlier := _newest_of_run(popular, to.run_id)) < popular.version():
            _restore(popular, earlier, {"run_id": to.run_id})
        content = {**to.metadata, "run_id": to.run_id, "as_of": to.as_of.isoformat()}
        content["rolled_back"] = {"run_id": newest.run_id, "version": newest.version}
        version = _restore(_opened(self.url), to.version, content)
        return Published(version=version, run_id=to.run_id, as_of=to.as_of, metadata=content)

    def rows(self, version: int, columns: Sequence[str] | None = None) -> pa.RecordBatchReader:
        """The rows of a version; see `Tables`."""
        return _opened(self.url, version).to_pyarrow_dataset().scanner(columns and list(columns)).to_reader()

    def for_users(self, users: Sequence[str], version: int | None = None) -> pa.Table:
        """The rows of some users; see `Tables`."""
        wanted = ds.field("USER_ID").isin(pa.array(users, pa.string()))
        rows = _opened(self.url, version).to_pyarrow_dataset().to_table(filter=wanted)
        return rows.sort_by([("USER_ID", "ascending"), ("RANK", "ascending")])

    def popular(self, version: int | None = None) -> pa.Table:
        """The popular items, best first; see `Tables`."""
        table = _opened(self.popular_url)
        if version is not None:
            run = _run_of(_opened(self.url, version))
            table = _opened(self.popular_url, _newest_of_run(table, run[0] if run else ""))
        return table.to_pyarrow_table().sort_by("RANK")

    def _published_run(self, run_id: str) -> Published | None:
        return next((published for published in self.published() if published.run_id == run_id), None)

    def _publish_popular(self, popular: pa.Table, run_id: str) -> int:
        table = _open(self.popular_url)
        if (version := _version_of(table, run_id)) is not None:
            return version  # an earlier try came this far
        try:
            return _replace(
                self.popular_url, table, popular.cast(POPULAR).to_batches(), POPULAR, {"run_id": run_id}
            )
        except OSError:
            if (version := _version_of(_open(self.popular_url), run_id)) is not None:
                return version  # by another try of this task
            raise


def _open(url: str) -> DeltaTable | None:
    try:
        return DeltaTable(url)
    except TableNotFoundError as error:
        if "Unknown scheme" in str(error):
            raise BadSettings(f"table={url!r}: {error}") from error
        return None
    except DeltaError as error:
        if os.path.isfile(url):  # noqa: PTH113 - may be a URL
            raise BadSettings(f"table={url!r}: is a file: name a folder for the table") from error
        said = str(error).partition("\n")[0]  # further lines are stack frames of the library
        raise OSError(
            f"{url}: can't be read as a Delta table: {said}: restore its folder from a copy, or name another table"
        ) from error


def _opened(url: str, version: int | None = None) -> DeltaTable:
    table = _open(url)
    if table is None:
        raise BadSettings(f"table={url!r}: no table there: check the setting, or publish a run first")
    if version is not None and version != table.version():
        try:
            table = DeltaTable(url, version=version)
        except DeltaError as error:
            raise OSError(f"{url}: version {version} is not kept: {error}") from error
    return table


def _replace(
    url: str,
    table: DeltaTable | None,
    rows: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    content: dict[str, Any],
) -> int:
    """Replace all rows in one commit on top of the version that was looked at; fails if it is not the newest."""
    if table is not None and (has := pa.schema(table.schema().to_arrow())).names != schema.names:
        raise BadSettings(
            f"table={url!r}: holds other columns than recommendations ({', '.join(has.names)}): name another table"
        )
    added = DataFiles(url).write(rows, schema)
    properties = CommitProperties(custom_metadata={METADATA: json.dumps(content)}, max_commit_retries=0)
    try:
        if table is None:
            create_table_with_add_actions(
                url, Schema.from_arrow(schema), added, mode="error", commit_properties=properties
            )
        else:
            table.create_write_transaction(
                added, mode="overwrite", schema=schema, commit_properties=properties
            )
    except CommitFailedError as error:
        raise OSError(f"{url}: was written to by another run meanwhile: try again ({error})") from error
    except DeltaError as error:
        raise OSError(f"{url}: can't be written: {error}") from error
    return 0 if table is None else int(table.version()) + 1  # without retries it is on top of what was there


def _run_of(table: DeltaTable) -> tuple[str, datetime] | None:
    """RUN_ID and AS_OF of a version's rows; None if it has no rows of ours, or its files are vacuumed."""
    try:
        head = table.to_pyarrow_dataset().head(1, columns=["RUN_ID", "AS_OF"])
    except (FileNotFoundError, pa.ArrowInvalid):
        return None
    if not len(head):
        return None
    moment: datetime = head["AS_OF"][0].as_py()
    return str(head["RUN_ID"][0].as_py()), moment.astimezone(UTC)


def _run_of_older(url: str, version: int) -> tuple[str, datetime] | None:
    try:
        return _run_of(DeltaTable(url, version=version))
    except DeltaError:  # the log before it was cleaned up
        return None


def _restore(table: DeltaTable, version: int, content: dict[str, Any]) -> int:
    """Make an earlier version's rows those of the next; its number."""
    try:
        table.restore(
            version, commit_properties=CommitProperties(custom_metadata={METADATA: json.dumps(content)})
        )
    except DeltaError as error:
        raise OSError(f"{table.table_uri}: version {version} can't be restored: {error}") from error
    table.update_incremental()
    return int(table.version())


def _newest_of_run(table: DeltaTable, run_id: str) -> int:
    """The newest version that holds a run's rows."""
    url = table.table_uri
    for version in range(int(table.version()), -1, -1):
        if (run := _run_of_older(url, version)) and run[0] == run_id:
            return version
    raise OSError(f"{url}: holds no rows of run {run_id} any more: choose another version")


def _version_of(table: DeltaTable | None, run_id: str) -> int | None:
    """The table's version, if its rows are a run's."""
    run = None if table is None else _run_of(table)
    return int(table.version()) if table is not None and run and run[0] == run_id else None


def _metadata_of_runs(table: DeltaTable) -> dict[str, dict[str, Any]]:
    """Run → what its latest publish or rollback said."""
    entries = reversed(table.history())  # oldest first: the latest wins
    return {found["run_id"]: found for entry in entries if (found := _metadata(entry)) is not None}


def _metadata(entry: dict[str, Any]) -> dict[str, Any] | None:
    try:
        content = json.loads(entry[METADATA])
    except (KeyError, TypeError, ValueError):
        return None
    return content if isinstance(content, dict) and "run_id" in content else None


def _before(version: int, history: dict[int, dict[str, Any]]) -> int:
    """The version that came before, where a restore leads back to the one that it restored."""
    entry = history.get(version, {})
    restored = entry.get("operationParameters") or {}
    if entry.get("operation") != "RESTORE":
        return version - 1
    if "version" in restored:
        return int(restored["version"])
    return max(
        (
            earlier
            for earlier, other in history.items()
            if earlier < version and other["timestamp"] <= int(restored["datetime"])
        ),
        default=-1,
    )
