"""Several tables in one publish: the first says what is published, the others follow it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from functools import reduce
from typing import Any

import pyarrow as pa

from sasrec_tasks.mentions import Mentions
from sasrec_tasks.tables.protocol import (
    Forgot,
    OtherList,
    Pruned,
    Published,
    Superseded,
    Tables,
    require_served,
)
from sasrec_tasks.tables.retention import Keep
from sasrec_tasks.traces import Searched

log = logging.getLogger(__name__)


class SeveralTables:
    """A primary table, whose newest version names the champion, and others with the same rows."""

    def __init__(self, primary: Tables, others: Sequence[Tables]) -> None:
        self.primary, self.others = primary, others
        self.url, self.folder = primary.url, primary.folder

    def published(self) -> Iterator[Published]:
        """What is published in the primary table; see `Tables`."""
        return self.primary.published()

    def kept(self) -> Iterator[Published]:
        """What the primary table can serve again; see `Tables`."""
        return self.primary.kept()

    def rolled_back(self) -> set[str]:
        """The runs that were rolled back in the primary table; see `Tables`."""
        return self.primary.rolled_back()

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
        """Publish in each table in turn; trying again goes on with those that are missing. See `Tables`.

        One of the others that holds a later ``as_of``, or names a list of forgotten users that the publisher has not,
        stays as it is, with a warning. What another publish or a rollback has made of the primary table meanwhile is
        what the others serve at last.

        Returns:
            The version of the primary table.
        """
        published = self.primary.publish(
            rows, popular, run_id=run_id, as_of=as_of, metadata=metadata, may_replace=may_replace
        )
        for table in self.others:
            if self._served_run() != run_id:
                log.warning(
                    "export: run %s is not what %s serves any more: it is not copied", run_id, self.url
                )
                break
            try:
                copied = table.publish(
                    iter(self.primary.rows(published.version)),
                    popular,
                    run_id=run_id,
                    as_of=as_of,
                    metadata=metadata,
                    may_replace=may_replace,
                )
            except (Superseded, OtherList) as why:
                # the primary has committed: what its consumers get is told
                log.warning("export: %s: %s: it stays as it is", table.url, why)
                continue
            log.info("export: run %s is version %d of %s", run_id, copied.version, table.url)
        self._follow()
        return published

    def rollback(self, to: Published, *, instead_of: Published | None = None) -> Published:
        """Roll each table back to the run; the primary last, so that trying again goes on. See `Tables`.

        Raises:
            OSError: one of the others does not hold the run's rows.
        """
        if (newest := next(self.published(), None)) and newest.run_id != to.run_id:
            require_served(newest, instead_of, self.url)
        found = [(table, self._of_run(table, to.run_id)) for table in self.others]
        for table, theirs in found:
            table.rollback(theirs)
        try:
            return self.primary.rollback(to, instead_of=instead_of)
        finally:  # another may have been faster with the primary table
            self._follow()

    def _of_run(self, table: Tables, run_id: str) -> Published:
        """What serves a run in one of the others."""
        found = next((kept for kept in table.kept() if kept.run_id == run_id), None)
        if found is None:
            raise OSError(
                f"{table.url}: holds no rows of run {run_id}: they were pruned, or are from before this table was "
                f"added. Choose another version, or roll back {self.url} alone, and the champion with it, by "
                f"`sasrec-tasks rollback --table`: {table.url} then serves what it does now until the next publish"
            )
        return found

    def _served_run(self) -> str | None:
        newest = next(self.primary.published(), None)
        return newest.run_id if newest else None

    def _follow(self) -> None:
        """Have the others serve the run that the primary table does, where they hold its rows.

        Who publishes or rolls back at the same time does the same after its own last step, so that the last one to end
        leaves all of them alike.
        """
        while run_id := self._served_run():
            for table in self.others:
                newest = next(table.published(), None)
                if newest is None or newest.run_id == run_id:
                    continue
                if theirs := next((kept for kept in table.kept() if kept.run_id == run_id), None):
                    log.warning("%s: serves run %s, as %s does by now", table.url, run_id, self.url)
                    table.rollback(theirs)
            if self._served_run() == run_id:
                return

    def prune(self, keep: Keep, *, dry_run: bool = False) -> list[Pruned]:
        """Prune each table by what it was itself served from; see `Tables`."""
        return [
            pruned for table in (self.primary, *self.others) for pruned in table.prune(keep, dry_run=dry_run)
        ]

    def forget(self, users: Collection[str], told: dict[str, Any] | None = None) -> list[Forgot]:
        """Take users out of each table; trying again goes on. See `Tables`."""
        return [forgot for table in (self.primary, *self.others) for forgot in table.forget(users, told)]

    def search(self, mentions: Mentions) -> Searched:
        """Look through each table; see `Tables`."""
        return reduce(Searched.__add__, (table.search(mentions) for table in (self.primary, *self.others)))

    def rows(self, version: int, columns: Sequence[str] | None = None) -> pa.RecordBatchReader:
        """The rows of a version of the primary table; see `Tables`."""
        return self.primary.rows(version, columns)

    def for_users(self, users: Sequence[str], version: int | None = None) -> pa.Table:
        """The rows of some users in the primary table; see `Tables`."""
        return self.primary.for_users(users, version)

    def popular(self, version: int | None = None) -> pa.Table:
        """The popular items of the primary table; see `Tables`."""
        return self.primary.popular(version)
