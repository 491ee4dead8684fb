"""A script in a process of its own, and what it leaves."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sasrec_tasks import memory

Result = dict[str, Any]


def run(python: str, *script: str, **task: Any) -> Result:
    """Call a script with a file that holds ``task``, and read the JSON that it leaves at ``task["result"]``.

    Raises:
        RuntimeError: the script failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, result = Path(folder) / "task.json", Path(folder) / "result.json"
        file.write_text(json.dumps({**task, "result": str(result)}), encoding="utf-8")
        status = subprocess.run([python, *script, str(file)], check=False, env=environment(python)).returncode
        if status:
            raise RuntimeError(f"{' '.join(script)} failed with exit status {status}")
        found: Result = json.loads(result.read_text(encoding="utf-8"))
    return found


def environment(python: str) -> dict[str, str]:
    """This process's variables; without that of OpenMP which this project has set, where the Python is another's."""
    ours = {"GOMP_SPINCOUNT"} if python != sys.executable else set()
    return {name: value for name, value in os.environ.items() if name not in ours}


def call(command: list[str], environment: dict[str, str]) -> float:
    """Seconds of any command, its output kept to itself.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    started = time.perf_counter()
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stdout[-2000:]}")
    return time.perf_counter() - started


def peak_rss_mb() -> int:
    """The most memory that this process has held at once, in MB of 10⁶ bytes.

    Where Linux says so, by the mark of this program: `getrusage` counts what the process held before, when
    it was still a copy of the one that started it.
    """
    if (peak := memory.process_peak_mb()) is not None:
        return peak
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)
