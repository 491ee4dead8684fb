"""Why a run failed, as it is kept: whole if it is short, and never a page long."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sasrec_tasks import failures
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.errors import BadData, BadSettings, GateRefused
from sasrec_tasks.failures import LONGEST, shortened


@given(st.integers(0, 3 * LONGEST))
def test_a_reason_is_whole_or_says_that_there_was_more(length: int) -> None:
    reason = "x" * length
    found = shortened(reason)
    assert len(found) <= LONGEST
    assert found == reason if length <= LONGEST else found.endswith("x …")


def test_a_run_keeps_a_reason_of_any_length_until_a_task_succeeds(tmp_path: Path) -> None:
    store = RunStore.of(str(tmp_path), "run")
    file = Path(store.root) / failures.FAILURE
    file.parent.mkdir()
    failures.record(store, "ingest", BadData("x" * 100_000))
    kept = json.loads(file.read_text())
    assert (kept["task"], kept["ending"], kept["error"]) == ("ingest", "failed", "BadData")
    assert len(kept["reason"]) == LONGEST
    failures.forget(store)
    assert not file.exists()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (GateRefused("worse: a lot"), ("refused", "worse: a lot")),
        (BadData("a column"), ("failed", "a column")),
        (BadSettings("a: setting"), ("failed", "a: setting")),
        (OSError("disk full"), ("failed", "OSError: disk full")),
        (SystemExit(143), ("failed", "SystemExit: 143")),
    ],
)
def test_how_a_run_ended_is_read_off_what_was_said(error: BaseException, expected: tuple[str, str]) -> None:
    assert failures.ending(failures.said(error)) == expected


def test_a_task_that_said_nothing_was_ended_from_outside() -> None:
    assert failures.ending("") == ("failed", failures.UNKNOWN)
