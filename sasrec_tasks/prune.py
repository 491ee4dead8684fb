"""The last step: old versions of the table and old runs' folders are removed.

Never those that are needed: the version that is served and those that are kept to roll back to, the runs behind
them, with whose models the next nights are compared and from which they start, the run that is at work here, and
any that may be at work elsewhere. What `<table>_runs` says of a run stays for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sasrec_tasks import config, filesystem, run_folders
from sasrec_tasks import runs as table_of_runs
from sasrec_tasks.artifacts import RunStore, Summary
from sasrec_tasks.config import Settings
from sasrec_tasks.roots import places
from sasrec_tasks.run_folders import RunFolder
from sasrec_tasks.tables import Keep, Pruned, open_tables

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was removed, or in a dry run would be, and why the rest is kept."""

    tables: list[Pruned]
    runs: dict[str, str]  # run id → why its folder is kept; "" if it was removed
    bytes: int
    dry_run: bool

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "dry_run": self.dry_run,
            "bytes": self.bytes,
            "tables": [
                {
                    "table": table.url,
                    "removed": [{"version": each.version, "run_id": each.run_id} for each in table.removed],
                    "leftovers": table.leftovers,
                    "kept": table.kept,
                }
                for table in self.tables
            ],
            "runs": {
                "removed": [run_id for run_id, why in self.runs.items() if not why],
                "kept": {run_id: why for run_id, why in self.runs.items() if why},
            },
        }


def run(store: RunStore, settings: Settings) -> Summary:
    """Prune the table and the store of a run that has come to its end, whatever the end was.

    Returns:
        As `Report.as_dict`.

    Raises:
        OSError: something can't be read or removed. Trying again is safe, and goes on.
    """
    report = prune(settings.table, store.store, settings.prune, current=store.run_id)
    would = "would be" if report.dry_run else "were"
    for table in report.tables:
        log.info(
            "prune: %d versions of %s %s removed, the rows of %d runs are kept",
            len(table.removed),
            table.url,
            would,
            len(table.kept),
        )
    removed = [run_id for run_id, why in report.runs.items() if not why]
    log.info("prune: %d of %d runs' folders %s removed", len(removed), len(report.runs), would)
    log.info("prune: %s MB %s freed", f"{report.bytes / 1e6:,.1f}", would)
    return report.as_dict()


def prune(
    table: str, store: str, settings: config.Prune, *, current: str = "", now: datetime | None = None
) -> Report:
    """Remove what is older than the settings say and not needed.

    Args:
        table: as the setting `table`.
        store: as the setting `store`; if empty, runs' folders are not looked at.
        current: id of the run that does this.
        now: the moment that days are counted from; by default the present.

    Raises:
        OSError: something can't be read or removed; as long as the table can't be read, no folder is removed.
    """
    now = now or datetime.now(UTC)
    tables = open_tables(table)
    keep = Keep(versions=settings.keep_versions, days=settings.keep_days, now=now)
    pruned = tables.prune(keep, dry_run=settings.dry_run)
    needed = {run_id: f"{each.url} keeps its rows" for each in reversed(pruned) for run_id in each.kept}
    runs: dict[str, str] = {}
    freed = sum(each.bytes for each in pruned)
    for found in run_folders.in_store(store) if store else ():
        folder = run_folders.listed(found)
        if folder is None:  # not a run's
            continue
        why = _why_kept(folder, table, settings, current, needed, now)
        if not why:
            freed += folder.bytes
            if not settings.dry_run:
                run_folders.remove(folder.run)
        runs[folder.run.run_id] = why
    freed += _clear_away(table, store, keep, dry_run=settings.dry_run)
    return Report(tables=pruned, runs=runs, bytes=freed, dry_run=settings.dry_run)


def _clear_away(table: str, store: str, keep: Keep, *, dry_run: bool) -> int:
    """Remove what kills have left in the store and in the table of runs; bytes freed."""
    if store and not dry_run:
        run_folders.remove_leftovers(store)
    for folder in _folders(table, store):
        filesystem.abort_uploads(folder, keep.unfinished_since, dry_run=dry_run)
    if not store and not open_tables(table).folder:
        return 0
    return table_of_runs.remove_leftovers(
        table_of_runs.url_of(table, store), left_alone=keep.unfinished_since, dry_run=dry_run
    )


def _folders(table: str, store: str) -> list[str]:
    """Where runs and publishes write files."""
    found = [folder for place in places(table) if (folder := open_tables(place).folder)]
    beside = [f"{folder.rstrip('/')}{suffix}" for folder in found for suffix in ("", "_popular", "_runs")]
    return [*beside, *([store] if store else [])]


def _why_kept(
    folder: RunFolder,
    table: str,
    settings: config.Prune,
    current: str,
    needed: Mapping[str, str],
    now: datetime,
) -> str:
    """Why a run's folder is kept; "" if nothing keeps it."""
    run = folder.run
    if run.run_id == current:
        return "it is this run"
    if run.run_id in needed:
        return needed[run.run_id]
    if settings.keep_runs_days is None:
        return "prune.keep_runs_days is null"
    if folder.changed_at > now - timedelta(days=settings.keep_runs_days):
        return f"changed in the last {settings.keep_runs_days:g} days"
    if run.is_at_work():
        return "a task of it is at work"
    try:
        theirs = run.settings().table
    except ValueError as error:
        return f"its settings can't be read: {error}"
    if _primary(theirs) != _primary(table):
        return f"it is a run of another table, {theirs}"
    export = run.marker("export")
    if export and export.summary["published"] and not needed:
        return "it is published, but nothing is where the table should be"
    return ""


def _primary(table: str) -> str:
    return next(iter(places(table)), "").rstrip("/")
