"""Two at once: one is held at a point while the other does its work whole. One wins, the other says why; readers never
meet half of anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import fault_state
import pytest
from fault_checks import at, differences, listed
from fault_harness import Outcome, Processes
from fault_night import PRUNE, ROLLBACK, START, Kept, Night

from sasrec_tasks.tables import open_tables

PATIENCE = 3.0
"""Seconds that the other one is waited for, before the one that is held, and may hold a lock, goes on."""
AGAIN = ("try again", "another try", "nothing was removed", "has committed meanwhile")


@dataclass
class Pair:
    """A night, and what starts processes beside its own."""

    night: Night
    others: Processes

    def held_at(
        self, number: int, held: Callable[..., Outcome], other: Callable[..., Outcome]
    ) -> tuple[Outcome, Outcome]:
        """Hold one at a point of its own, do the other, and let the first go on; what came of the two."""
        first = held(hold_at=number)
        if not first.held:
            return first, other(watch=None, processes=self.others)
        with ThreadPoolExecutor(1) as pool:
            second = pool.submit(other, watch=None, processes=self.others)
            with suppress(TimeoutError):  # it waits for a lock that the first holds
                second.result(PATIENCE)
            first = self.night.processes.go_on()
            return first, second.result(120)


@pytest.fixture(scope="session")
def pair(night: Night, others: Processes) -> Pair:
    return Pair(night, others)


def changes(night: Night, step: str, *words: str) -> list[int]:
    """Points of a step that change something of a table, or what has one of some words in its path; every second."""
    points = night.points[step]
    kinds = ("rename", "link", "unlink", "open")
    return [
        number
        for number, point in enumerate(points)
        if point.name in kinds and any(word in point.path for word in words or ("/table", "/copy"))
    ][::2]


def told(outcome: Outcome) -> list[str]:
    """What is wrong with how a process ended: an error must be one that trying again mends, and say so."""
    if outcome.status != 0:
        return [f"ended with {outcome.status}: {outcome.log[-2000:]}"]
    if outcome.error and not ("OSError" in outcome.kinds and any(word in outcome.error for word in AGAIN)):
        return [outcome.error]
    return []


@pytest.mark.faults
@pytest.mark.parametrize("step", ["ingest", "split", "train", "gate", "export"])
def test_two_tries_of_one_task_end_as_one(pair: Pair, step: str) -> None:
    night, problems = pair.night, []
    points = night.points[step]
    for number in range(1, len(points), max(1, len(points) // 6)):
        night.restore(step)
        outcomes = pair.held_at(
            number, lambda **how: night.step(step, **how), lambda **how: night.step(step, **how)
        )
        wrong = [problem for outcome in outcomes for problem in told(outcome)]
        if all(outcome.error for outcome in outcomes):
            wrong.append("none of the two ended well")
        wrong += differences(*(without_runs(each) for each in (night.state(last=True), night.after[step])))
        problems += [
            f"held at {number}, {points[number].name} {points[number].path}: {each}" for each in wrong
        ]
    assert not problems, listed(problems, 6)


def without_runs(state: fault_state.State) -> fault_state.State:
    """Without the files of the table of runs: the same row may be written there twice."""
    files = {name: many for name, many in state["files"].items() if not name.startswith("table_runs/")}
    return {**state, "files": Counter(files)}


@pytest.fixture(scope="session")
def rival(night: Night) -> list[Kept]:
    """Before `export` of tonight, and of another run of the same logical date."""
    night.restore("export")
    for step in (START, *night.tasks[:-1]):
        night.well(step, "rival", watch=None)
    return night.keep()


@pytest.mark.faults
def test_of_two_runs_of_one_logical_date_both_are_published_whole(pair: Pair, rival: list[Kept]) -> None:
    night, problems = pair.night, []
    chosen = changes(night, "export")
    for number in chosen:
        for kept in rival:
            kept.restore()
        outcomes = pair.held_at(
            number,
            lambda **how: night.step("export", **how),
            lambda **how: night.step("export", "rival", **how),
        )
        wrong = [problem for outcome in outcomes for problem in told(outcome)]
        for run_id, outcome in zip(("tonight", "rival"), outcomes, strict=True):
            if outcome.error:
                night.well("export", run_id, watch=None)
        wrong += whole(night, {"tonight", "rival"})
        problems += [f"held at {number}: {each}" for each in wrong]
    assert not problems, listed(problems, len(chosen))


@pytest.mark.faults
@pytest.mark.parametrize("held", ["export", ROLLBACK])
def test_a_publish_during_a_rollback(pair: Pair, held: str, rival: list[Kept]) -> None:
    """Tonight is published; it is rolled back while the rival is published, or the other way round."""
    night, problems = pair.night, []
    for kept in rival:
        kept.restore()
    night.well("export", watch=None)
    start = night.keep()

    def publish(**how: Any) -> Outcome:
        return night.step("export", "rival", **how)

    def roll_back(**how: Any) -> Outcome:
        return night.step(ROLLBACK, **how)

    chosen = changes(night, held)
    for number in chosen:
        for kept in start:
            kept.restore()
        first, second = (publish, roll_back) if held == "export" else (roll_back, publish)
        outcomes = pair.held_at(number, first, second)
        wrong = [problem for outcome in outcomes for problem in told(outcome)]
        for call, outcome in zip((first, second), outcomes, strict=True):
            if outcome.error and (again := call(watch=None)).error:
                wrong.append(f"again: {again.error}")
        wrong += whole(night, {"rival", "yesterday"})
        problems += [f"held at {number}: {each}" for each in wrong]
    assert not problems, listed(problems, len(chosen))


@pytest.mark.faults
def test_readers_are_fine_while_old_versions_are_pruned(night: Night) -> None:
    """At every point of `prune`, the newest version is read whole, and all that is listed as kept."""
    problems = []
    chosen = changes(night, PRUNE, "/table", "/copy")
    for number in chosen:
        night.restore(PRUNE)
        served = night.served()
        outcome = night.step(PRUNE, hold_at=number)
        if night.served() != served:
            problems.append(f"held at {number}, {at(outcome)}: other rows are served")
        for url in night.tables:
            tables = open_tables(url)
            for kept in tables.kept():
                runs = set(tables.rows(kept.version).read_all()["RUN_ID"].to_pylist())
                if runs != {kept.run_id}:
                    problems.append(f"held at {number}: version {kept.version} of {url}: rows of {runs}")
        if outcome.held:
            problems += told(night.processes.go_on())
    assert chosen
    assert not problems, listed(problems, len(chosen))


def whole(night: Night, either: set[str]) -> list[str]:
    """What is wrong with tables that should each serve one of some runs, and all of them the same."""
    found = []
    for url in night.tables:
        try:
            served = fault_state.served(url)
        except Exception as error:
            return [f"{url}: {error!r}"]
        found.append(served[0]["RUN_ID"][0].as_py() if served else None)
    if len(set(found)) != 1 or found[0] not in either:
        return [f"the tables serve {found}"]
    return []
