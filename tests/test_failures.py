"""Why a run failed, as it is kept: whole if it is short, and never a page long."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sasrec_tasks import failures
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.errors import BadData, BadSettings, GateRefused
from sasrec_tasks.failures import LONGEST, shortened
from sasrec_tasks.terminated import Terminated

PAST = "it ran past its time limit; what it had finished is kept: clear it to go on"


class AirflowTaskTimeout(BaseException):
    """As Airflow's own, which is not imported here, for it takes over all logging."""


@given(st.integers(0, 3 * LONGEST))
def test_a_reason_is_whole_or_says_that_there_was_more(length: int) -> None:
    reason = "x" * length
    found = shortened(reason)
    assert len(found) <= LONGEST
    assert found == reason if length <= LONGEST else found.endswith("x …")


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    (tmp_path / "run").mkdir()
    return RunStore.of(str(tmp_path), "run")


def kept(store: RunStore) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(store.root) / failures.FAILURE).read_text())
    return found


def test_a_run_keeps_a_reason_of_any_length_until_a_task_succeeds(store: RunStore) -> None:
    failures.record(store, "ingest", failures.said(BadData("x" * 100_000)))
    found = kept(store)
    assert (found["task"], found["ending"], found["error"]) == ("ingest", "failed", "BadData")
    assert len(found["reason"]) <= LONGEST
    assert found["reason"].endswith("x …")
    failures.forget(store)
    assert not (Path(store.root) / failures.FAILURE).exists()


def test_what_is_kept_is_of_the_last_try_whatever_was_there(store: RunStore) -> None:
    file = Path(store.root) / failures.FAILURE
    for content in ("", "[]", '{"task": "train"}'):
        file.write_text(content)
        failures.record(store, "train", "OSError: disk: full")
        assert (kept(store)["error"], kept(store)["reason"]) == ("OSError", "disk: full")
    failures.record(store, "train", "")
    assert (kept(store)["task"], kept(store)["reason"]) == ("train", failures.UNKNOWN)
    assert kept(store)["ending"] == "failed"


def test_a_failure_that_is_kept_already_stays_as_it_is(store: RunStore) -> None:
    failures.record(store, "gate", "GateRefused: worse")
    file = Path(store.root) / failures.FAILURE
    file.write_text(file.read_text().replace(kept(store)["at"], "then"))
    failures.record(store, "gate", "GateRefused: worse")
    assert kept(store)["at"] == "then"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (GateRefused("worse: a lot"), ("refused", "worse: a lot")),
        (BadData("a column"), ("failed", "a column")),
        (BadSettings("a: setting"), ("failed", "a: setting")),
        (OSError("disk full"), ("failed", "OSError: disk full")),
        (AirflowTaskTimeout("Timeout, PID: 7"), ("failed", f"AirflowTaskTimeout: {PAST}")),
        (Terminated(), ("failed", f"Terminated: {Terminated()}")),
    ],
)
def test_how_a_run_ended_is_read_off_what_was_said(error: BaseException, expected: tuple[str, str]) -> None:
    assert failures.ending(failures.said(error)) == expected


def test_a_task_that_said_nothing_was_ended_from_outside() -> None:
    assert failures.ending("") == ("failed", failures.UNKNOWN)
