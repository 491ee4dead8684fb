"""The table that stands where each case's input comes in, and the count of what held."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fault_figures import RESULTS, put
from hostile.trial import Standing
from hostile.trial import standing as publish_standing


@dataclass
class Tally:
    """Cases that were tried, and those that got what the document says."""

    tried: int = 0
    held: int = 0


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Standing:
    """A published table of earlier data; cases take a copy."""
    return publish_standing(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="session")
def tally() -> Iterator[Tally]:
    """Written beside the other figures in the file that FAULTS_RESULTS names (make test-faults), if any."""
    counted = Tally()
    yield counted
    if results := os.environ.get(RESULTS):
        put(Path(results), {"inputs_tried": counted.tried, "as_documented": counted.held})
