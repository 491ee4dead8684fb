"""Which parquet files a source is made of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from sasrec_tasks import filesystem
from sasrec_tasks.errors import BadData, BadSettings
from sasrec_tasks.sources.protocol import Part

SUFFIXES = (".parquet", ".parq", ".pq")
HIDDEN = (".", "_")  # what engines leave beside: _SUCCESS, .part-0.crc, _temporary/


@dataclass(frozen=True, kw_only=True)
class SourceFile(Part):
    """One parquet file of the source; its version is the ETag or the time of change."""

    @property
    def partition(self) -> dict[str, str | None]:
        """Columns that stand in the path, as Hive writes them: …/country=de/part-0.parquet."""
        pairs = [part.split("=", 1) for part in self.path.split("/")[:-1] if "=" in part]
        return {
            unquote(name): None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value)
            for name, value in pairs
        }


def list_files(source: str, setting: str = "source") -> tuple[Any, list[SourceFile]]:
    """The parquet files of a source, by name.

    Args:
        source: a file, a folder (sub-folders, hive partitions for instance, included), a glob, or
            an fsspec URL of one of these.
        setting: what names it, for messages.

    Raises:
        BadData: no such place, or no parquet file in it.
    """
    if not source:
        raise BadSettings(
            "source: not set: name a parquet file, a folder, a glob or an fsspec URL (--source, or SASREC_SOURCE)"
        )
    fs, path = filesystem.opened(source, setting)
    if any(character in path for character in "*?[") and not fs.exists(path):
        found = _matching(fs, path)
    elif fs.isdir(path):
        found = _in_folder(fs, path)
    elif fs.exists(path):
        found = {path: fs.info(path)}
    else:
        raise BadData(f"{source}: no such file or folder: check the setting `{setting}`")
    if not found:
        raise BadData(
            f"{source}: no parquet file ({', '.join(SUFFIXES)}) in it: check the setting `{setting}`"
        )
    return fs, [
        SourceFile(path=name, bytes=int(info["size"] or 0), version=_version(info))
        for name, info in sorted(found.items())
    ]


def _matching(fs: Any, pattern: str) -> dict[str, dict[str, Any]]:
    """Files that match, and the parquet files of folders that match; hidden ones only if asked for."""
    fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0].rpartition("/")[0]
    _refuse_delta(fs, fixed)
    hidden = tuple(mark for mark in HIDDEN if f"/{mark}" not in pattern[len(fixed) :])
    found: dict[str, dict[str, Any]] = {}
    for name, info in fs.glob(pattern, detail=True).items():
        if any(part.startswith(hidden) for part in name[len(fixed) :].split("/")):
            continue
        found |= _in_folder(fs, name) if info["type"] == "directory" else {name: info}
    return found


def _in_folder(fs: Any, folder: str) -> dict[str, dict[str, Any]]:
    _refuse_delta(fs, folder)
    found = {}
    for name, info in fs.find(folder, detail=True).items():
        parts = name[len(folder) :].split("/")
        if "_delta_log" in parts:
            _refuse_delta(fs, name.rpartition("/_delta_log/")[0])
        if name.endswith(SUFFIXES) and not any(part.startswith(HIDDEN) for part in parts):
            found[name] = info
    return found


def _refuse_delta(fs: Any, folder: str) -> None:
    if fs.exists(f"{folder.rstrip('/')}/_delta_log"):
        raise BadData(
            f"{folder}: is a Delta table, whose files hold replaced rows too: name the table alone as source"
        )


def _version(info: dict[str, Any]) -> str:
    keys = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")
    return str(next((info[key] for key in keys if info.get(key)), ""))
