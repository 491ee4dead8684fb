"""How much memory this process has held at once."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


_before_resets = 0


def reset_peak() -> None:
    """Let the peak begin anew, where Linux can: several tasks may share a process."""
    global _before_resets
    _before_resets = process_peak_mb() or 0
    with suppress(OSError):
        CLEAR.write_text("5", encoding="ascii")


def process_peak_mb() -> int | None:
    """The most of the whole process, whatever was reset; as `peak_mb`."""
    peak = peak_mb()
    return None if peak is None else max(peak, _before_resets)


def peak_mb() -> int | None:
    """The most resident memory since the last reset, in MB of 10⁶ bytes; None where Linux does not say."""
    try:
        lines = dict(line.split(":", 1) for line in STATUS.read_text(encoding="ascii").splitlines())
        return round(int(lines["VmHWM"].split()[0]) * 1024 / 1e6)
    except (OSError, KeyError, ValueError):
        return None
