"""The data files of a Delta table that no kept publish needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from deltalake import DeltaTable

from sasrec_tasks import filesystem
from sasrec_tasks.files import File
from sasrec_tasks.tables.delta_files import folder_of, in_folder, staged
from sasrec_tasks.tables.delta_log import Log, metadata_of, run_of_older, versions
from sasrec_tasks.tables.delta_replay import Names, files_of_versions
from sasrec_tasks.tables.protocol import Pruned
from sasrec_tasks.tables.retention import Keep


def prune(url: str, table: DeltaTable, popular: DeltaTable | None, keep: Keep, *, dry_run: bool) -> Pruned:
    """Remove them from the recommendations and from the popular items; see `Tables`."""
    there = in_folder(folder_of(table))
    found = list(versions(table, there))
    published = [version for _, version in found if version]
    runs = keep.runs(published)
    needed = [
        (files, place == 0 or bool(version and version.run_id in runs))  # the newest, whatever it holds
        for place, (files, version) in enumerate(found)
    ]
    gone = _unneeded(there, needed, keep.unfinished_since) | _staged(table, keep.unfinished_since)
    gone_popular: dict[str, File] = {}
    if popular:
        gone_popular = _unneeded(
            in_folder(folder_of(popular)), list(_needed_popular(popular, set(runs))), keep.unfinished_since
        ) | _staged(popular, keep.unfinished_since)
    if not dry_run:  # of the recommendations first: a version is kept if all of its files are there
        remove(table, gone)
        if popular:
            remove(popular, gone_popular)
    named = set().union(*(files for files, _ in found))
    return Pruned(
        url=url,
        kept=runs,
        removed=tuple(version for version in published if version.run_id not in runs),
        leftovers=len(gone.keys() - named),
        bytes=sum(file.bytes for file in (*gone.values(), *gone_popular.values())),
    )


def remove_leftovers(table: DeltaTable, *, hours: int, left_alone: datetime, dry_run: bool) -> int:
    """Remove what only older versions of a table need, to which nobody goes back, and what no version names.

    Args:
        hours: that the files of an older version are kept after it was replaced.
        left_alone: no file is taken that has changed since: a commit may be at work.

    Returns:
        Bytes freed.
    """
    unused = set(table.vacuum(hours, dry_run=True, enforce_retention_duration=False, full=True))
    there = in_folder(folder_of(table))
    gone = {name: file for name, file in there.items() if name in unused and file.changed_at < left_alone}
    gone |= _staged(table, left_alone)
    if not dry_run:
        remove(table, gone)
    return sum(file.bytes for file in gone.values())


def _staged(table: DeltaTable, left_alone: datetime) -> dict[str, File]:
    """What killed commits have left half way."""
    found = staged(folder_of(table))
    return {name: file for name, file in found.items() if file.changed_at < left_alone}


def _needed_popular(table: DeltaTable, runs: set[str]) -> Iterator[tuple[Names, bool]]:
    """Of each version of the popular items: its files, and whether it is what is served for one of the runs."""
    log = Log(table)
    missing, newest = set(runs), int(table.version())
    for version, files in reversed(files_of_versions(table).items()):
        told = metadata_of(log.entry(version)) or {}
        run_id = told.get("run_id") or (run_of_older(table.table_uri, version) or ("",))[0]
        yield files, version == newest or run_id in missing
        missing.discard(run_id)


def _unneeded(
    there: Mapping[str, File], versions: Iterable[tuple[Names, bool]], left_alone: datetime
) -> dict[str, File]:
    """Files that no version needs.

    Args:
        there: by name.
        versions: files of each, and whether they are needed.
        left_alone: files that no version names are only taken if they are older: a publish may be at work.
    """
    needed: set[str] = set()
    named: set[str] = set()
    for names, is_needed in versions:
        named |= names
        needed |= names if is_needed else set()
    return {
        name: file
        for name, file in there.items()
        if name not in needed and (name in named or file.changed_at < left_alone)
    }


def remove(table: DeltaTable, files: Mapping[str, File]) -> None:
    """Remove files, if no version has come since they were chosen: a rollback may need them."""
    if not files:
        return
    if DeltaTable(table.table_uri).version() != table.version():
        raise OSError(f"{table.table_uri}: was written to meanwhile, nothing was removed from it: try again")
    filesystem.opened(folder_of(table), "table")[0].rm([file.path for file in files.values()])
