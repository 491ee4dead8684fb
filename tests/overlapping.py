"""One of two tries of a run's tasks that are at work at the same time, in a process of its own.

    python overlapping.py RUN FOLDER NAME

In FOLDER the two wait for each other: before each commit of a task, and before each commit to a table. Prints what
each task said and what was logged, as JSON.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sasrec_tasks import pipeline
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.tables import delta

run, folder, name = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
steps: Counter[str] = Counter()
log: list[str] = []


class Kept(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        log.append(record.getMessage())


def meet(what: str) -> None:
    steps[what] += 1
    (folder / f"{what}-{steps[what]}.{name}").touch()
    until = time.monotonic() + 240
    while len(list(folder.glob(f"{what}-{steps[what]}.*"))) < 2:
        if time.monotonic() > until:
            raise TimeoutError(what)
        time.sleep(0.005)


def together(what: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def met(*arguments: Any, **named: Any) -> Any:
        meet(what)
        return call(*arguments, **named)

    return met


if __name__ == "__main__":
    logging.getLogger("sasrec_tasks").addHandler(Kept())
    logging.getLogger("sasrec_tasks").setLevel(logging.INFO)
    RunStore._commit = together("commit", RunStore._commit)  # type: ignore[method-assign]
    delta._replace = together("publish", delta._replace)
    said = {}
    for task in pipeline.tasks_of(RunStore(run).settings()):
        meet("task")
        said[task] = pipeline.run_task(task, run)
    sys.stdout.write(json.dumps({"said": said, "log": log}, default=str))
