"""What the log and the rows of a Delta table say of its versions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from sasrec_tasks.files import File
from sasrec_tasks.tables.delta_files import dataset, folder_of, in_folder
from sasrec_tasks.tables.delta_replay import Names, files_of_versions, of_version
from sasrec_tasks.tables.protocol import Published

METADATA = "sasrec"
"""Key of a publish's metadata in the Delta log."""

Entry = Mapping[str, Any]
"""What the log says of one version."""


class Log:
    """What the log says of the versions of a table, up to the one that is open.

    Each is a file to read: the open one's is read alone if that will do. deltalake (1.6.6) lists what was committed
    since the table was opened, too, and gives the newest of it the number of the open version; here, numbers are right.
    """

    def __init__(self, table: DeltaTable) -> None:
        self.table, self.version = table, int(table.version())

    @cached_property
    def open(self) -> Entry:
        """Of the open version."""
        listed = self.table.history(limit=1)  # and all that is newer
        return _without_number(listed[-1]) if listed else {}

    @cached_property
    def entries(self) -> dict[int, Entry]:
        """Of each version that the log still has, newest first."""
        listed = [_without_number(entry) for entry in self.table.history()]
        newer = listed.index(self.open) if listed else 0
        return {self.version - place: entry for place, entry in enumerate(listed[newer:])}

    @cached_property
    def metadata(self) -> dict[str, dict[str, Any]]:
        """Run → what its latest publish or rollback said."""
        entries = reversed(self.entries.values())  # oldest first: the latest wins
        return {found["run_id"]: found for entry in entries if (found := metadata_of(entry)) is not None}

    def metadata_of_run(self, run_id: str) -> dict[str, Any]:
        """What a run's latest publish or rollback said; nothing if that is not known."""
        told = metadata_of(self.open)
        return told if told and told["run_id"] == run_id else self.metadata.get(run_id, {})

    def entry(self, version: int) -> Entry:
        """Of one version; nothing where it was cleaned up."""
        return self.open if version == self.version else self.entries.get(version, {})


def _without_number(entry: Entry) -> Entry:
    return {name: value for name, value in entry.items() if name != "version"}


def run_of(table: DeltaTable) -> tuple[str, datetime] | None:
    """RUN_ID and AS_OF of a version's rows; None if it has no rows of ours, or its files are vacuumed."""
    try:
        head = _some_rows(table, ["RUN_ID", "AS_OF"])
    except (FileNotFoundError, pa.ArrowInvalid):
        return None
    if head is None:
        return None
    moment: datetime = head["AS_OF"][0].as_py()
    return str(head["RUN_ID"][0].as_py()), moment.astimezone(UTC)


def _some_rows(table: DeltaTable, columns: list[str]) -> pa.Table | None:
    """One group of rows, whole, of one file: `head` would have begun to read other files when it is done."""
    for file in dataset(table).get_fragments():
        if file.metadata.num_rows:
            return file.subset(row_group_ids=[0]).to_table(columns=columns)
    return None


def served_run(table: DeltaTable) -> tuple[str, datetime] | None:
    """RUN_ID and AS_OF of what a version serves: of its rows, or of its commit where there are none to be read."""
    return run_of(table) or run_told(_entry(table))


def _entry(table: DeltaTable) -> Entry:
    """What the log says of the version that is open."""
    return Log(table).entry(int(table.version()))


def run_of_older(url: str, version: int) -> tuple[str, datetime] | None:
    """As `run_of`, of a version by its number."""
    try:
        return run_of(DeltaTable(url, version=version))
    except DeltaError:  # the log before it was cleaned up
        return None


def run_told(entry: Entry) -> tuple[str, datetime] | None:
    """RUN_ID and AS_OF of a version's rows, as its commit told them, which outlives them; None if it is not ours."""
    content = metadata_of(entry)
    if content is None or "as_of" not in content:
        return None
    return str(content["run_id"]), datetime.fromisoformat(content["as_of"]).astimezone(UTC)


def versions(table: DeltaTable, there: Mapping[str, File]) -> Iterator[tuple[Names, Published | None]]:
    """Of each version that the log still has, newest first: its files, and what it serves if all are there.

    Args:
        there: the data files in the table's folder.
    """
    log = Log(table)
    for version, files in reversed(files_of_versions(table).items()):
        entry = log.entries.get(version, {})
        all_there = files and files <= there.keys()
        run = (run_told(entry) or run_of_older(table.table_uri, version)) if all_there else None
        published = run and Published(
            version=version,
            run_id=run[0],
            as_of=run[1],
            metadata=log.metadata.get(run[0], {}),
            at=made_at(entry),
        )
        yield files, published


def made_at(entry: Entry) -> datetime | None:
    """When a version was committed, if its commit says."""
    return datetime.fromtimestamp(entry["timestamp"] / 1000, UTC) if "timestamp" in entry else None


def newest_of_run(table: DeltaTable, run_id: str) -> int:
    """The newest version that holds a run's rows."""
    url, log = table.table_uri, Log(table)
    for version in range(int(table.version()), -1, -1):
        told = metadata_of(log.entry(version))
        if told is not None:
            if told["run_id"] == run_id and _is_whole(url, version):
                return version
        elif (run := run_of_older(url, version)) and run[0] == run_id:
            return version
    raise OSError(f"{url}: holds no rows of run {run_id} any more: choose another version")


def _is_whole(url: str, version: int) -> bool:
    """Whether all files of a version are there, be there rows in them or none."""
    try:
        table = DeltaTable(url, version=version)
    except DeltaError:  # the log before it was cleaned up
        return False
    return of_version(table) <= in_folder(folder_of(table)).keys()


def version_of(table: DeltaTable | None, run_id: str) -> int | None:
    """The table's version, if it is that of a run: by its rows, or by its commit where it has none."""
    if table is None:
        return None
    run = run_of(table)
    found = run[0] if run else (metadata_of(_entry(table)) or {}).get("run_id")
    return int(table.version()) if found == run_id else None


def metadata_of(entry: Entry) -> dict[str, Any] | None:
    """What one of our commits said."""
    try:
        content = json.loads(entry[METADATA])
    except (KeyError, TypeError, ValueError):
        return None
    return content if isinstance(content, dict) and "run_id" in content else None


def before(version: int, history: Mapping[int, Entry]) -> int:
    """The version that came before, where a restore leads back to the one that it restored."""
    entry = history.get(version, {})
    restored = entry.get("operationParameters") or {}
    if entry.get("operation") != "RESTORE":
        return version - 1
    if "version" in restored:
        return int(restored["version"])
    return max(
        (
            earlier
            for earlier, other in history.items()
            if earlier < version and other["timestamp"] <= int(restored["datetime"])
        ),
        default=-1,
    )
