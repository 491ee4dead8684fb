"""All that a Delta table keeps of its older versions but what they said of themselves: data files, and statistics.

A commit names the least and the greatest value of each file that it adds, so an id may stand there when the file is
gone. Statistics are optional (https://github.com/delta-io/delta/blob/master/PROTOCOL.md, "Per-file Statistics"), and
of files that are not there nobody reads them: the commits are written again without. Checkpoints hold the same; they
are made anew from the newest version.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import Any

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from sasrec_tasks import files, filesystem
from sasrec_tasks.tables.delta_errors import cause
from sasrec_tasks.tables.delta_files import folder_of, in_folder, staged
from sasrec_tasks.tables.delta_prune import remove
from sasrec_tasks.tables.delta_replay import CHECKPOINT, COMMIT, files_of_versions, numbered, of_version

RANGES = ("minValues", "maxValues")


def remove_before(table: DeltaTable) -> None:
    """Remove what is older than the open version, which is the newest; a kill half way is gone on with.

    A publish that had begun to write before this version was committed can't be committed any more: its files go, too.

    Raises:
        OSError: the table was written to meanwhile, or can't be. Trying again is safe.
    """
    fs, root = filesystem.opened(folder_of(table), "table")
    log = files.listed(fs, f"{root.rstrip('/')}/_delta_log")
    commits = numbered([file.path for file in log], COMMIT)
    committed = next((file.changed_at for file in log if file.path == commits.get(table.version())), None)
    needed = of_version(table)
    named = set().union(*files_of_versions(table).values())
    there = in_folder(folder_of(table))
    gone = {
        name: file
        for name, file in there.items()
        if name not in needed and (name in named or _is_before(file, committed))
    }
    gone |= {name: file for name, file in staged(folder_of(table)).items() if _is_before(file, committed)}
    remove(table, gone)
    for number, path in commits.items():
        if number < table.version():
            _without_ranges(fs, path)
    _renew_checkpoint(table, fs, [file.path for file in log])


def _is_before(file: files.File, moment: datetime | None) -> bool:
    return moment is not None and file.changed_at < moment


def _without_ranges(fs: Any, path: str) -> None:
    """Write a commit again without the ranges of its files, if it has any; it looks as old as it did."""
    before = fs.cat_file(path).splitlines()
    after = [_line(line) for line in before]
    if after == before:
        return
    changed_at = fs.modified(path)
    files.replace(fs, path, b"\n".join(after) + b"\n")
    if files.is_local(fs):  # readers that ask for a moment go by it
        moment = changed_at.astimezone(UTC).timestamp()
        os.utime(path, (moment, moment))


def _line(line: bytes) -> bytes:
    """A line of a commit without the ranges.

    >>> _line(b'{"add":{"path":"a","stats":"{\\\\"numRecords\\\\":1,\\\\"minValues\\\\":{}}"}}')
    b'{"add":{"path":"a","stats":"{\\\\"numRecords\\\\":1}"}}'
    """
    action = json.loads(line) if line.strip() else {}
    for kind in ("add", "remove"):
        of_file = action.get(kind) or {}
        found = json.loads(of_file["stats"]) if of_file.get("stats") else {}
        if any(name in found for name in RANGES):
            kept = {name: value for name, value in found.items() if name not in RANGES}
            of_file["stats"] = json.dumps(kept, separators=(",", ":"))
            return json.dumps(action, separators=(",", ":")).encode()
    return line


def _renew_checkpoint(table: DeltaTable, fs: Any, log: list[str]) -> None:
    """Put one of the open version in the place of older ones."""
    names = [(path, CHECKPOINT.fullmatch(path.rpartition("/")[2])) for path in log]
    older = [path for path, name in names if name and int(name[1]) < table.version()]
    if not older:
        return
    try:
        table.create_checkpoint()
    except (DeltaError, OSError) as error:
        raise OSError(f"{table.table_uri}: a checkpoint can't be written: {cause(error)}") from error
    fs.rm(older)
