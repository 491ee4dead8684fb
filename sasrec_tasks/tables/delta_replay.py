"""The data files of every version of a Delta table, by one replay of its log.

deltalake opens a version at a time, and reads the log anew for each: 300 versions take it tens of seconds. A commit is
a file of JSON lines that add and remove files (https://github.com/delta-io/delta/blob/master/PROTOCOL.md, "Action
Reconciliation"), and all of them are read once.
"""

from __future__ import annotations

import json
import re
from urllib.parse import unquote

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from sasrec_tasks import filesystem
from sasrec_tasks.files import listed
from sasrec_tasks.tables.delta_files import folder_of

Names = frozenset[str]

COMMIT = re.compile(r"(\d{20})\.json")
CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\..*")


def files_of_versions(table: DeltaTable) -> dict[int, Names]:
    """Version → names of its data files, of each that the log can still tell, up to that which is open.

    Where the commits before a checkpoint were cleaned up, the versions begin with the checkpoint's.
    """
    url = table.table_uri
    fs, root = filesystem.opened(folder_of(table), "table")
    paths = [file.path for file in listed(fs, f"{root.rstrip('/')}/_delta_log")]
    commits, checkpoints = numbered(paths, COMMIT), numbered(paths, CHECKPOINT)
    numbers = [number for number in range(int(table.version()) + 1) if number in commits]
    read = fs.cat_ranges([commits[number] for number in numbers], None, None, on_error="raise")
    contents = dict(zip(numbers, read, strict=True))
    found: dict[int, Names] = {}
    files: Names | None = frozenset()  # before version 0; None where the log has a gap
    for number in range(int(table.version()) + 1):
        if number not in contents or files is None:
            files = _files_at(url, number) if number in checkpoints else None
        else:
            files = _after(files, contents[number])
        if files is not None:
            found[number] = files
    return found


def of_version(table: DeltaTable) -> Names:
    """Names of the data files that a version needs."""
    return frozenset(uri.rpartition("/")[2] for uri in table.file_uris())


def numbered(paths: list[str], pattern: re.Pattern[str]) -> dict[int, str]:
    """Version → path, of the files in a log whose names are of one kind."""
    found = ((pattern.fullmatch(path.rpartition("/")[2]), path) for path in paths)
    return {int(match[1]): path for match, path in found if match}


def _files_at(url: str, version: int) -> Names | None:
    try:
        return of_version(DeltaTable(url, version=version))
    except DeltaError:  # the checkpoint is damaged, or one of several parts is not there
        return None


def _after(files: Names, commit: bytes) -> Names:
    """The files after a commit, from those before it.

    A commit names a file once at most, so that the order of its lines does not matter.

    >>> sorted(_after(frozenset({"a", "b"}), b'{"remove": {"path": "a"}}\\n{"add": {"path": "c"}}'))
    ['b', 'c']
    """
    actions = [json.loads(line) for line in commit.splitlines() if line.strip()]
    added, removed = (
        {unquote(action[kind]["path"]).rpartition("/")[2] for action in actions if kind in action}
        for kind in ("add", "remove")
    )
    return (files - removed) | added
