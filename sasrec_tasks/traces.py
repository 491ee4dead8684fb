"""A search for users' ids in all files below some folders: what proves that they are forgotten.

Compressed files can't be searched byte by byte. Of parquet, all texts are decoded, with the dictionaries, the
statistics and the metadata of the footer; JSON is searched by its keys and values, JSON within its texts too. Other
files are searched as text, or, where they are none, as bytes for ids that do not stand among bytes by chance.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sasrec_tasks import files, filesystem
from sasrec_tasks.mentions import OF_ITEMS, Mentions

ROWS = 2**17
"""Of a parquet file, at once."""

BYTES = 2**24
"""Of a file that is no text, at once."""


@dataclass(frozen=True, kw_only=True)
class Searched:
    """What was searched, and where ids were found."""

    files: int = 0
    bytes: int = 0
    tables: int = 0  # of a database
    found: tuple[str, ...] = ()  # places, without the ids

    def __add__(self, other: Searched) -> Searched:
        return Searched(
            files=self.files + other.files,
            bytes=self.bytes + other.bytes,
            tables=self.tables + other.tables,
            found=self.found + other.found,
        )


def in_folders(folders: Iterable[str], mentions: Mentions) -> Searched:
    """Search all files below some folders or fsspec URLs; one that is not there has none.

    Raises:
        OSError: a file can't be read.
    """
    return reduce(Searched.__add__, (_in_folder(folder, mentions) for folder in folders), Searched())


def _in_folder(folder: str, mentions: Mentions) -> Searched:
    fs, root = filesystem.opened(folder, "store")
    number = size = 0
    found: list[str] = []
    for file in files.listed(fs, root):
        below = file.path[len(root.rstrip("/")) :].lstrip("/")
        try:
            where = list(_in_file(fs, file, below, mentions))
        except FileNotFoundError:  # gone meanwhile
            continue
        number, size = number + 1, size + file.bytes
        found += [f"{folder.rstrip('/')}/{mentions.without(below)}: {each}" for each in dict.fromkeys(where)]
    return Searched(files=number, bytes=size, found=tuple(found))


def _in_file(fs: Any, file: files.File, below: str, mentions: Mentions) -> Iterator[str]:
    if any(mentions.meant(part, "") for part in below.split("/")):
        yield "its name"
    if not file.bytes:
        return
    if below.endswith(".parquet"):
        try:
            yield from _in_parquet(fs, file.path, mentions)
            return
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            pass  # it has only the name of one
    yield from _in_other(fs, file.path, mentions)


# Parquet


def _in_parquet(fs: Any, path: str, mentions: Mentions) -> Iterator[str]:
    with fs.open(path, "rb") as opened:
        metadata = pq.ParquetFile(opened).metadata
        yield from _in_footer(metadata, mentions)
        texts = [
            column.name for column in metadata.schema.to_arrow_schema() if pa.types.is_string(column.type)
        ]
        parquet = pq.ParquetFile(opened, read_dictionary=texts, pre_buffer=False)
        for batch in parquet.iter_batches(ROWS):
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                yield from _in_column(name, column, mentions)


def _in_footer(metadata: pq.FileMetaData, mentions: Mentions) -> Iterator[str]:
    for key, value in (metadata.metadata or {}).items():
        if key != b"ARROW:schema" and mentions.named_in(value.decode(errors="replace")):
            yield f"metadata {key.decode(errors='replace')}"
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            column = metadata.row_group(group).column(number)
            if (statistics := column.statistics) is not None and statistics.has_min_max:
                name = column.path_in_schema.rpartition(".")[2]
                for value in (statistics.min, statistics.max):
                    if isinstance(value, str | int) and mentions.meant(str(value), name):
                        yield f"statistics of {column.path_in_schema}"


def _in_column(name: str, column: pa.Array, mentions: Mentions) -> Iterator[str]:
    kind = column.type
    if name in OF_ITEMS:
        return
    if pa.types.is_dictionary(kind):
        yield from _in_column(name, column.dictionary, mentions)
    elif pa.types.is_struct(kind):
        for number in range(kind.num_fields):
            yield from _in_column(kind.field(number).name, column.field(number), mentions)
    elif pa.types.is_map(kind):
        yield from _in_column(name, column.keys, mentions)
        yield from _in_column(name, column.items, mentions)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _in_column(name, column.flatten(), mentions)
    elif pa.types.is_integer(kind) and mentions.meant_in(name):
        yield from _in_column(name, column.cast(pa.string()), mentions)
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        if any(user in value for value in column.drop_null().to_pylist() for user in mentions.in_bytes):
            yield f"column {name}"
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        texts = column.cast(pa.string())
        if mentions.meant_in(name):
            theirs = pc.any(pc.is_in(texts, pa.array(sorted(mentions.users), pa.string()))).as_py()
            if theirs:
                yield f"column {name}"
        elif any(mentions.named_in(text, name) for text in pc.unique(texts).drop_null().to_pylist()):
            yield f"column {name}"


# Others


def _in_other(fs: Any, path: str, mentions: Mentions) -> Iterator[str]:
    content = _text(fs, path)
    if content is None:
        if _in_bytes(fs, path, mentions.in_bytes):
            yield "its bytes"
        return
    values = _as_json(content)
    if values is None:
        if mentions.in_text(content):
            yield "its text"
        return
    for value in values:
        for key in mentions.in_json(value):
            yield f"key {mentions.without(key)}" if key else "its text"


def _text(fs: Any, path: str) -> str | None:
    """The content of a file of text; None of others, of which the first bytes are looked at."""
    try:
        with fs.open(path, "rb") as opened:
            begin = opened.read(4096)
            if b"\0" in begin:
                return None
            return str((begin + opened.read()).decode())
    except UnicodeDecodeError:
        return None


def _as_json(content: str) -> list[Any] | None:
    """What a JSON file, or one of JSON lines, holds."""
    try:
        return [json.loads(content)]
    except ValueError:
        pass
    try:
        return [json.loads(line) for line in content.splitlines() if line.strip()]
    except ValueError:
        return None


def _in_bytes(fs: Any, path: str, wanted: list[bytes]) -> bool:
    longest = max(map(len, wanted), default=0)
    with fs.open(path, "rb") as opened:
        before = b""
        while wanted and (part := opened.read(BYTES)):
            if any(user in before + part for user in wanted):
                return True
            before = part[-longest:]
    return False
