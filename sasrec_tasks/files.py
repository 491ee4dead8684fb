"""Files that others read while they are replaced, on any file system."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sasrec_tasks import abandoned


class Changed(OSError):  # noqa: N818 - it says what is the case
    """A file is not what it was when it was looked at: it was not replaced."""


def is_local(fs: Any) -> bool:
    """Whether paths of a file system are those of this machine."""
    return bool(getattr(fs, "local_file", False))


OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG}
"""Errors that a write meets with, and that don't say where."""


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Say of an error of the disk that names no file which place it is of."""
    try:
        yield
    except OSError as error:
        if error.errno not in OF_THE_DISK or error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), place) from error


def sync(fs: Any, path: str) -> None:
    """Have what was written to a file on a disk there, before anything names it."""
    if is_local(fs):
        with Path(path).open("rb") as file:
            os.fsync(file.fileno())


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


def remove_empty(fs: Any, folder: str, before: datetime) -> None:
    """Remove the folders in a folder that hold no file, and have not changed since a moment: kills have left them.

    On a disk; object stores have no empty folders.
    """
    if not is_local(fs) or not Path(folder).is_dir():
        return
    for place in Path(folder).iterdir():
        inside = [place, *place.rglob("*")] if place.is_dir() and not place.is_symlink() else []
        if inside and all(
            each.is_dir() and datetime.fromtimestamp(each.stat().st_mtime, UTC) < before for each in inside
        ):
            for each in reversed(inside):  # those below come after
                with suppress(OSError):  # there is something in it by now
                    each.rmdir()


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
    prefix = f".{file.name}."
    beside = file.with_name(abandoned.own(prefix))
    try:
        with naming(path):
            with beside.open("wb") as out:
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            beside.replace(file)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    abandoned.remove(file.parent, prefix, written_in_one_go=True)


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
            if _holds(fs, path, content):  # it was put, the answer was lost, and the put was sent once more
                return
            raise Changed(f"{path}: was written to by another run meanwhile: try again ({error})") from error
        raise


def _holds(fs: Any, path: str, content: bytes) -> bool:
    try:
        return bool(fs.cat_file(path) == content)
    except FileNotFoundError:
        return False
