"""What is there only while a process works on it: named after the process, so that what a killed one left is removed.

A name is `<prefix><host>.<pid>.<random>`. Whether a process is still at work can be told on its own host alone.
"""

from __future__ import annotations

import glob
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LONG_AGO = 2 * 86_400.0
"""Seconds without a change after which a file that is written in one go is nobody's, on whichever host."""


def prefix_of_own(prefix: str) -> str:
    """What a name of this process begins with."""
    return f"{prefix}{socket.gethostname()}.{os.getpid()}."


def own(prefix: str) -> str:
    """A new name of this process."""
    return f"{prefix_of_own(prefix)}{secrets.token_hex(4)}"


@contextmanager
def temporary_folder(prefix: str, folder: Path | str | None = None) -> Iterator[Path]:
    """A folder of this process's own, gone afterwards; those of killed processes go before.

    What can't be removed stays, so that why the work failed is not hidden behind it.

    Args:
        folder: where to put it; None is the system's place for such folders.
    """
    place = Path(folder or tempfile.gettempdir())
    remove(place, prefix)
    made = Path(tempfile.mkdtemp(prefix=prefix_of_own(prefix), dir=place))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def remove(folder: Path, prefix: str, *, written_in_one_go: bool = False) -> None:
    """Remove what killed processes have left in a folder; what can't be removed stays.

    Args:
        written_in_one_go: files of other hosts' processes too, and of no known process, if they are old.
    """
    with suppress(OSError):
        for path in folder.glob(f"{glob.escape(prefix)}*"):
            if is_abandoned(path.name, prefix) or (written_in_one_go and _is_old_file(path)):
                shutil.rmtree(path, ignore_errors=True)
                with suppress(OSError):  # a file
                    path.unlink()


def is_abandoned(name: str, prefix: str) -> bool:
    """Whether a name is of a process of this host that is not there any more."""
    return (pid := pid_of(name, prefix)) is not None and not is_alive(pid)


def pid_of(name: str, prefix: str) -> int | None:
    """Process that a name is of, if it is of one of this host."""
    ours = f"{prefix}{socket.gethostname()}."
    pid = name.removeprefix(ours).partition(".")[0] if name.startswith(ours) else ""
    return int(pid) if pid.isdigit() else None


def is_alive(pid: int) -> bool:
    """Whether there is a process of this number on this host."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_old_file(path: Path) -> bool:
    return path.is_file() and path.stat().st_mtime < time.time() - LONG_AGO
