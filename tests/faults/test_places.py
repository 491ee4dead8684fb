"""A disk that is full, a store that is read-only, a folder that may not be written to: an error that says so, and the
table is as it was; when the place is in order, the step done again ends as unbroken."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fault_checks import at, done_again, listed, not_whole, numbers
from fault_harness import DISK_FULL, FORBIDDEN, READ_ONLY, Outcome, Processes
from fault_night import PRUNE, ROLLBACK, START, Night

SAID = {
    errno.ENOSPC: "No space left on device",
    errno.EROFS: "Read-only file system",
    errno.EACCES: "Permission denied",
}
NOBODY = 65534


def unclear(outcome: Outcome, number: int) -> Iterator[str]:
    """What an error lacks that people can act on."""
    if outcome.status != 0:
        yield f"ended with {outcome.status}: {outcome.log[-2000:]}"
    if outcome.error:
        if not {"OSError", "BadSettings"} & set(outcome.kinds):
            yield f"is of the kinds {outcome.kinds}, not OSError: {outcome.error[:300]}"
        if SAID[number] not in outcome.error:
            yield f"does not say {SAID[number]!r}: {outcome.error[:300]}"
        if "/night/" not in outcome.error:
            yield f"names no place: {outcome.error[:300]}"


@pytest.mark.faults
@pytest.mark.parametrize("fault", [DISK_FULL, READ_ONLY, FORBIDDEN], ids=["full", "read-only", "forbidden"])
@pytest.mark.parametrize("step", [START, "ingest", "split", "train", "evaluate", "export", PRUNE, ROLLBACK])
def test_a_place_that_takes_nothing_any_more_is_named(night: Night, step: str, fault: dict[str, Any]) -> None:
    """From some point on all writes fail; at every sixth point, and every third of those that publish."""
    every = numbers(night.points[step])[:: 3 if step in ("export", ROLLBACK) else 6]
    problems = []
    for number in every:
        night.restore(step)
        before = night.served()
        broken = night.step(step, fail_from=number, **fault)
        wrong = [
            *unclear(broken, fault["errno"]),
            *not_whole(night, before, night.after[step]["served"]),
            *done_again(night, step),
        ]
        problems += [f"from {number} on, {at(broken)}: {problem}" for problem in wrong]
    assert not problems, listed(problems, len(every))


@contextmanager
def mounted(place: Path, *options: str) -> Iterator[None]:
    """Something is mounted at a folder; skips where that is not permitted."""
    done = subprocess.run(["mount", *options, str(place)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def remount(place: Path, options: str) -> None:
    """What is mounted at a folder is of other options from here on."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True, capture_output=True)


@pytest.fixture
def small(tmp_path: Path, processes: Processes, chains: Callable[..., pa.Table]) -> Night:
    """A night before its first step, whose folder is the test's own."""
    night = Night(tmp_path / "night", processes, ["{folder}/table"], earlier=())
    night.prepare(chains(users=30, items=40), upto=START)
    return night


@pytest.mark.faults
def test_a_small_disk_is_full_and_then_larger(small: Night) -> None:
    with mounted(small.folder / "runs", "-t", "tmpfs", "-o", "size=64k", "tmpfs"):
        small.well(START, watch=None)
        outcomes = []
        for task in small.tasks:
            outcomes.append(small.step(task, watch=None))
            if outcomes[-1].error:
                break
        assert not list(unclear(outcomes[-1], errno.ENOSPC))
        assert outcomes[-1].error
        assert small.served() == [None]
        remount(small.folder / "runs", "size=64m")
        for task in small.tasks:
            small.well(task, watch=None)
        assert small.served() != [None]


@pytest.mark.faults
def test_a_read_only_store_is_named(small: Night) -> None:
    runs = small.folder / "runs"
    with mounted(runs, "--bind", str(runs)):
        remount(runs, "ro,bind")
        outcome = small.step("ingest", watch=None)
        assert outcome.error
        assert not list(unclear(outcome, errno.EROFS))
        assert str(runs) in outcome.error


@pytest.mark.faults
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_somebody_who_may_read_but_not_write_is_told(
    processes: Processes, chains: Callable[..., pa.Table]
) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        night = Night(folder / "night", processes, ["{folder}/table"], earlier=())
        night.prepare(chains(users=30, items=40), upto="ingest")
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        for step in (START, "validate"):
            outcome = night.step(step, watch=None, powerless=True)
            assert outcome.error
            assert not list(unclear(outcome, errno.EACCES))
            assert str(folder) in outcome.error
        night.well("validate", watch=None)
    finally:
        shutil.rmtree(folder)
