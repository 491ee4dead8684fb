"""Where a heavy task computes: in its own process, or on a cluster.

On a cluster the work is done part by part, and the task puts the parts together; all that it commits, publishes and
tells is its own doing in either case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from sasrec_tasks.artifacts import RunStore, Summary
from sasrec_tasks.config import Settings
from sasrec_tasks.shards import Shards, Told


@dataclass(frozen=True)
class Cluster:
    """A cluster that does a task's work."""

    shards: Shards
    settings: Settings

    def made(self) -> Told:
        """Have the work done, unless it is; what was told of it.

        Raises:
            BadSettings: Ray is not installed, or what the job itself found.
            BadData: as the job found.
            OSError: the cluster can't be reached, or the job was lost. Trying again is safe, and goes on.
        """
        from sasrec_tasks import jobs  # Ray is no part of an installation that does without

        jobs.done(self.shards, self.settings)
        told = self.shards.finished()
        assert told is not None
        return told

    def parts(self) -> Iterator[pa.Table]:
        """What was made, in order; after `made`."""
        return self.shards.all()


Work = Callable[[Cluster | None, Path], Summary]
"""Writes a task's files into the folder given, and returns its summary; with a cluster, from what that has made."""


def once(
    store: RunStore,
    settings: Settings,
    task: str,
    work: Work,
    *,
    reads: Iterable[str],
    hangs_on: Mapping[str, Any],
    parts_hang_on: Mapping[str, Any] | None = None,
) -> Summary:
    """As `RunStore.once`, where `engine` says; a cluster's parts are removed when the work is committed.

    Args:
        hangs_on: what else than the files that it reads the result hangs on, as JSON can hold it.
        parts_hang_on: what else a cluster's parts hang on, where that is more.
    """
    reads = list(reads)
    cluster = _cluster(store, settings, task, reads, {**hangs_on, **(parts_hang_on or {})})
    summary = store.once(task, partial(work, cluster), reads=reads, settings=hangs_on)
    if cluster:
        cluster.shards.remove_all()
    return summary


def _cluster(
    store: RunStore, settings: Settings, task: str, reads: list[str], hangs_on: Mapping[str, Any]
) -> Cluster | None:
    """None: the task's own process does the work."""
    if settings.engine == "local":
        return None
    # Of the files, too: where a user was forgotten, they are others, and digests stay.
    files = {name: marker.files for name in reads if (marker := store.marker(name))}
    return Cluster(
        Shards(store, task, store.fingerprint(task, reads, {**hangs_on, "files": files})), settings
    )
