"""What was tried, and what came of it, for benchmarks/results/faults.json."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from filelock import FileLock

RESULTS = "FAULTS_RESULTS"
"""Environment variable: JSON file that gets the figures."""


class Figures:
    """Counts of a session of tests."""

    def __init__(self) -> None:
        self.tried: Counter[str] = Counter()
        self.cut: Counter[str] = Counter()  # connections, by where
        self.survived = 0
        self.made_good = 0  # of the connections cut: the table was whole, and another try ended as unbroken
        self.wrong_tables = 0
        self.seeds: list[int] = []
        self.longest_night = 6.0  # seconds, as far as is known

    def write(self, file: Path) -> None:
        """Put them into a file, beside what else is there: other tests have figures of their own."""
        if not self.tried and not self.cut:
            return
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
    """Put figures into a file, beside what else is there; other processes of pytest may do so at the same time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = file.with_name(f".{file.name}.lock")
    with FileLock(lock):
        found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        file.write_text(json.dumps(found | figures, indent=2) + "\n", encoding="utf-8")
    lock.unlink(missing_ok=True)
