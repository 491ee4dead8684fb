"""Each input of the tables in docs/input.md gets what they say, and what was published stays whole."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hostile.all_cases import KINDS
from hostile.case import SECRET, Case
from hostile.trial import Standing, place_beside, try_case

CASES = [
    pytest.param(case, id=f"{kind}: {case.what}", marks=[pytest.mark.faults] if case.slow else [])
    for kind, cases in KINDS.items()
    for case in cases
]


@pytest.mark.parametrize("case", CASES)
def test_it_gets_what_the_document_says(
    case: Case, standing: Standing, tmp_path: Path, caplog: pytest.LogCaptureFixture, tally: Any
) -> None:
    tally.tried += 1
    whole = case.slow or "FAULTS_RESULTS" in os.environ  # (make test-faults)
    try_case(case, place_beside(standing, tmp_path), standing, whole=whole)
    assert SECRET not in caplog.text
    tally.held += 1


def test_no_input_is_there_twice() -> None:
    times = Counter((kind, case.what) for kind, cases in KINDS.items() for case in cases)
    assert [case for case, number in times.items() if number > 1] == []
    assert len(times) >= 150
