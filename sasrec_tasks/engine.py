"""Where a heavy task computes: in its own process, or on a cluster.

On a cluster the work is done part by part, and the task puts the parts together; all that it commits, publishes and
tells is its own doing in either case.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from sasrec_tasks.artifacts import RunStore
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


@contextmanager
def chosen(
    store: RunStore, settings: Settings, task: str, *, reads: Iterable[str], hangs_on: Mapping[str, Any]
) -> Iterator[Cluster | None]:
    """What does a task's work; None: its own process. Parts are removed at the end, if nothing was raised.

    Args:
        reads: earlier tasks whose files the work reads.
        hangs_on: what else the parts hang on, as JSON can hold it.
    """
    if settings.engine == "local":
        yield None
        return
    reads = list(reads)
    # Of the files, too: where a user was forgotten, they are others, and digests stay.
    files = {name: marker.files for name in reads if (marker := store.marker(name))}
    shards = Shards(store, task, store.fingerprint(task, reads, {**hangs_on, "files": files}))
    yield Cluster(shards, settings)
    shards.remove_all()
