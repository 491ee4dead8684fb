"""Files that others read while they are replaced, on any file system."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def is_local(fs: Any) -> bool:
    """Whether paths of a file system are those of this machine."""
    return bool(getattr(fs, "local_file", False))


@dataclass(frozen=True)
class File:
    """One file of a folder, as it is listed."""

    path: str  # whole, as the file system takes it
    bytes: int
    changed_at: datetime  # UTC


def listed(fs: Any, folder: str) -> list[File]:
    """All files below a folder, hidden ones too; none if there is no such folder."""
    fs.invalidate_cache()  # object stores keep listings, and other processes write
    return [
        File(path=info["name"], bytes=int(info["size"] or 0), changed_at=_changed_at(fs, info))
        for info in fs.find(folder, detail=True).values()
    ]


def _changed_at(fs: Any, info: dict[str, Any]) -> datetime:
    found = info.get("mtime", info.get("LastModified"))  # of local disks, of S3
    if isinstance(found, int | float):
        return datetime.fromtimestamp(found, UTC)
    moment: datetime = found if isinstance(found, datetime) else fs.modified(info["name"])
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


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
