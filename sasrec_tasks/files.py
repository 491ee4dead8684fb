"""Files that others read while they are replaced, on any file system."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any


def is_local(fs: Any) -> bool:
    """Whether paths of a file system are those of this machine."""
    return bool(getattr(fs, "local_file", False))


def replace(fs: Any, path: str, content: bytes) -> None:
    """Replace a file: readers see the old content or the new, whole."""
    if not is_local(fs):
        fs.pipe_file(path, content)  # an object is not seen before it is complete
        return
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    with beside.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    beside.replace(file)
