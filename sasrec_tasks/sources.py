"""Which parquet files a source is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import fsspec

from sasrec_tasks.errors import BadData, BadSettings

SUFFIXES = (".parquet", ".parq", ".pq")


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One parquet file of the source."""

    path: str
    bytes: int
    version: str  # changes when the file does: ETag or time of change


def list_files(source: str) -> tuple[Any, list[SourceFile]]:
    """The parquet files of a source, by name.

    Args:
        source: a file, a folder (sub-folders, hive partitions for instance, included), a glob, or
            an fsspec URL of one of these.

    Raises:
        BadData: no such place, or no parquet file in it.
    """
    if not source:
        raise BadSettings(
            "source: not set: name a parquet file, a folder, a glob or an fsspec URL (--source, or SASREC_SOURCE)"
        )
    try:
        fs, path = fsspec.core.url_to_fs(source)
    except (ImportError, ValueError) as error:
        raise BadSettings(f"source={source!r}: {error}") from error
    if any(character in path for character in "*?[") and not fs.exists(path):
        found = {name: info for name, info in fs.glob(path, detail=True).items() if info["type"] == "file"}
    elif fs.isdir(path):
        if fs.exists(f"{path.rstrip('/')}/_delta_log"):
            raise BadData(
                f"{source}: is a Delta table, whose folder holds replaced rows too: export it as plain parquet"
            )
        found = {
            name: info
            for name, info in fs.find(path, detail=True).items()
            if name.endswith(SUFFIXES) and not _is_hidden(name[len(path) :])
        }
    elif fs.exists(path):
        found = {path: fs.info(path)}
    else:
        raise BadData(f"{source}: no such file or folder: check the setting `source`")
    if not found:
        raise BadData(f"{source}: no parquet file ({', '.join(SUFFIXES)}) in it: check the setting `source`")
    return fs, [
        SourceFile(path=name, bytes=int(info["size"] or 0), version=_version(info))
        for name, info in sorted(found.items())
    ]


def _is_hidden(path: str) -> bool:
    return any(part.startswith((".", "_")) for part in path.split("/"))


def _version(info: dict[str, Any]) -> str:
    return str(info.get("ETag") or info.get("mtime") or info.get("LastModified") or "")
