"""The stack that tasks share with their scheduler, for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from stack_night import Night, night

LEARNED = {"train.epochs": 12, "train.max_len": 50, "train.hidden_units": 32}
"""What the gate lets pass by itself, so that reports look as they do."""


@pytest.fixture(scope="package")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    """The stack with the LocalExecutor, after a night."""
    with night(tmp_path_factory.mktemp("local"), conf=LEARNED) as found:
        yield found
