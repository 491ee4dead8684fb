"""How much memory this process has held at once."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak() -> None:
    """Let the peak begin anew, where Linux can: several tasks may share a process."""
    with suppress(OSError):
        CLEAR.write_text("5", encoding="ascii")


def peak_mb() -> int | None:
    """The most resident memory since the last reset, in MB of 10⁶ bytes; None where Linux does not say."""
    try:
        lines = dict(line.split(":", 1) for line in STATUS.read_text(encoding="ascii").splitlines())
        return round(int(lines["VmHWM"].split()[0]) * 1024 / 1e6)
    except (OSError, KeyError, ValueError):
        return None
