"""What starts processes that can be broken, nights to break, and the figures of what was tried."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import system_calls
from fault_figures import RESULTS, Figures
from fault_harness import Processes
from fault_night import Night


@pytest.fixture(scope="session")
def figures() -> Iterator[Figures]:
    """What was tried; written down where `RESULTS` names a file, beside what other tests have written there."""
    figures = Figures()
    yield figures
    if file := os.environ.get(RESULTS):
        figures.write(Path(file))


@pytest.fixture(scope="session")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """What starts processes that can be broken."""
    if why := system_calls.why_not():
        pytest.skip(why)
    with Processes(tmp_path_factory.mktemp("processes")) as processes:
        yield processes


@pytest.fixture(scope="session")
def others(tmp_path_factory: pytest.TempPathFactory, processes: Processes) -> Iterator[Processes]:
    """What starts a process while one of `processes` is held."""
    with Processes(tmp_path_factory.mktemp("others")) as others:
        yield others


@pytest.fixture(scope="session")
def night(
    tmp_path_factory: pytest.TempPathFactory, processes: Processes, chains: Callable[..., pa.Table]
) -> Night:
    """Nights that publish to Delta Lake and, with the same rows, to parquet files."""
    folder = tmp_path_factory.mktemp("night") / "night"
    night = Night(
        folder, processes, ["{folder}/table", "parquet+{folder}/copy"], settings={"refit.enabled": True}
    )
    night.prepare(chains(users=60, items=60))
    return night
