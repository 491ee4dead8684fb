"""What was done to a cluster, and how the task ended, for benchmarks/results/scale.json."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

RESULTS = "SCALE_RESULTS"
"""Environment variable: JSON file that gets the figures."""

LIMIT = 300.0
"""Seconds after which a task counts as hanging."""

Ended = Literal["equal", "told"]
"""With what it would have left otherwise, or with an error that says what is the matter."""


class Hangs(AssertionError):  # noqa: N818 - it says what is the case
    """A task has not ended in time."""


class Faults:
    """Counts of a session of tests."""

    def __init__(self) -> None:
        self._found: list[dict[str, Any]] = []

    @contextmanager
    def tried(self, fault: str, task: str, ended: Ended = "equal") -> Iterator[None]:
        """A fault, and in the block that it ended as it should; what the block raises is neither.

        Args:
            ended: how it should end.
        """
        started, how = time.monotonic(), "otherwise"
        try:
            yield
            how = ended
        except Hangs:
            how = "hangs"
            raise
        finally:
            seconds = round(time.monotonic() - started, 1)
            self._found.append({"fault": fault, "task": task, "ended": how, "seconds": seconds})

    def write(self, file: Path) -> None:
        """Leave what was found."""
        ends = [each["ended"] for each in self._found]
        report = {
            "date": datetime.now(UTC).date().isoformat(),
            "cores": os.cpu_count(),
            "faults_tried": len(ends),
            "ended_equal": ends.count("equal"),
            "ended_told": ends.count("told"),
            "hangs": ends.count("hangs"),
            "faults": self._found,
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
