"""The figures of planted secrets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_figures import RESULTS, put


@pytest.fixture(scope="session")
def secrets_tally() -> Iterator[dict[str, int]]:
    """`secrets_planted`, `…_found` and `…_kept_by_airflow`, written where `RESULTS` names a file (make test-faults)."""
    tally: dict[str, int] = {}
    yield tally
    if tally and (file := os.environ.get(RESULTS)):
        put(Path(file), tally)
