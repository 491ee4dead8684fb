"""How much memory this process has held at once, and how much it may."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")

MEMINFO = Path("/proc/meminfo")
CGROUPS, CGROUP_FILES = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
LIMITS = {"memory.max": "memory.current", "memory.limit_in_bytes": "memory.usage_in_bytes"}
"""Files of a control group, of version 2 and of version 1: its limit, and what it holds."""

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
    peak = _bytes(STATUS, "VmHWM")
    return None if peak is None else round(peak / 1e6)


@dataclass(frozen=True)
class Allowed:
    """Bytes that this process may hold in the end, by the machine or its container, and those that are free now."""

    limit: int
    free: int


def allowed() -> Allowed | None:
    """How much memory there is, by the machine and by every control group above; None where Linux does not say.

    What is free does not count what this process holds already. Files that the system only remembers count as free.
    """
    total, free = _bytes(MEMINFO, "MemTotal"), _bytes(MEMINFO, "MemAvailable")
    if total is None or free is None:
        return None
    for folder in control_groups():
        for limit_file, usage_file in LIMITS.items():
            with suppress(OSError, KeyError, ValueError):  # "max" is no number: no limit
                limit = int((folder / limit_file).read_text(encoding="ascii"))
                of = dict(line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines())
                remembered = int(of.get("total_inactive_file", of.get("inactive_file", "0")))
                held = int((folder / usage_file).read_text(encoding="ascii")) - remembered
                total, free = min(total, limit), min(free, max(limit - held, 0))
    return Allowed(limit=total, free=free)


def control_groups() -> list[Path]:
    """The folders of the control groups that limit this process's memory, whether named from the machine or within."""
    try:
        lines = CGROUPS.read_text(encoding="ascii").splitlines()
    except OSError:
        return []
    found = [CGROUP_FILES, CGROUP_FILES / "memory"]
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers in ("", "memory"):
            top = CGROUP_FILES / controllers
            place = top / path.lstrip("/")
            found += [place, *(above for above in place.parents if above.is_relative_to(top))]
    return found


def resident() -> int:
    """Bytes that this process holds now; 0 where Linux does not say."""
    return _bytes(STATUS, "VmRSS") or 0


def _bytes(file: Path, name: str) -> int | None:
    """A figure of a file of `/proc`; None where Linux does not say."""
    try:
        lines = dict(line.split(":", 1) for line in file.read_text(encoding="ascii").splitlines())
        return int(lines[name].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
