"""A person's answer to a verdict that asks for one, kept in the run's folder.

It holds for the weights that were asked about: a run that is trained anew asks anew.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.contents import VERDICT
from sasrec_tasks.errors import BadSettings, GateRefused
from sasrec_tasks.files import replace

log = logging.getLogger(__name__)

APPROVAL = "approval.json"


def asks(store: RunStore) -> list[str]:
    """What the verdict asks a person about; empty if it asks nobody.

    Raises:
        BadSettings: `gate` has not finished.
    """
    reasons: list[str] = store.read_json("gate", VERDICT)["asks"]
    return reasons


def waits(store: RunStore) -> bool:
    """Whether the verdict asks a person who has not approved yet.

    Raises:
        BadSettings: `gate` has not finished.
    """
    verdict = store.read_json("gate", VERDICT)
    given = _given(store)
    return bool(verdict["asks"]) and not (given and _is_of(given, verdict) and given["approved"])


def answer(store: RunStore, *, approved: bool, by: str, at: datetime | None = None) -> dict[str, Any]:
    """Write down what a person has decided; a later answer takes the place of an earlier one.

    Args:
        by: who it was.
        at: when, with a time zone; now, if not given.

    Raises:
        BadSettings: the verdict asks for no answer, or `gate` has not finished.
    """
    verdict = store.read_json("gate", VERDICT)
    if not verdict["asks"]:
        raise BadSettings(f"run id {store.run_id!r}: its verdict asks for no approval")
    given = {
        "approved": approved,
        "by": by,
        "at": (at or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds"),
        "model": verdict["model"],
        "asks": verdict["asks"],
    }
    before = _given(store)
    if before and {**before, "at": given["at"]} == given:  # told a second time, by the next task
        return before
    replace(store.fs, f"{store.root}/{APPROVAL}", (json.dumps(given, indent=2) + "\n").encode())
    log.info("approval: %s by %s: %s", "given" if approved else "refused", by, "; ".join(verdict["asks"]))
    return given


def require(store: RunStore, verdict: dict[str, Any]) -> None:
    """That a person has approved what the verdict asks about, if it does.

    Raises:
        GateRefused: nobody has answered yet, or the answer was no.
    """
    if not verdict["asks"]:
        return
    given = _given(store)
    reasons = "; ".join(verdict["asks"])
    then = "refit and export" if "refit" in verdict else "export"
    if given is None or not _is_of(given, verdict):
        raise GateRefused(
            f"the table is left as it is until a person approves: {reasons}. "
            f"`sasrec-tasks approve --run-id {store.run_id}`, then {then} again"
        )
    if not given["approved"]:
        raise GateRefused(f"the table is left as it is: {given['by']} did not approve: {reasons}")


def _is_of(given: dict[str, Any], verdict: dict[str, Any]) -> bool:
    return (given["model"], given["asks"]) == (verdict["model"], verdict["asks"])


def _given(store: RunStore) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(store.fs.cat_file(f"{store.root}/{APPROVAL}"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        log.warning("approval: %s/%s: damaged, it is to be given again: %s", store.uri, APPROVAL, error)
        return None
    return found
