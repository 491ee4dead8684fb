"""Files of a run's finished tasks replaced by others, those of all tasks together.

What they are to be, and the markers that name them, is put into `.rewriting/` in the run's folder, `READY.json` last.
Then the old markers go, the files move to their places, and the new markers come. So a kill leaves the old files, or
tasks that have not finished until it is gone on with, but never files of before beside those of after. Digests and
fingerprints stay: for later tasks it is what it was, and a run that has ended is not run again for it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sasrec_tasks import abandoned, checksums, claims, files
from sasrec_tasks.artifacts import Marker, RunStore, Summary, describe

FOLDER = ".rewriting"
READY = "READY.json"

TASKS = ("ingest", "validate", "split", "train", "evaluate", "eligible", "gate", "refit", "export")
"""All that have a folder, in order: a later one reads those before it."""


@contextmanager
def locked(run: RunStore) -> Iterator[None]:
    """No try of any of a run's tasks commits meanwhile. What a killed rewriting has left is gone on with before.

    Raises:
        TimeoutError: one is committing all the time.
    """
    with ExitStack() as stack:
        for task in TASKS:
            stack.enter_context(claims.held(run.fs, f"{run.root}/.{task}.lock"))
        if run.fs.exists(f"{run.root}/{FOLDER}"):
            _put_in_place(run)
        yield


def rewrite(
    run: RunStore, make: Callable[[str, Path], Summary | None], *, before: Mapping[str, Marker]
) -> int:
    """Replace files of tasks, by the holder of their locks.

    Args:
        make: task, an empty folder → new files in it, under their names, and the summary that the task's marker is to
            have; None where it stays as it is.
        before: the tasks' markers.

    Returns:
        Files that were replaced, markers aside.
    """
    with _staging_folder(run) as staging:
        tasks: dict[str, Any] = {}
        number = 0
        for task, marker in before.items():
            (staging / task).mkdir()
            summary = make(task, staging / task)
            if summary is None:
                continue
            made = {file.name: describe(file) for file in sorted((staging / task).iterdir())}
            new = replace(marker, files={**marker.files, **made}, summary=summary)
            if new != marker:
                tasks[task] = {"old": asdict(marker), "new": asdict(new), "files": sorted(made)}
                number += len(made)
        if not tasks:
            return 0
        _make_ready(run, staging, tasks)
    _put_in_place(run)
    return number


@contextmanager
def _staging_folder(run: RunStore) -> Iterator[Path]:
    """On the same disk, of a local store."""
    if not run.is_local:
        with abandoned.temporary_folder("sasrec-rewriting-") as folder:
            yield folder
        return
    folder = Path(run.root) / FOLDER
    folder.mkdir()
    try:
        yield folder
    finally:
        if not (folder / READY).exists():
            shutil.rmtree(folder)


def _make_ready(run: RunStore, staging: Path, tasks: Mapping[str, Any]) -> None:
    place = f"{run.root}/{FOLDER}"
    if not run.is_local:
        for task, told in tasks.items():
            for name in told["files"]:
                run.fs.put_file(str(staging / task / name), f"{place}/{task}/{name}")
    content = json.dumps(checksums.with_checksum({"tasks": tasks})).encode()
    files.replace(run.fs, f"{place}/{READY}", content)


def _put_in_place(run: RunStore) -> None:
    """Have what is ready where it belongs, whatever of it has been done; what is not ready goes."""
    place = f"{run.root}/{FOLDER}"
    tasks = _ready(run)
    current = {task: run.marker(task) for task in tasks}
    done_anew = [
        task
        for task, told in tasks.items()
        if current[task] not in (None, Marker(**told["old"]), Marker(**told["new"]))
    ]
    if (
        done_anew
    ):  # by a try that came after a kill: what it has read may be of before, so it is to be done again
        first = min(TASKS.index(task) for task in done_anew)
        for task in reversed(TASKS[first:]):
            run.discard(task)
            tasks.pop(task, None)
    for task in reversed(tasks):
        if current[task] == Marker(**tasks[task]["old"]):
            run.forget(task)
    for task, told in tasks.items():
        for name in told["files"]:
            source, target = f"{place}/{task}/{name}", f"{run.root}/{task}/{name}"
            if run.is_local:
                with suppress(FileNotFoundError):  # it was moved before the kill
                    Path(target).parent.mkdir(exist_ok=True)
                    Path(source).replace(target)
            elif run.fs.exists(source):
                run.fs.mv(source, target)
    for task, told in tasks.items():
        if run.marker(task) is None:
            run.put_marker(Marker(**told["new"]))
    run.fs.rm(place, recursive=True)


def _ready(run: RunStore) -> dict[str, Any]:
    try:
        content = checksums.checked(run.fs.cat_file(f"{run.root}/{FOLDER}/{READY}"))
    except (FileNotFoundError, ValueError):
        return {}
    return {task: content["tasks"][task] for task in TASKS if task in content["tasks"]}
