"""The runs' folders of a store: which there are, when one last changed, and how one is removed."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sasrec_tasks import checksums, files, filesystem
from sasrec_tasks.artifacts import MARKER, RUN_ID, SETTINGS, RunStore
from sasrec_tasks.errors import BadSettings

PRUNED = ".pruned."
"""What the name of a folder begins with that is being removed."""


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """One run's folder, as it is listed."""

    run: RunStore
    bytes: int
    changed_at: datetime  # of the file that changed last


def in_store(store: str) -> Iterator[RunStore]:
    """The folders of a store that may be those of runs; none where no store is."""
    fs, path = filesystem.opened(store, "store")
    names = (
        [name.rstrip("/").rpartition("/")[2] for name in fs.ls(path, detail=False)] if fs.isdir(path) else []
    )
    return (RunStore.of(store, name) for name in sorted(names) if RUN_ID.fullmatch(name))


DEPTH = 3
"""Levels of folders within a run's."""


def enclosing(place: str) -> str | None:
    """The run in whose folder a place lies, or which it is; None if it lies in none, or is no folder.

    What can't be looked into is taken for none: on S3, keys above a store's may be another's.
    """
    place = place.removeprefix("parquet+").rstrip("/")
    if place.startswith(("connection:", "postgresql://", "postgres://")):
        return None
    try:
        fs, path = filesystem.opened(place, "place")
    except BadSettings:  # a table where deltalake alone can read
        return None
    for _ in range(DEPTH):
        path, _, name = path.rpartition("/")
        if not RUN_ID.fullmatch(name):
            continue
        with suppress(OSError, ValueError):
            if checksums.KEY in json.loads(fs.cat_file(f"{path}/{name}/{SETTINGS}")):
                return name
    return None


def listed(run: RunStore) -> RunFolder | None:
    """A run's folder; None if no run was started there."""
    if not run.is_started():
        return None
    found = files.listed(run.fs, run.root)
    if not found:  # another has removed it meanwhile
        return None
    return RunFolder(
        run=run,
        bytes=sum(file.bytes for file in found),
        changed_at=max(file.changed_at for file in found),
    )


def remove(run: RunStore) -> None:
    """Remove a run's folder: the markers first, the settings last.

    A kill half way leaves a run that was begun and has finished no task, which can be removed again, or, at last,
    what `remove_leftovers` removes.
    """
    found = [file.path for file in files.listed(run.fs, run.root)]
    markers = [path for path in found if path.endswith(f"/{MARKER}")]
    settings = f"{run.root}/{SETTINGS}"
    for paths in (markers, [path for path in found if path not in markers and path != settings]):
        if paths:
            run.fs.rm(paths)
    if not files.is_local(run.fs):
        run.fs.rm(run.root, recursive=True)
        return
    hidden = Path(run.root).with_name(f"{PRUNED}{secrets.token_hex(4)}")  # folders go one by one
    Path(run.root).rename(hidden)
    try:
        shutil.rmtree(hidden)
    except OSError as error:  # it names what is in the folder without the folder
        raise OSError(error.errno, error.strerror, str(hidden)) from error


def remove_leftovers(store: str) -> None:
    """Remove what a kill has left of a run's folder that was being removed."""
    fs, path = filesystem.opened(store, "store")
    if files.is_local(fs):
        for hidden in Path(path).glob(f"{PRUNED}*"):
            shutil.rmtree(hidden, ignore_errors=True)
