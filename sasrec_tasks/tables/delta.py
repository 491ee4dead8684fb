"""Delta Lake tables: one folder, atomic versions, no server and no catalogue."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Schema
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import create_table_with_add_actions

from sasrec_tasks import traces
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.mentions import Mentions
from sasrec_tasks.tables import delta_forget, delta_prune
from sasrec_tasks.tables.delta_errors import cause
from sasrec_tasks.tables.delta_files import DataFiles, dataset, in_folder, in_order
from sasrec_tasks.tables.delta_log import (
    METADATA,
    Log,
    before,
    made_at,
    newest_of_run,
    run_of_older,
    run_told,
    served_run,
    version_of,
    versions,
)
from sasrec_tasks.tables.delta_replay import of_version
from sasrec_tasks.tables.protocol import (
    POPULAR,
    RECOMMENDATIONS,
    Forgot,
    Pruned,
    Published,
    forgotten,
    is_without,
    meanwhile,
    require_replaceable,
    require_served,
    served_again,
    without,
)
from sasrec_tasks.tables.retention import Keep, NotKept, not_kept
from sasrec_tasks.traces import Searched

log = logging.getLogger(__name__)

KEEP_LOG = PostCommitHookProperties(cleanup_expired_logs=False)
"""Delta Lake would forget versions after 30 days, whether or not they are kept."""

WHOLE_SECOND = 1.0
"""Some stores tell in whole seconds when a file was written: a file and a version of one second look equally old."""


class DeltaTables:
    """The recommendations at `url`, the popular items at `<url>_popular`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.folder: str | None = self.url
        self.popular_url = f"{self.url}_popular"

    def published(self) -> Iterator[Published]:
        """What is published, newest first; see `Tables`.

        Run and moment of the newest version are read off its rows, if it has any, and so are those of versions whose
        commit does not tell: restore, compaction and vacuum make versions that carry none of our metadata.
        """
        table = _open(self.url)
        if table is not None:
            yield from self._published(table, Log(table))

    def _published(self, table: DeltaTable, told: Log) -> Iterator[Published]:
        version, last_run = int(table.version()), None
        run = served_run(table)  # of the newest version, errors are not taken for "nothing there"
        while True:
            if run and run[0] != last_run:
                last_run = run[0]
                yield Published(
                    version=version,
                    run_id=run[0],
                    as_of=run[1],
                    metadata=told.metadata_of_run(run[0]),
                    at=made_at(told.entry(version)),
                )
            version = before(version, told.entries)
            if version not in told.entries:  # the table began here, or its log was cleaned up
                return
            run = run_told(told.entries[version]) or run_of_older(self.url, version)

    def kept(self) -> Iterator[Published]:
        """All that can be served again; see `Tables`."""
        table = _open(self.url)
        if table is None:
            return
        for _, published in versions(table, in_folder(self.url)):
            if published:
                yield published

    def rolled_back(self) -> set[str]:
        """The runs that were rolled back, of those whose commits are in the log; see `Tables`."""
        table = _open(self.url)
        if table is None:
            return set()
        told = Log(table)
        return told.metadata.keys() - {published.run_id for published in self._published(table, told)}

    def publish(
        self,
        rows: Iterator[pa.RecordBatch],
        popular: pa.Table,
        *,
        run_id: str,
        as_of: datetime,
        metadata: dict[str, Any],
        may_replace: Callable[[Published], None] | None = None,
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
        require_replaceable(next(self.published(), None), as_of, may_replace)
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

    def rollback(self, to: Published, *, instead_of: Published | None = None) -> Published:
        """Serve an earlier version again; see `Tables`."""
        table = _opened(self.url)  # before looking at it: a commit from here on makes ours fail
        newest = next(self.published(), None)
        if newest is None or newest.run_id == to.run_id:
            return to if newest is None else newest
        require_served(newest, instead_of, self.url)
        self._at(to.version)
        self._serve_popular(to.run_id)
        content = {**served_again(to, newest), "run_id": to.run_id, "as_of": to.as_of.isoformat()}
        try:
            version = _restore(table, to.version, content)
        except OSError:
            if run := served_run(_opened(self.url)):  # it is served still, or was published meanwhile
                self._serve_popular(run[0])
            raise
        return Published(version=version, run_id=to.run_id, as_of=to.as_of, metadata=content)

    def _serve_popular(self, run_id: str) -> None:
        """Make a run's popular items the newest."""
        popular = _opened(self.popular_url)
        if (earlier := newest_of_run(popular, run_id)) < popular.version():
            _restore(popular, earlier, {"run_id": run_id})

    def prune(self, keep: Keep, *, dry_run: bool = False) -> list[Pruned]:
        """Remove the data files of old publishes; see `Tables`. The log stays, with all that it tells.

        Not by `vacuum`, which makes two more versions each time.
        """
        table = _open(self.url)
        if table is None:
            return []
        return [delta_prune.prune(self.url, table, _open(self.popular_url), keep, dry_run=dry_run)]

    def forget(self, users: Collection[str], told: dict[str, Any] | None = None) -> list[Forgot]:
        """Publish without users; the files of all other versions go, and what the log says of them. See `Tables`."""
        table = _open(self.url)  # before looking at it: a commit from here on makes ours fail
        newest = next(self.published(), None)
        if table is None or newest is None:
            return [Forgot(url=self.url, version=None)]
        removed = [published.version for published in self.kept() if published.version < table.version()]
        if not is_without(self.for_users(list(users)), newest, told):
            removed = [*([newest.version] if newest.version == table.version() else []), *removed]
            table = self._commit_without(table, newest, users, told)
        delta_forget.remove_before(table)
        if self.search(Mentions(users)).found:  # of a publish that began before and failed since
            time.sleep(WHOLE_SECOND)
            table = self._commit_without(table, newest, users, told)
            delta_forget.remove_before(table)
        return [Forgot(url=self.url, version=int(table.version()), removed=tuple(removed))]

    def _commit_without(
        self, table: DeltaTable, newest: Published, users: Collection[str], told: dict[str, Any] | None
    ) -> DeltaTable:
        """Serve the open version's rows without users; the version that does."""
        content = {**newest.metadata, "run_id": newest.run_id, "as_of": newest.as_of.isoformat()}
        rows = without(in_order(table), users)
        _replace(self.url, table, rows, RECOMMENDATIONS, {**content, **forgotten(users, newest, told)})
        return _opened(self.url)

    def search(self, mentions: Mentions) -> Searched:
        """Look through all files; see `Tables`."""
        return traces.in_folders([self.url, self.popular_url, f"{self.url}_digest"], mentions)

    def rows(self, version: int, columns: Sequence[str] | None = None) -> pa.RecordBatchReader:
        """The rows of a version; see `Tables`."""
        return dataset(self._at(version)).scanner(columns and list(columns)).to_reader()

    def for_users(self, users: Sequence[str], version: int | None = None) -> pa.Table:
        """The rows of some users; see `Tables`."""
        wanted = ds.field("USER_ID").isin(pa.array(users, pa.string()))
        rows = dataset(self._at(version)).to_table(filter=wanted)
        return rows.sort_by([("USER_ID", "ascending"), ("RANK", "ascending")])

    def popular(self, version: int | None = None) -> pa.Table:
        """The popular items, best first; see `Tables`."""
        table = _opened(self.popular_url)
        if version is not None:
            run = served_run(self._at(version))
            table = _opened(self.popular_url, newest_of_run(table, run[0] if run else ""))
        return dataset(table).to_table().sort_by("RANK")

    def _at(self, version: int | None) -> DeltaTable:
        """The newest version, or one whose files are all there."""
        newest = _opened(self.url)
        if version is None or version == newest.version():
            return newest
        older = _opened(self.url, version)
        if not of_version(older) <= in_folder(self.url).keys():
            raise not_kept(self.url, version)
        return older

    def _published_run(self, run_id: str) -> Published | None:
        return next((published for published in self.published() if published.run_id == run_id), None)

    def _publish_popular(self, popular: pa.Table, run_id: str) -> int:
        table = _open(self.popular_url)
        if (version := version_of(table, run_id)) is not None:
            return version  # an earlier try came this far
        try:
            return _replace(
                self.popular_url, table, popular.cast(POPULAR).to_batches(), POPULAR, {"run_id": run_id}
            )
        except OSError:
            if (version := version_of(_open(self.popular_url), run_id)) is not None:
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
        if not 0 <= version < table.version():
            raise NotKept(
                f"{url}: version {version} is not kept: there was none of that number, the newest is {table.version()}"
            )
        try:
            table = DeltaTable(url, version=version)
        except DeltaError as error:
            if all(entry.get("version") != version for entry in table.history()):
                raise NotKept(f"{url}: version {version} is not kept: {error}") from error
            raise OSError(f"{url}: version {version} can't be read: {error}") from error
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
                added,
                mode="overwrite",
                schema=schema,
                commit_properties=properties,
                post_commithook_properties=KEEP_LOG,
            )
    except (DeltaError, OSError) as error:
        # the first version of a table, where another run has made it, fails with no class of its own
        if isinstance(error, CommitFailedError) or (table is None and _open(url)):
            raise meanwhile(url, error) from error
        raise OSError(f"{url}: can't be written: {cause(error)}") from error
    return 0 if table is None else int(table.version()) + 1  # without retries it is on top of what was there


def _restore(table: DeltaTable, version: int, content: dict[str, Any]) -> int:
    """Make an earlier version's rows those of the next; its number. Fails if the open version is not the newest."""
    newest = int(table.version())
    properties = CommitProperties(custom_metadata={METADATA: json.dumps(content)}, max_commit_retries=0)
    try:
        table.restore(version, commit_properties=properties, post_commithook_properties=KEEP_LOG)
    except CommitFailedError as error:
        raise meanwhile(table.table_uri, error) from error
    except (DeltaError, OSError) as error:
        raise OSError(f"{table.table_uri}: version {version} can't be restored: {cause(error)}") from error
    return newest + 1  # without retries it is on top of what was there
