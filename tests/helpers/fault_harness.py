"""Runs tasks in processes that are killed, held or failed at a point of the harness's choice, and says what is left.

A point is a system call that changes a file in the folders that are watched (or says something to a database): every
write, rename, lock, marker and commit of a task is one, whichever library makes it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

SERVER = Path(__file__).with_name("fault_server.py")
RUN_TASK = "sasrec_tasks.pipeline:run_task"

WRITES = ("write", "pwrite", "writev", "pwritev", "copy", "sendfile", "allocate", "truncate", "sync")
ALL = (*WRITES, "open", "rename", "link", "unlink", "rmdir", "mkdir")
DISK_FULL = {"errno": errno.ENOSPC, "fail": [*WRITES, "open", "mkdir"]}
READ_ONLY = {"errno": errno.EROFS, "fail": list(ALL)}
FORBIDDEN = {"errno": errno.EACCES, "fail": ["open", "rename", "link", "unlink", "rmdir", "mkdir"]}


@dataclass(frozen=True)
class Point:
    """A system call: its name, and the file that it changes."""

    name: str
    path: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a process ended, or that it is held."""

    status: int | None  # exit status, negative for a signal; None: it is held
    points: tuple[Point, ...]  # it came by
    value: Any = None
    error: str = ""  # class and message
    kinds: tuple[str, ...] = ()  # of error: its classes
    log: str = ""

    @property
    def killed(self) -> bool:
        """Whether it was killed, as it was asked for."""
        return self.status == -signal.SIGKILL

    @property
    def held(self) -> bool:
        """Whether it waits at its point."""
        return self.status is None


@dataclass
class Processes:
    """Starts processes, one at a time, from one that has imported PyTorch and the rest; a context.

    Args:
        folder: for logs.
    """

    folder: Path

    def __enter__(self) -> Processes:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._server = subprocess.Popen(
            [sys.executable, str(SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            },
        )
        self._answer()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.kill()
        self._server.communicate()

    def run(self, call: str, *arguments: Any, **faults: Any) -> Outcome:
        """Make a call in a process of its own.

        Args:
            call: module:function, whose arguments and value JSON can hold.
            faults: `watch` (what paths of points begin with; None: none are looked at), `kill_at`, `hold_at` (numbers
                of points, from 0), `fail_from` with `errno` and `fail` (names of calls), `kill_after` (seconds),
                `powerless` (without the rights of root), `environment`, `named` (further arguments of the call).
        """
        log = self.folder / "log"
        self._log = log
        request = {
            "call": call,
            "arguments": arguments,
            "log": str(log),
            "environment": {},
            "watch": None,
            **faults,
        }
        assert self._server.stdin
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return self._outcome()

    def go_on(self) -> Outcome:
        """Let a process that is held go on to its end."""
        assert self._server.stdin
        self._server.stdin.write("{}\n")
        self._server.stdin.flush()
        return self._outcome()

    def task(self, task: str, run: str, **faults: Any) -> Outcome:
        """Run a task of a run."""
        return self.run(RUN_TASK, task, run, **faults)

    def _outcome(self) -> Outcome:
        reply = self._answer()
        return Outcome(
            status=None if reply.get("held") else reply["status"],
            points=tuple(Point(*point) for point in reply["points"]),
            value=reply.get("value"),
            error=reply.get("error", ""),
            kinds=tuple(reply.get("kinds", ())),
            log=self._log.read_text(errors="replace"),
        )

    def _answer(self) -> dict[str, Any]:
        assert self._server.stdout
        line = self._server.stdout.readline()
        if not line:
            raise RuntimeError(f"the server of processes has ended: {self._server.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@dataclass
class Saved:
    """A folder's content, to be put back as often as one likes: same names, same times."""

    folder: Path

    def __post_init__(self) -> None:
        self.copy = Path(tempfile.mkdtemp(prefix="saved-", dir=self.folder.parent)) / "copy"
        shutil.copytree(self.folder, self.copy, symlinks=True)

    def restore(self) -> None:
        """Make the folder what it was."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.copy, self.folder, symlinks=True)

    def forget(self) -> None:
        """Keep it no longer."""
        shutil.rmtree(self.copy.parent)
