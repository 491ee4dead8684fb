"""A script in a process of its own: what it returns, and the most memory it took."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

Result = dict[str, Any]


def run(python: str, *script: str, **task: Any) -> Result:
    """Call a script with a file that holds ``task``, and read the JSON that it leaves at ``task["result"]``.

    Returns:
        what the script left, with ``peak_rss_mb``: the largest resident set of the process, in MB of 10⁶ bytes.

    Raises:
        RuntimeError: the script failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, result = Path(folder) / "task.json", Path(folder) / "result.json"
        file.write_text(json.dumps({**task, "result": str(result)}), encoding="utf-8")
        process = subprocess.Popen([python, *script, str(file)])
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{' '.join(script)} failed with exit status {process.returncode}")
        found: Result = json.loads(result.read_text(encoding="utf-8"))
    return {**found, "peak_rss_mb": round(usage.ru_maxrss * 1024 / 1e6)}


def call(command: list[str], environment: dict[str, str]) -> Result:
    """Any command, its output kept to itself: its seconds and the most memory of one of its processes.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        started = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{' '.join(command)} failed: {said.read()[-2000:]}")
    return {"seconds": [seconds], "peak_rss_mb": round(usage.ru_maxrss * 1024 / 1e6)}
