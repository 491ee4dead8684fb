"""What a case of hostile input is: how the input is made, and what it gets."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hostile.data import table
from sasrec_tasks.errors import BadData, BadSettings, RetryCannotHelp

SECRET = "hunter2-not-to-be-seen"
"""Stands wherever a case plants a password: it may turn up in no file, message or log line."""


class Place:
    """A folder of a case's own: its source, and the store and table that stand there already."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source, self.store, self.table = (
            str(folder / name) for name in ("source.parquet", "runs", "table")
        )

    def write(self, events: pa.Table, name: str = "source.parquet", **how: Any) -> str:
        """A table as parquet below the folder; its path."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(events, file, **how)
        return str(file)

    def write_bytes(self, content: bytes, name: str = "source.parquet") -> str:
        """Any bytes as a file below the folder; its path."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return str(file)


@dataclass(frozen=True)
class Found:
    """What a case left that was published."""

    rows: pa.Table  # of the table
    popular: pa.Table
    plain: pa.Table  # rows of the run on the plain data with the same settings
    summaries: Mapping[str, Mapping[str, Any]]
    rejected: list[dict[str, Any]]

    @property
    def users(self) -> set[str]:
        """Who has rows."""
        return set(self.rows["USER_ID"].to_pylist())

    @property
    def items(self) -> set[str]:
        """What is among the popular items, which are all items here."""
        return set(self.popular["ITEM_ID"].to_pylist())


def same_as_plain(found: Found) -> None:
    """The rows are those that the plain data get."""
    left_out = ["RUN_ID", "AS_OF"]
    assert found.rows.drop_columns(left_out).equals(found.plain.drop_columns(left_out))


@dataclass(frozen=True)
class Served:
    """It is published."""

    as_what: str = "as the same data without it"  # for people
    holds: Callable[[Found], None] = same_as_plain
    rejected: int = 0  # rows that are set aside

    def told(self) -> str:
        """For the table in the documents."""
        aside = f"; {self.rejected} row set aside" if self.rejected == 1 else ""
        aside = f"; {self.rejected} rows set aside" if self.rejected > 1 else aside
        return f"published, {self.as_what}{aside}"


@dataclass(frozen=True)
class Refused:
    """It is an error of the project's own, before anything is replaced.

    ``sentence`` is what the message says: … stands for anything, FILE for the source, FOLDER for what it lies in.
    """

    error: type[RetryCannotHelp | OSError]  # OSError: is tried again
    sentence: str
    by: str  # "start", or the task

    def told(self) -> str:
        """For the table in the documents."""
        again = ", which is tried again," if self.error is OSError else ""
        return f"`{self.error.__name__}`{again} in `{self.by}`: {self.sentence}"

    def pattern(self, place: Place) -> re.Pattern[str]:
        """What the message must match."""
        escaped = re.escape(self.sentence).replace("…", ".*")
        names = {"FILE": place.source, "FOLDER": str(place.folder)}
        for name, value in names.items():
            escaped = escaped.replace(name, re.escape(value))
        return re.compile(escaped, re.DOTALL)


def bad_data(sentence: str, by: str) -> Refused:
    """`BadData` with this sentence."""
    return Refused(BadData, sentence, by)


def bad_settings(sentence: str, by: str = "start") -> Refused:
    """`BadSettings` with this sentence."""
    return Refused(BadSettings, sentence, by)


Given = Mapping[str, Any]
"""Settings, by name, beside those of every case; `run_id` is the run's."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One input and what it gets."""

    what: str  # the input, in words; unique in its kind
    make: Callable[[Place], Given | Callable[[], Given] | str | None]
    """Lays the input; settings, or the source alone. What it returns to be called may fail as the case says."""
    gets: Served | Refused
    meanwhile: Callable[[Place], object] | None = None
    """What is done once `ingest` has listed the source, and has read the first file."""
    slow: bool = False
    group: str = ""  # where the document shows many cases as one row: what they have in common
    shown: str = field(default="")  # of the group's row: what all of them get


def plain(**settings: Any) -> Callable[[Place], Given]:
    """The plain data, with settings in which FOLDER is the case's folder."""

    def make(place: Place) -> Given:
        place.write(table())
        return {
            name.replace("__", "."): value.replace("FOLDER", str(place.folder))
            if isinstance(value, str)
            else value
            for name, value in settings.items()
        }

    return make
