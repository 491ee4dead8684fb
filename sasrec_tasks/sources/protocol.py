"""What `ingest` asks of a place that interactions are read from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import pyarrow as pa

CutBy = Literal["event time", "partition date", "delta version"]
"""How a source tells what had arrived by a moment: by itself, or not at all (then events are taken by their time)."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A file, or what else is read in one go."""

    path: str
    bytes: int
    version: str  # changes when the content does


class Source(Protocol):
    """Interactions as they were at `as_of`, as far as the source knows."""

    parts: list[Part]
    cut_by: CutBy
    about: dict[str, Any]
    """What else the manifest is to tell, as JSON can hold it."""

    def schema(self, part: Part) -> pa.Schema:
        """Names and types of a part's columns.

        Raises:
            BadData: it can't be read.
        """
        ...

    def batches(self, part: Part, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows of a part in order, with these columns."""
        ...
