"""Plain parquet files, a folder for each publish, and a file that names the one to read.

`CURRENT.json` holds the newest version and, by paths below its folder, the files of its rows:

    {"version": 3, "run_id": …, "as_of": …, "recommendations": "publishes/…/recommendations.parquet",
     "popular": "publishes/…/popular.parquet", "kept": […]}

It is replaced in one step. Files that it has named stay as they are until they are pruned: `kept` lists all that was
published, and what can be served again is what has its files. Of a run whose rows replaced nothing, the folder
`export/` is such a table of one version, whose files lie beside `CURRENT.json`.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from sasrec_tasks import abandoned, files, filesystem, traces
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.mentions import Mentions
from sasrec_tasks.tables.protocol import (
    POPULAR,
    RECOMMENDATIONS,
    Forgot,
    Pruned,
    Published,
    forgotten,
    is_without,
    meanwhile,
    require_replaceable,
    require_served,
    without,
)
from sasrec_tasks.tables.retention import Keep, not_kept
from sasrec_tasks.tables.versions import Version, Versions
from sasrec_tasks.traces import Searched

log = logging.getLogger(__name__)

PREFIX = "parquet+"
POINTER = "CURRENT.json"
PUBLISHES = "publishes"
FILES = {"recommendations": "recommendations.parquet", "popular": "popular.parquet"}
BESIDE = ""
"""Place of files that lie beside `CURRENT.json`."""
ROW_GROUP = 65_536
"""Rows; of a table in order of USER_ID, one group holds a user's."""


