"""Breaks a step of a night, does it again, and says what is not as it should be."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fault_state
from fault_figures import Figures, some
from fault_harness import Outcome, Point
from fault_night import Night


def numbers(points: tuple[Point, ...]) -> list[int]:
    """The points to break a step at: of many changes to one file in a row, the first and the last."""
    found: list[int] = []
    for _, group in itertools.groupby(enumerate(points), key=lambda each: (each[1].name, each[1].path)):
        row = [number for number, _ in group]
        found += sorted({row[0], row[-1]})
    return [*some(found)]


def killed(night: Night, step: str, number: int, figures: Figures, kind: str = "") -> list[str]:
    """Kill a step at a point, do it again: what is wrong then.

    Args:
        kind: of the table, for the figures.
    """
    night.restore(step)
    before = night.served()
    broken = night.step(step, kill_at=number)
    if not broken.killed:
        return []  # it has come by fewer points this time
    figures.tried[f"{step}{kind}"] += 1
    wrong = list(not_whole(night, before, night.after[step]["served"]))
    figures.wrong_tables += len(wrong)
    wrong += done_again(night, step)
    figures.survived += not wrong
    return [f"killed at {number}, {at(broken)}: {problem}" for problem in wrong]


def at(outcome: Outcome) -> str:
    """The last point that a process came by."""
    point = outcome.points[-1]
    return f"{point.name} {Path(point.path).name}"


def not_whole(night: Night, old: list[Any], new: list[Any]) -> Iterator[str]:
    """What is served and is neither what was published before nor what comes after."""
    for table, *allowed in zip(night.tables, old, new, strict=True):
        try:
            found = fault_state.served(table)
        except Exception as error:
            yield f"{table}: can't be read: {error!r}"
        else:
            if found not in allowed:
                yield f"{table}: holds other rows than those of either night"


def done_again(night: Night, step: str) -> Iterator[str]:
    """Do a step again: what differs then from an unbroken one."""
    again = night.step(step, watch=None)
    if again.error or again.status != 0:
        yield f"again: {again.status} {again.error or again.log[-2000:]}"
    else:
        yield from differences(night.state(last=True), night.after[step])


def differences(found: fault_state.State, expected: fault_state.State) -> Iterator[str]:
    """What differs from what is expected."""
    for run_id in sorted(found["artifacts"].keys() | expected["artifacts"].keys()):
        theirs, ours = (each["artifacts"].get(run_id, {}) for each in (found, expected))
        for name in sorted(theirs.keys() | ours.keys()):
            if theirs.get(name) != ours.get(name):
                yield f"{run_id}/{name}: {_differing(theirs.get(name), ours.get(name))}"
    if found["served"] != expected["served"]:
        yield "other rows are served"
    if more := found["files"] - expected["files"]:
        yield f"left behind: {dict(more)}"
    if less := expected["files"] - found["files"]:
        yield f"missing: {dict(less)}"
    if found.get("elsewhere") != expected.get("elsewhere"):
        yield f"{found.get('elsewhere')} instead of {expected.get('elsewhere')}"


def listed(problems: list[str], tried: int) -> str:
    """Problems as a failed test shows them."""
    return f"{len(problems)} problems of {tried} tried:\n" + "\n".join(problem[:600] for problem in problems)


def _differing(found: Any, expected: Any) -> str:
    """Where two values part, as deep as both are mappings."""
    if isinstance(found, dict) and isinstance(expected, dict):
        names = [name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)]
        return "; ".join(
            f"{name}: {_differing(found.get(name), expected.get(name))}" for name in sorted(names)
        )
    return f"is {found!r}, not {expected!r}"
