"""Secrets that a test plants wherever one can enter, and a search for them in everything that was written."""

from __future__ import annotations

import base64
import gzip
import io
import secrets
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
from adbc_driver_postgresql import dbapi


@dataclass
class Secrets:
    """What was planted, by where it enters."""

    planted: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def new(self, where: str, pattern: str = "{}") -> str:
        """A secret that enters somewhere.

        Args:
            where: in words; one secret for each.
            pattern: what stands around it, `{}` for each part that is looked for.
        """
        assert where not in self.planted, where
        parts = tuple(f"planted{secrets.token_hex(10)}" for _ in range(pattern.count("{}")))
        self.planted[where] = parts
        return pattern.format(*parts)

    def within(self, content: bytes) -> set[str]:
        """Which of them stand in some bytes: as they are, in base64, or compressed."""
        contents = [content]
        with suppress(OSError, EOFError, zlib.error):
            contents.append(gzip.decompress(content))
        with suppress(zlib.error):
            contents.append(zlib.decompress(content))
        return {
            where
            for where, parts in self.planted.items()
            for part in parts
            for form in _forms(part)
            if any(form in each for each in contents)
        }


def _forms(part: str) -> Iterator[bytes]:
    """A secret's part as it is, and as base64 of a longer text holds it, wherever it begins there."""
    yield part.encode()
    for before in range(3):
        encoded = base64.b64encode(b"x" * before + part.encode()).decode()
        yield encoded[(before * 8 + 5) // 6 : -4].encode()  # what hangs on neither neighbour


Found = set[tuple[str, str]]
"""Where a secret entered, and where it was found."""


def in_folder(secrets: Secrets, folder: Path, leave_out: Iterator[Path] | tuple[Path, ...] = ()) -> Found:
    """In all files below a folder, by their names too; in the values of parquet files and SQLite databases."""
    found: Found = set()
    left_out = tuple(leave_out)
    for file in sorted(each for each in folder.rglob("*") if each.is_file() and not each.is_symlink()):
        if any(each == file or each in file.parents for each in left_out):
            continue
        name = str(file.relative_to(folder))
        contents = [name.encode()]
        with suppress(FileNotFoundError):  # of a process that still runs
            contents.append(file.read_bytes())
            if file.suffix == ".parquet":
                contents.append(_in_parquet(file))
        found |= {(where, name) for content in contents for where in secrets.within(content)}
    return found


def _in_parquet(source: Any) -> bytes:
    with suppress(Exception):  # a half-written or planted file that is no parquet
        return repr(pq.read_table(source).to_pylist()).encode()
    return b""


def in_sqlite(secrets: Secrets, file: Path) -> dict[tuple[str, str], set[str]]:
    """Table and column → the secrets in it."""
    found: dict[tuple[str, str], set[str]] = {}
    with sqlite3.connect(file, timeout=60) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            rows = database.execute(f'SELECT * FROM "{table}"')
            columns = [column[0] for column in rows.description]
            for row in rows:
                for column, value in zip(columns, row, strict=True):
                    content = value if isinstance(value, bytes) else str(value).encode()
                    if seen := secrets.within(content):
                        found.setdefault((table, column), set()).update(seen)
    return found


def in_postgres(secrets: Secrets, server: str) -> Found:
    """In all tables and views that are not the system's, their names and comments included."""
    found: Found = set()
    with dbapi.connect(server) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_schema, table_name FROM information_schema.tables"
            " WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
        )
        for schema, table in cursor.fetchall():
            cursor.execute(f'SELECT CAST(t AS text) FROM "{schema}"."{table}" AS t')
            text = "\n".join([table, *(str(row) for (row,) in cursor.fetchall())])
            found |= {(where, f"{schema}.{table}") for where in secrets.within(text.encode())}
    return found


def in_bucket(secrets: Secrets, fs: fsspec.AbstractFileSystem, bucket: str) -> Found:
    """In all objects of a bucket."""
    found: Found = set()
    for name in fs.find(bucket):
        content = fs.cat_file(name)
        contents = [name.encode(), content]
        if name.endswith(".parquet"):
            contents.append(_in_parquet(io.BytesIO(content)))
        found |= {(where, name) for each in contents for where in secrets.within(each)}
    return found