class ParquetTables:
    """`parquet+<folder or fsspec URL>`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.folder: str | None = (folder := self.url.removeprefix(PREFIX))
        self.fs, root = filesystem.opened(folder, "table")
        self.root = root.rstrip("/")

    def published(self) -> Iterator[Published]:
        """What is published, newest first; see `Tables`."""
        return self._versions().served()

    def kept(self) -> Iterator[Published]:
        """All that can be served again; see `Tables`."""
        return self._versions().kept(self._places())

    def rolled_back(self) -> set[str]:
        """The runs that were rolled back; see `Tables`."""
        return self._versions().rolled_back()

    def publish(
        self,
        rows: Iterator[pa.RecordBatch],
        popular: pa.Table,
        *,
        run_id: str,
        as_of: datetime,
        metadata: dict[str, Any],
        may_replace: Callable[[Published], None] | None = None,
    ) -> Published:
        """Publish a run once; see `Tables`."""
        before = self._versions()
        if done := before.of_run(run_id):
            log.info("export: run %s is version %d of %s already", run_id, done.version, self.url)
            return done
        require_replaceable(before.newest, as_of, may_replace)
        place = f"{PUBLISHES}/{before.next:06d}-{secrets.token_hex(4)}"
        try:
            try:
                self._write(place, rows, popular)
            except FileNotFoundError as error:
                if self.fs.exists(f"{self.root}/{place}"):
                    raise
                raise meanwhile(self.url, error) from error  # a user was forgotten
            with self._lock():
                tag, now = files.tag(self.fs, f"{self.root}/{POINTER}"), self._versions()
                if done := now.of_run(run_id):  # by another try of this task
                    return done
                version = now.after(
                    before, self.url, place=place, run_id=run_id, as_of=as_of, metadata=metadata
                )
                try:
                    self._point_at(version, now, tag)
                except OSError:
                    if done := self._versions().of_run(run_id):  # by another try, or by this one after all
                        return done
                    raise
        finally:
            self._remove_unless_kept(place)
        return version

    def rollback(self, to: Published, *, instead_of: Published | None = None) -> Published:
        """Serve an earlier version again; see `Tables`."""
        with self._lock():
            tag, versions = files.tag(self.fs, f"{self.root}/{POINTER}"), self._versions()
            if versions.newest and versions.newest.run_id == to.run_id:
                return versions.newest
            require_served(versions.at(None, self.url), instead_of, self.url)
            version = versions.back_to(to.version, self.url)
            if version.place not in self._places():
                raise not_kept(self.url, to.version)
            self._point_at(version, versions, tag)
        return version

    def prune(self, keep: Keep, *, dry_run: bool = False) -> list[Pruned]:
        """Remove the folders of old publishes; see `Tables`. `CURRENT.json` stays as it is."""
        with self._lock():
            versions = self._versions()
            if versions.newest is None:
                return []
            found = self._publishes()
            there = list(versions.kept(_whole(found)))
            runs = keep.runs(there)
            kept = {versions.newest.place} | {version.place for version in there if version.run_id in runs}
            recorded = {version.place for version in versions.recorded.values()}
            gone = {
                place: of_place
                for place, of_place in found.items()
                if place not in kept
                and (
                    place in recorded
                    or max(file.changed_at for file in of_place.values()) < keep.unfinished_since
                )
            }
            if not dry_run:
                for place, of_place in gone.items():
                    if rows := of_place.get(FILES["recommendations"]):  # without it, a version is not kept
                        self.fs.rm_file(rows.path)
                    self.fs.rm(f"{self.root}/{place}", recursive=True)
                files.remove_empty(self.fs, f"{self.root}/{PUBLISHES}", keep.unfinished_since)
        return [
            Pruned(
                url=self.url,
                kept=runs,
                removed=tuple(version for version in there if version.run_id not in runs),
                leftovers=sum(len(gone[place]) for place in gone.keys() - _whole(found)),
                bytes=sum(file.bytes for of_place in gone.values() for file in of_place.values()),
            )
        ]

    def forget(self, users: Collection[str], told: dict[str, Any] | None = None) -> list[Forgot]:
        """Publish without users, and remove the folders of all other publishes; see `Tables`."""
        before = self._versions()
        if (newest := before.newest) is None:
            return [Forgot(url=self.url, version=None)]
        if not is_without(self.for_users(list(users)), newest, told):
            place = f"{PUBLISHES}/{before.next:06d}-{secrets.token_hex(4)}"
            try:
                self._write(place, without(self.rows(newest.version), users), self.popular())
                with self._lock():
                    tag, now = files.tag(self.fs, f"{self.root}/{POINTER}"), self._versions()
                    if now.newest != newest:
                        raise meanwhile(self.url)
                    newest = now.renewed(place, forgotten(users, newest, told))
                    self._point_at(newest, now, tag)
            finally:
                self._remove_unless_kept(place)
        return [Forgot(url=self.url, version=newest.version, removed=self._remove_before(newest))]

    def _remove_before(self, newest: Version) -> tuple[int, ...]:
        """Remove all that was written before a version: a publish at work on it can't come to its end any more."""
        with self._lock():
            versions, found = self._versions(), self._publishes()
            if versions.newest != newest:
                raise meanwhile(self.url)
            there = [
                version.version for version in versions.kept(_whole(found)) if version.place != newest.place
            ]
            for place in found:
                number = place.rpartition("/")[2].partition("-")[0]
                if place != newest.place and not (number.isdigit() and int(number) > newest.version):
                    self.fs.rm(f"{self.root}/{place}", recursive=True)
            if files.is_local(self.fs):
                abandoned.remove(Path(self.root), f".{POINTER}.", written_in_one_go=True)
        return tuple(there)

    def search(self, mentions: Mentions) -> Searched:
        """Look through all files; see `Tables`."""
        assert self.folder
        return traces.in_folders([self.folder, f"{self.folder}_digest"], mentions)

    def rows(self, version: int, columns: Sequence[str] | None = None) -> pa.RecordBatchReader:
        """The rows of a version; see `Tables`."""
        return self._dataset(version, "recommendations").scanner(columns and list(columns)).to_reader()

    def for_users(self, users: Sequence[str], version: int | None = None) -> pa.Table:
        """The rows of some users; see `Tables`."""
        wanted = ds.field("USER_ID").isin(pa.array(users, pa.string()))
        rows = self._dataset(version, "recommendations").to_table(filter=wanted)
        return rows.sort_by([("USER_ID", "ascending"), ("RANK", "ascending")])

    def popular(self, version: int | None = None) -> pa.Table:
        """The popular items, best first; see `Tables`."""
        return self._dataset(version, "popular").to_table().sort_by("RANK")

    # Files

    def _versions(self) -> Versions:
        try:
            content = json.loads(self.fs.cat_file(f"{self.root}/{POINTER}"))
            return Versions(
                Version(
                    **{
                        **entry,
                        "as_of": datetime.fromisoformat(entry["as_of"]),
                        "at": datetime.fromisoformat(entry["at"]) if entry.get("at") else None,
                    }
                )
                for entry in content["kept"]
            )
        except (FileNotFoundError, NotADirectoryError):
            return Versions()
        except (ValueError, KeyError, TypeError) as error:
            raise OSError(
                f"{self.url}/{POINTER}: damaged ({error}): restore it from a copy, or name another table"
            ) from error

    def _point_at(self, version: Version, others: Versions, tag: str | None) -> None:
        entries = [*others.recorded.values(), version]
        content = {
            "version": version.version,
            "run_id": version.run_id,
            "as_of": version.as_of.isoformat(),
            **{name: f"{version.place}/{file}".lstrip("/") for name, file in FILES.items()},
            "kept": [
                {
                    **asdict(entry),
                    "as_of": entry.as_of.isoformat(),
                    "at": entry.at.isoformat() if entry.at else None,
                }
                for entry in entries
            ],
        }
        files.replace(self.fs, f"{self.root}/{POINTER}", json.dumps(content, indent=1).encode(), expected=tag)

    def _write(self, place: str, rows: Iterator[pa.RecordBatch], popular: pa.Table) -> None:
        try:
            self.fs.makedirs(f"{self.root}/{place}", exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise BadSettings(f"table={self.url!r}: is or lies in a file: name a folder") from error
        for name, schema, batches in (
            ("popular", POPULAR, popular.cast(POPULAR).to_batches()),
            ("recommendations", RECOMMENDATIONS, rows),
        ):
            with files.naming(self.url):
                with (
                    self.fs.open(self._file(place, name), "wb") as file,
                    pq.ParquetWriter(file, schema, compression="zstd") as writer,
                ):
                    for batch in batches:
                        writer.write_batch(batch, row_group_size=ROW_GROUP)
                files.sync(self.fs, self._file(place, name))

    def _remove_unless_kept(self, place: str) -> None:
        try:
            recorded = {version.place for version in self._versions().recorded.values()}
            if place not in recorded and self.fs.exists(f"{self.root}/{place}"):
                self.fs.rm(f"{self.root}/{place}", recursive=True)
        except OSError as error:  # why the publish failed matters more
            log.warning("export: %s/%s could not be removed, it is left to prune: %s", self.url, place, error)

    def _dataset(self, version: int | None, name: str) -> ds.Dataset:
        found = self._versions().at(version, self.url)
        try:
            return ds.dataset(self._file(found.place, name), filesystem=self.fs, format="parquet")
        except FileNotFoundError as error:
            raise not_kept(self.url, found.version) from error

    def _publishes(self) -> dict[str, dict[str, files.File]]:
        """Place → file name → file, of all publishes and tries of one."""
        found: dict[str, dict[str, files.File]] = {}
        for file in files.listed(self.fs, f"{self.root}/{PUBLISHES}"):
            *_, place, name = file.path.split("/")
            found.setdefault(f"{PUBLISHES}/{place}", {})[name] = file
        return found

    def _places(self) -> set[str]:
        beside = all(self.fs.exists(self._file(BESIDE, name)) for name in FILES)
        return _whole(self._publishes()) | ({BESIDE} if beside else set())

    def _file(self, place: str, name: str) -> str:
        return "/".join(filter(None, (self.root, place, FILES[name])))

    def _lock(self) -> AbstractContextManager[Any]:
        """Held while the pointer is replaced; on S3, its tag does that work, other object stores have nothing."""
        if not files.is_local(self.fs):
            return nullcontext()
        from filelock import FileLock  # readers need none

        Path(self.root).mkdir(parents=True, exist_ok=True)
        return FileLock(Path(self.root) / ".lock", timeout=600)


def write_alone(
    folder: Path,
    rows: Iterator[pa.RecordBatch],
    popular: pa.Table,
    *,
    run_id: str,
    as_of: datetime,
    metadata: dict[str, Any],
) -> None:
    """Write rows as the only version of a table into an empty folder, without folders in it; see `Tables.publish`.

    The same rows give the same bytes.
    """
    tables = ParquetTables(f"{PREFIX}{folder}")
    tables._write(BESIDE, rows, popular)
    said = {**metadata, "run_id": run_id, "as_of": as_of.isoformat()}
    version = Version(version=0, place=BESIDE, follows=None, run_id=run_id, as_of=as_of, metadata=said)
    tables._point_at(version, Versions(), None)


def _whole(publishes: dict[str, dict[str, files.File]]) -> set[str]:
    """The places that have all their files."""
    return {place for place, found in publishes.items() if found.keys() >= set(FILES.values())}
