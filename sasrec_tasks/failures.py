"""Why a run's last try failed, kept in its folder for reports: `failure.json`, until a task of the run succeeds."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from datetime import UTC, datetime

from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.errors import GateRefused
from sasrec_tasks.files import replace

log = logging.getLogger(__name__)

FAILURE = "failure.json"
LONGEST = 4000
"""Characters of a reason; some errors list every case."""


def shortened(reason: str) -> str:
    """At most so many characters of a reason that others keep or read."""
    return reason if len(reason) <= LONGEST else f"{reason[: LONGEST - 2]} …"


def record(store: RunStore, task: str, error: Exception) -> None:
    """Keep why a task failed; if that can't be written it is a warning, the error itself goes its way."""
    kept = {
        "task": task,
        "ending": "refused" if isinstance(error, GateRefused) else "failed",
        "error": type(error).__name__,
        "reason": shortened(str(error)),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        replace(store.fs, f"{store.root}/{FAILURE}", (json.dumps(kept, indent=2) + "\n").encode())
    except OSError as told:
        log.warning("%s: why it failed could not be written down: %s", task, told)


def forget(store: RunStore) -> None:
    """A task has succeeded since."""
    with suppress(OSError):
        store.fs.rm_file(f"{store.root}/{FAILURE}")
