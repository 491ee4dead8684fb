"""Airflow's command line for many commands in one process, which imports Airflow once; each has its environment.

What is kept in memory for the life of a process, such as fsspec's file systems, is kept from one to the next.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

SERVE = """
import json, os, sys, traceback
from airflow.cli.cli_parser import get_parser

answers = os.fdopen(os.dup(1), "w", buffering=1)
parser = get_parser()
for line in sys.stdin:
    asked = json.loads(line)
    os.environ.clear()
    os.environ.update(asked["environment"])
    printed = os.open(asked["printed"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    os.close(printed)
    status = 0
    try:
        arguments = parser.parse_args(asked["arguments"])
        arguments.func(arguments)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    print(status, file=answers)
"""


class AirflowInOneProcess:
    """A process that does what `airflow` would do.

    Args:
        folder: gets what commands print.
        environment: in which Airflow is imported.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.printed = folder / "printed.log"
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE],
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "process.log").open("wb"),
            text=True,
        )

    def run(self, *arguments: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """What a command answers, all that it prints as stdout.

        Raises:
            AssertionError: the process is no more.
        """
        assert self.process.stdin
        assert self.process.stdout
        asked = {"arguments": arguments, "environment": dict(environment), "printed": str(self.printed)}
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        printed = self.printed.read_text(encoding="utf-8", errors="replace")
        assert answer, printed
        return subprocess.CompletedProcess(arguments, int(answer), printed, "")

    def __enter__(self) -> AirflowInOneProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
