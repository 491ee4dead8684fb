"""What was tried, and what came of it, for benchmarks/results/faults.json.

    python tests/helpers/fault_figures.py FOUND RESULTS

puts what the tests of a whole run have found in the place of the results, if nothing of it is missing.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

RESULTS = "FAULTS_RESULTS"
"""Environment variable: JSON file that gets the figures."""

EVERY = "FAULTS_EVERY"
"""Environment variable: of the points of a step, one in so many is tried."""

T = TypeVar("T")


def some(points: Sequence[T]) -> Sequence[T]:
    """Of all points, those that this run is to try."""
    return points[:: int(os.environ.get(EVERY, "1"))]


COUNTED = (
    "kill_points_tried",
    "survived",
    "cuts_tried",
    "cuts_survived",
    "inputs_tried",
    "as_documented",
    "secrets_planted",
)
"""Figures without which a run was no whole one."""


class Figures:
    """Counts of a session of tests."""

    def __init__(self) -> None:
        self.tried: Counter[str] = Counter()
        self.cut: Counter[str] = Counter()  # connections, by where
        self.survived = 0
        self.made_good = 0  # of the connections cut: the table was whole, and another try ended as unbroken
        self.wrong_tables = 0
        self.seeds: list[int] = []

    def write(self, file: Path) -> None:
        """Add them to a file: other tests, and other processes of pytest, have figures of their own."""
        found: dict[str, Any] = {}
        if self.tried:
            found |= {
                "kill_points_tried": self.tried.total(),
                "survived": self.survived,
                "wrong_tables": self.wrong_tables,
                "seeds": self.seeds,
                "kill_points_by_step": dict(sorted(self.tried.items())),
            }
        if self.cut:
            found |= {
                "cuts_tried": self.cut.total(),
                "cuts_survived": self.made_good,
                "cuts_by_step": dict(sorted(self.cut.items())),
            }
        put(file, found)


def put(file: Path, figures: dict[str, Any]) -> None:
    """Add figures to those in a file; other processes of pytest may do so at the same time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = file.with_name(f".{file.name}.lock")
    with FileLock(lock):
        found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        file.write_text(json.dumps(added(found, figures), indent=2) + "\n", encoding="utf-8")
    lock.unlink(missing_ok=True)


def added(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The sum of figures, number by number.

    >>> added({"tried": 1, "by_step": {"train": 1}, "seeds": [4]}, {"by_step": {"train": 2, "gate": 1}, "seeds": [5]})
    {'tried': 1, 'by_step': {'train': 3, 'gate': 1}, 'seeds': [4, 5]}
    """
    found = dict(one)
    for name, figure in other.items():
        if name not in found:
            found[name] = figure
        elif isinstance(figure, dict):
            found[name] = dict(sorted(added(found[name], figure).items()))
        else:
            found[name] += figure
    return found


def whole(found: Path, results: Path) -> None:
    """Put the figures of a whole run in the place of earlier ones.

    Raises:
        SystemExit: what is to be counted was not tried: tests were skipped, or it is no whole run.
    """
    figures = json.loads(found.read_text(encoding="utf-8")) if found.exists() else {}
    if missing := [name for name in COUNTED if not figures.get(name)]:
        raise SystemExit(f"not a whole run, {results.name} stays as it was: nothing was counted of {missing}")
    about = {"date": datetime.now(UTC).date().isoformat(), "one_point_in": int(os.environ.get(EVERY, "1"))}
    results.write_text(json.dumps({**about, **figures}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    whole(Path(sys.argv[1]), Path(sys.argv[2]))
