"""Files that others read while they are replaced, on any file system."""

from __future__ import annotations

import errno
import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


class Changed(OSError):  # noqa: N818 - it says what is the case
    """A file is not what it was when it was looked at: it was not replaced."""


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


def is_s3(fs: Any) -> bool:
    """Whether a file system is S3, or speaks its protocol."""
    return "s3" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,))


def tag(fs: Any, path: str) -> str | None:
    """What tells one content of a file on S3 from another: its ETag, "" where there is no file.

    Returns:
        None on file systems that know no puts on a condition.
    """
    if not is_s3(fs):
        return None
    try:
        return str(fs.info(path, refresh=True)["ETag"])
    except FileNotFoundError:
        return ""


def replace(fs: Any, path: str, content: bytes, *, expected: str | None = None) -> None:
    """Replace a file: readers see the old content or the new, whole.

    Args:
        expected: the `tag` that the old content had when it was looked at; None takes any.

    Raises:
        Changed: the content is not the expected one any more, and stays.
        OSError: the place can't be written to.
    """
    if not is_local(fs):
        _put(fs, path, content, expected)  # an object is not seen before it is complete
        return
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    with beside.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    beside.replace(file)


def _put(fs: Any, path: str, content: bytes, expected: str | None) -> None:
    if expected is None:
        fs.pipe_file(path, content)
        return
    try:
        fs.pipe_file(path, content, **({"IfMatch": expected} if expected else {"IfNoneMatch": "*"}))
    except OSError as error:
        # s3fs's words for 412 with and without a file, for a file that was removed, and for 409
        if isinstance(error, FileExistsError | FileNotFoundError) or error.errno in (
            errno.EINVAL,
            errno.EBUSY,
        ):
            raise Changed(f"{path}: was written to by another run meanwhile: try again ({error})") from error
        raise
