"""Parts of a task's work that many processes make: whole files in the run's folder, each by its number.

A part that is there is not made again, by whichever process or try, so that work which was cut off is gone on with and
nothing of it is there twice. They are removed when the task has put its own files in place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sasrec_tasks import files
from sasrec_tasks.artifacts import MARKER, RunStore
from sasrec_tasks.errors import BadData, BadSettings

FOLDER = ".shards"
"""In a run's folder."""

FAILURE = "failure.json"

Told = dict[str, Any]
"""What was said when all parts were there, as JSON can hold it."""


@dataclass(frozen=True)
class Shards:
    """Those of one task.

    Args:
        fingerprint: of what they hang on; those of another one are others.
    """

    store: RunStore
    task: str
    fingerprint: str

    @property
    def folder(self) -> str:
        """Where they lie, as the store's file system names it."""
        return f"{self.store.root}/{FOLDER}/{self.task}-{self.fingerprint[:16]}"

    @property
    def uri(self) -> str:
        """Where they lie."""
        return f"{self.store.uri}/{FOLDER}/{self.task}-{self.fingerprint[:16]}"

    def has(self, name: int | str) -> bool:
        """Whether a part is there."""
        return bool(self.store.fs.exists(self._place(name)))

    def write(self, name: int | str, table: pa.Table) -> None:
        """Put a part there, whole; it takes the place of one that is there."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        files.replace(self.store.fs, self._place(name), sink.getvalue().to_pybytes())

    def write_bytes(self, name: str, content: bytes) -> None:
        """Put a file there, whole."""
        files.replace(self.store.fs, f"{self.folder}/{name}", content)

    def read_bytes(self, name: str) -> bytes:
        """A file."""
        content: bytes = self.store.fs.cat_file(f"{self.folder}/{name}")
        return content

    def read(self, name: int | str) -> pa.Table:
        """A part."""
        with self.store.fs.open(self._place(name), "rb") as file:
            return pq.read_table(file)

    def finish(self, parts: int, *, named: Sequence[str] = (), **told: Any) -> None:
        """Say that all are there.

        Args:
            parts: those with the numbers 0…parts − 1.
            named: further files.

        Raises:
            OSError: one is not: a user was forgotten meanwhile.
        """
        said = {"parts": parts, "named": list(named), **told}
        if gone := self._missing(said):
            raise OSError(f"{self.uri}: {len(gone)} parts were removed meanwhile: try again")
        files.replace(self.store.fs, f"{self.folder}/{MARKER}", json.dumps(said).encode())

    def finished(self) -> Told | None:
        """What was said when all were there: how many (`parts`), and what else was told; None while some are not, or
        not any more."""
        with suppress(FileNotFoundError):
            told: Told = json.loads(self.store.fs.cat_file(f"{self.folder}/{MARKER}"))
            return None if self._missing(told) else told
        return None

    def _missing(self, told: Told) -> list[str]:
        fs, there = self.store.fs, set[str]()
        with suppress(FileNotFoundError):
            fs.invalidate_cache()
            there = {place.rpartition("/")[2] for place in fs.ls(self.folder, detail=False)}
        wanted = [*map(_file_name, range(told["parts"])), *told["named"]]
        return [name for name in wanted if name not in there]

    def fail(self, error: Exception) -> None:
        """Leave word of why they can't be made."""
        told = {"error": type(error).__name__, "message": str(error)}
        files.replace(self.store.fs, f"{self.folder}/{FAILURE}", json.dumps(told).encode())

    def forget_failure(self) -> None:
        """Take that word away, before they are tried again."""
        with suppress(FileNotFoundError):
            self.store.fs.rm_file(f"{self.folder}/{FAILURE}")

    def failure(self) -> Exception | None:
        """Why they can't be made, as the task itself would have raised it."""
        try:
            told = json.loads(self.store.fs.cat_file(f"{self.folder}/{FAILURE}"))
        except FileNotFoundError:
            return None
        kind = {each.__name__: each for each in (BadData, BadSettings)}.get(told["error"])
        return kind(told["message"]) if kind else OSError(f"{told['error']}: {told['message']}")

    def all(self) -> Iterator[pa.Table]:
        """All parts in order.

        Raises:
            OSError: not all are there.
        """
        told = self.finished()
        if told is None:
            raise OSError(f"{self.uri}: the cluster has not finished `{self.task}`: try again")
        for number in range(told["parts"]):
            yield self.read(number)

    def remove_all(self) -> None:
        """Take all parts of the task away, those of other inputs and settings too."""
        fs, above = self.store.fs, f"{self.store.root}/{FOLDER}"
        with suppress(FileNotFoundError):
            fs.invalidate_cache()
            for place in fs.ls(above, detail=False):
                if place.rstrip("/").rpartition("/")[2].startswith(f"{self.task}-"):
                    with suppress(FileNotFoundError):  # first: what is half removed is not finished
                        fs.rm_file(f"{place.rstrip('/')}/{MARKER}")
                    fs.rm(place, recursive=True)
            fs.invalidate_cache()
            if all(
                place.rstrip("/") == above for place in fs.ls(above, detail=False)
            ):  # a bucket has a mark of it
                fs.rm(above, recursive=True)

    def _place(self, name: int | str) -> str:
        return f"{self.folder}/{_file_name(name)}"


def _file_name(name: int | str) -> str:
    return f"{name:06d}.parquet" if isinstance(name, int) else f"{name}.parquet"
