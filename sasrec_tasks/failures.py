"""Why a run's last try failed, kept in its folder for reports: `failure.json`, until a task of the run succeeds."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal

from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.errors import GateRefused, RetryCannotHelp
from sasrec_tasks.files import replace
from sasrec_tasks.naming import masked

log = logging.getLogger(__name__)

FAILURE = "failure.json"
LONGEST = 4000
"""Characters of a reason; some errors list every case."""

UNKNOWN = "ended from outside, or killed (by the kernel if memory ran out): its log has what it said last"
"""Why a task failed that could not say so."""

MEANT = {"AirflowTaskTimeout": "it ran past its time limit; what it had finished is kept: clear it to go on"}
"""What errors mean that only name a process."""


def shortened(reason: str) -> str:
    """At most so many characters of a reason that others keep or read."""
    return reason if len(reason) <= LONGEST else f"{reason[: LONGEST - 2]} …"


def said(error: BaseException) -> str:
    """Class and text of an error, without the passwords of the addresses in it: others keep and read it."""
    name = type(error).__name__
    return shortened(f"{name}: {MEANT.get(name) or masked(str(error))}")


def ending(reason: str) -> tuple[Literal["refused", "failed"], str]:
    """How a run ended that failed for a reason, and the reason as people are told it.

    Args:
        reason: as `said` gives it; "" of a task that was ended before it could say anything.
    """
    name, _, text = reason.partition(": ")
    if name == GateRefused.__name__:
        return "refused", text
    return "failed", text if name in {each.__name__ for each in _final()} else reason or UNKNOWN


def _final(of: type[Exception] = RetryCannotHelp) -> Iterator[type[Exception]]:
    yield of
    for each in of.__subclasses__():
        yield from _final(each)


def record(store: RunStore, task: str, reason: str) -> None:
    """Keep why a task failed; a failure that is kept already stays as it is.

    If it can't be written that is a warning: the error itself goes its way.

    Args:
        reason: as `said` gives it; "" of a task that was ended before it could say anything.
    """
    error, _, text = reason.partition(": ")
    kept = {
        "task": task,
        "ending": ending(reason)[0],
        "error": error,
        "reason": text if reason else UNKNOWN,
    }
    try:
        if kept.items() <= _kept(store).items():
            return
        kept["at"] = datetime.now(UTC).isoformat(timespec="seconds")
        replace(store.fs, f"{store.root}/{FAILURE}", (json.dumps(kept, indent=2) + "\n").encode())
    except OSError as told:
        log.warning("%s: why it failed could not be written down: %s", task, told)


def _kept(store: RunStore) -> dict[str, Any]:
    """What `record` has kept; empty if there is nothing, or nothing that can be read as such."""
    try:
        found = json.loads(store.read_files([FAILURE]).get(FAILURE, b"{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def forget(store: RunStore) -> None:
    """A task has succeeded since."""
    with suppress(OSError):
        store.fs.rm_file(f"{store.root}/{FAILURE}")
