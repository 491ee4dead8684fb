"""A run's folder: names, atomic commits, and the marker that says a task is done.

Two tries of one task can run at once. Each writes into a folder of its own beside; the first to
commit wins, and the late one finds the marker and leaves, or fails if what it finds is of other inputs or
settings than its own. A task's folder counts only when its marker, written last, is there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import socket
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from sasrec_tasks import abandoned, checksums, claims, files, filesystem, memory
from sasrec_tasks.config import Settings
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.naming import as_names, from_names
from sasrec_tasks.results import closing_line

log = logging.getLogger(__name__)

Summary = dict[str, Any]
"""What a task says about itself: a small dict that JSON can hold."""

MARKER = "_SUCCESS"
SETTINGS = "settings.json"
RUN_ID = re.compile(r"[A-Za-z0-9_~:+-][A-Za-z0-9_.~:+-]{0,249}")


@dataclass(frozen=True, kw_only=True)
class Marker:
    """What `_SUCCESS` in a task's folder says."""

    task: str
    fingerprint: str  # of inputs and settings
    digest: str  # of the files: what a later task's fingerprint is made from
    files: dict[str, dict[str, Any]]  # name → bytes, sha256
    summary: Summary
    seconds: float
    finished_at: str  # ISO 8601, UTC
    peak_rss_mb: int | None = None


class Damaged(OSError):  # noqa: N818 - it says what is the case
    """A file of a finished task that is gone, or not what the task wrote: the task has to be done again."""


class RunStore:
    """The folder of one run, `STORE/<run id>/`, on any fsspec URL."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self.run_id = self.uri.rpartition("/")[2]
        self.fs, self.root = filesystem.opened(self.uri, "store")
        self.is_local = "file" in (
            self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,)
        )
        self._checked: set[tuple[str, str]] = set()  # tasks and digests whose files were found whole

    @classmethod
    def of(cls, store: str, run_id: str) -> RunStore:
        """The folder of a run in a store.

        Raises:
            BadSettings: no store, or a run id that could lead out of it.
        """
        if not store:
            raise BadSettings("store: not set: name the folder or URL that holds the runs")
        if not RUN_ID.fullmatch(run_id) or "::" in run_id:  # fsspec chains URLs by "::"
            raise BadSettings(
                f"run id {run_id!r}: use at most 250 letters, digits and _ . ~ : + - only, "
                "no '.' at the beginning and no '::'"
            )
        return cls(f"{store if store.endswith('://') else store.rstrip('/') + '/'}{run_id}")

    @property
    def store(self) -> str:
        """What holds this run and its siblings."""
        above = self.uri.rpartition("/")[0]
        return f"{above}/" if above.endswith(":/") else above or "/"

    def sibling(self, run_id: str) -> RunStore:
        """Another run of the same store."""
        return RunStore.of(self.store, run_id)

    # Settings

    def freeze(self, settings: Settings) -> Settings:
        """Keep the run's settings; the data interval of a run that was started before stays.

        Raises:
            BadSettings: the store is a file, or the settings that it was started with before are damaged, and with
                them its data interval.
        """
        try:
            if settings.as_of is None and (before := self._kept_settings()) is not None:
                kept = from_names(before)
                start = settings.data_interval_start or kept.data_interval_start
                settings = settings.model_copy(update={"as_of": kept.as_of, "data_interval_start": start})
            if settings.as_of is None:
                settings = settings.model_copy(update={"as_of": datetime.now(UTC)})
            self._write(SETTINGS, json.dumps(checksums.with_checksum(as_names(settings)), indent=2).encode())
        except (NotADirectoryError, FileExistsError) as error:
            raise BadSettings(f"store={self.store!r}: is a file: name a folder for the runs") from error
        return settings

    def is_started(self) -> bool:
        """Whether a run of this id was started."""
        return bool(self.fs.exists(f"{self.root}/{SETTINGS}"))

    def settings(self) -> Settings:
        """The settings the run was started with.

        Raises:
            BadSettings: there is no such run, or they are damaged.
        """
        values = self._kept_settings()
        if values is None:
            raise BadSettings(f"{self.uri}: no run of this id in the store: begin with `ingest`")
        return from_names(values, where=f"{self.uri}/{SETTINGS}")

    def _kept_settings(self) -> dict[str, Any] | None:
        content = self._read(SETTINGS)
        try:
            return None if content is None else checksums.checked(content)
        except ValueError as error:
            raise BadSettings(
                f"{self.uri}/{SETTINGS}: damaged: {error}: remove it, and start the run again under its id, with its "
                f"settings and as_of (who has changed it by hand removes {checksums.KEY!r} from it)"
            ) from error

    def is_at_work(self) -> bool:
        """Whether a task of this run is at work on this machine; of others, and in a remote store, it can't be told."""
        host = f".{socket.gethostname()}."
        return self.is_local and any(
            (pid := abandoned.pid_of(path.name, f"{path.name.partition(host)[0]}.")) is not None
            and abandoned.is_alive(pid)
            for path in Path(self.root).glob(f".*{host}*")
        )

    # What tasks leave behind

    def marker(self, task: str) -> Marker | None:
        """The marker of a finished task; None while it is not finished, or if its marker is damaged."""
        content = self._read(f"{task}/{MARKER}")
        try:
            return None if content is None else as_marker(content)
        except ValueError as error:
            log.warning("%s/%s/%s: damaged: %s: `%s` is to be run again", self.uri, task, MARKER, error, task)
            return None

    def folder(self, task: str) -> Path:
        """A finished task's files as a local folder (a scratch copy of a remote one).

        Raises:
            BadSettings: the task has not finished.
            Damaged: its files are not those that it wrote.
            OSError: they can't be read now. Trying again is safe.
        """
        marker = self.marker(task)
        if marker is None:
            raise BadSettings(f"{self.uri}: `{task}` has not finished in this run: run it first")
        folder = Path(self.root) / task
        checked = (task, marker.digest) in self._checked
        if not self.is_local:
            folder = Path(self._scratch.name) / f"{task}-{marker.digest[:16]}"
            if not checked:
                folder.mkdir(parents=True, exist_ok=True)
                for name in marker.files:
                    with suppress(FileNotFoundError):
                        self.fs.get_file(f"{self.root}/{task}/{name}", str(folder / name))
        for name, expected in marker.files.items():
            file = folder / name
            whole = file.exists() and file.stat().st_size == expected["bytes"]
            if not whole or not (checked or _sha256(file) == expected["sha256"]):
                raise Damaged(f"{self.uri}/{task}/{name}: damaged or missing: run `{task}` again")
        self._checked.add((task, marker.digest))
        return folder

    def trust(self, task: str) -> None:
        """Have `folder` look at the sizes of a finished task's local files alone: another process has read them all."""
        if self.is_local and (marker := self.marker(task)):
            self._checked.add((task, marker.digest))

    def read_json(self, task: str, name: str) -> Any:
        """A JSON file of a finished task."""
        return json.loads((self.folder(task) / name).read_text(encoding="utf-8"))

    def read_files(self, names: Iterable[str]) -> dict[str, bytes]:
        """Small files by their paths in the run's folder, those that are there; fetched side by side, not checked."""

        def read(name: str) -> bytes | None:
            try:
                content: bytes = self.fs.cat_file(f"{self.root}/{name}")
            except (FileNotFoundError, NotADirectoryError):
                return None
            return content

        names = list(names)
        with ThreadPoolExecutor(max_workers=8) as pool:
            contents = pool.map(read, names)
            return {name: read for name, read in zip(names, contents, strict=True) if read is not None}

    def once(
        self,
        task: str,
        work: Callable[[Path], Summary],
        *,
        reads: Iterable[str] = (),
        settings: Mapping[str, Any],
        unchanged: Callable[[], None] = lambda: None,
    ) -> Summary:
        """Do a task's work unless it has been done with the same inputs and settings.

        Args:
            task: name of the task and of its folder.
            work: writes its files into the folder given, and returns its summary.
            reads: earlier tasks whose files it reads.
            settings: what else the result hangs on, as JSON can hold it.
            unchanged: raises OSError if what the work has read besides is not what it was.

        Returns:
            The summary of the work that was committed, by this try or by an earlier one.

        Raises:
            OSError: another try has committed meanwhile, on other inputs or settings, and its work stays; or what was
                read has changed meanwhile. Trying again is safe.
        """
        reads = list(reads)
        if self.is_local:
            abandoned.remove(Path(self.root), f".{task}.")
        inputs_unchanged = self.inputs_unchanged(reads)
        fingerprint = self.fingerprint(task, reads, settings)
        done = self.marker(task)
        if done and self._holds(done, fingerprint):
            log.info("%s: nothing to do, done at %s; %s/%s", task, done.finished_at, self.uri, task)
            return done.summary
        started = time.monotonic()
        memory.reset_peak()
        with files.naming(f"{self.uri}/{task}"), self._try_folder(task) as folder:
            summary = work(folder)
            described = {file.name: describe(file) for file in sorted(folder.iterdir()) if file.is_file()}
            marker = Marker(
                task=task,
                fingerprint=fingerprint,
                digest=_hash(sorted((name, each["sha256"]) for name, each in described.items())),
                files=described,
                summary=summary,
                seconds=round(time.monotonic() - started, 3),
                finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
                peak_rss_mb=memory.peak_mb(),
            )

            def check() -> None:
                inputs_unchanged()
                unchanged()

            return self._commit(folder, marker, replaces=done, unchanged=check)

    def inputs_unchanged(self, tasks: Iterable[str]) -> Callable[[], None]:
        """What to call before what was made of some tasks' files is kept.

        Raises (when called):
            OSError: they are not what they were, as where a user was forgotten. Trying again is safe.
        """

        def files_of(task: str) -> dict[str, Any] | None:
            marker = self.marker(task)
            return None if marker is None else marker.files

        before = {task: files_of(task) for task in tasks}

        def check() -> None:
            for task, found in before.items():
                if files_of(task) != found:
                    raise OSError(
                        f"{self.uri}/{task}: its files were replaced since they were read: try again"
                    )

        return check

    def is_done(self, task: str, fingerprint: str) -> bool:
        """Whether `once` would find nothing to do."""
        done = self.marker(task)
        return done is not None and self._holds(done, fingerprint)

    def _holds(self, marker: Marker, fingerprint: str) -> bool:
        return marker.fingerprint == fingerprint and self._is_whole(marker)

    def _is_whole(self, marker: Marker) -> bool:
        """Whether a finished task's files are there, in the sizes (locally: bytes) that it wrote."""
        try:
            if self.is_local:
                self.folder(marker.task)
                return True
            sizes = {name: self.fs.size(f"{self.root}/{marker.task}/{name}") for name in marker.files}
        except (Damaged, FileNotFoundError) as error:
            log.warning("%s: done before, but not whole any more: %s", marker.task, error)
            return False
        return all(sizes[name] == expected["bytes"] for name, expected in marker.files.items())

    def forget(self, task: str) -> None:
        """Take a task's marker away: it is to be done again."""
        if self.marker(task):
            self.fs.rm_file(f"{self.root}/{task}/{MARKER}")

    def fingerprint(self, task: str, reads: Iterable[str], settings: Mapping[str, Any]) -> str:
        """What tells a task's inputs and settings from others."""
        inputs = {}
        for name in reads:
            marker = self.marker(name)
            if marker is None:
                raise BadSettings(
                    f"{self.uri}: `{task}` needs `{name}`, which has not finished in this run: run it first"
                )
            inputs[name] = marker.digest
        return _hash([task, inputs, settings])

    def _commit(
        self, folder: Path, marker: Marker, *, replaces: Marker | None, unchanged: Callable[[], None]
    ) -> Summary:
        """Put a try's files in place, unless another try has committed since this one looked at `replaces`."""
        task, place = marker.task, f"{self.root}/{marker.task}/{MARKER}"
        with claims.held(self.fs, f"{self.root}/.{task}.lock") as check:
            winner = self.marker(task)
            if winner and self._holds(winner, marker.fingerprint):
                log.info("%s: another try was faster, this one leaves", task)
                return winner.summary
            if winner and winner != replaces:
                raise OSError(
                    f"{self.uri}/{task}: another try on other inputs or settings has finished meanwhile (at "
                    f"{winner.finished_at}): it stays, and this late one leaves"
                )
            unchanged()
            with suppress(FileNotFoundError):
                self.fs.rm_file(place)
            self._remove_others(task, marker.files)
            for name in marker.files:
                check()
                if self.is_local:
                    (folder / name).replace(Path(self.root) / task / name)
                else:  # whole objects: nothing is visible at a key before it is complete
                    self.fs.put_file(str(folder / name), f"{self.root}/{task}/{name}")
            check()
            self.put_marker(marker)
        log.info(
            "%s",
            closing_line(
                task,
                marker.summary,
                seconds=marker.seconds,
                peak_mb=marker.peak_rss_mb,
                folder=f"{self.uri}/{task}",
            ),
        )
        return marker.summary

    def put_marker(self, marker: Marker) -> None:
        """Write the marker of a task that has none, by the holder of its lock."""
        content = json.dumps(checksums.with_checksum(asdict(marker)), indent=1).encode()
        place = f"{self.root}/{marker.task}/{MARKER}"
        files.replace(self.fs, place, content, expected="" if files.is_s3(self.fs) else None)

    def discard(self, task: str) -> int:
        """Take away what a task has left, but for what its tries share, by the holder of its lock: it is to be done
        again; how many files."""
        with suppress(FileNotFoundError):
            self.fs.rm_file(f"{self.root}/{task}/{MARKER}")
        return self._remove_others(task, ())

    def _remove_others(self, task: str, kept: Collection[str]) -> int:
        """Remove the files of a task's folder that earlier work has left, whether it was finished or killed."""
        removed = 0
        for file in files.listed(self.fs, f"{self.root}/{task}"):
            above, _, name = file.path.rpartition("/")
            if above.endswith(f"/{task}") and name not in kept:
                with suppress(FileNotFoundError):
                    self.fs.rm_file(file.path)
                removed += 1
        return removed

    # What tries of one task share

    def shared_folder(self, task: str, name: str) -> tuple[Path, Callable[[], None]]:
        """A folder that all tries of a task share, such as `train/checkpoint`.

        Returns:
            Its local path, and what to call after a file in it was replaced (uploads it).
        """
        if self.is_local:
            return Path(self.root) / task / name, lambda: None
        local, remote = Path(self._scratch.name) / "shared" / task / name, f"{self.root}/{task}/{name}"
        local.mkdir(parents=True, exist_ok=True)
        if self.fs.exists(remote):
            for file in self.fs.ls(remote, detail=False):
                self.fs.get_file(file, str(local / file.rpartition("/")[2]))

        def upload() -> None:
            for file in local.iterdir():
                if not file.name.startswith("."):
                    self.fs.put_file(str(file), f"{remote}/{file.name}")

        return local, upload

    @cached_property
    def _scratch(self) -> tempfile.TemporaryDirectory[str]:
        abandoned.remove(Path(tempfile.gettempdir()), "sasrec-store-")
        return tempfile.TemporaryDirectory(prefix=abandoned.prefix_of_own("sasrec-store-"))

    @contextmanager
    def _try_folder(self, task: str) -> Iterator[Path]:
        """A folder of this try's own, on the same file system as a local store."""
        if not self.is_local:
            with abandoned.temporary_folder(f"sasrec-{task}-") as folder:
                yield folder
            return
        root = Path(self.root)
        (root / task).mkdir(parents=True, exist_ok=True)
        with abandoned.temporary_folder(f".{task}.", root) as folder:
            yield folder

    def _read(self, name: str) -> bytes | None:
        try:
            content: bytes = self.fs.cat_file(f"{self.root}/{name}")
        except FileNotFoundError:
            return None
        return content

    def _write(self, name: str, content: bytes) -> None:
        """Replace a file: readers see the old content or the new, whole."""
        files.replace(self.fs, f"{self.root}/{name}", content)


def as_marker(content: bytes) -> Marker:
    """What a task's marker says.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return Marker(**checksums.checked(content))
    except TypeError as error:
        raise ValueError(str(error)) from error


def write_json(file: Path, value: Any) -> None:
    """Write readable JSON; NaN, which JSON does not know, is refused."""
    file.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def describe(file: Path) -> dict[str, Any]:
    """Bytes and SHA-256 of a file that was written, which is on the disk then."""
    with file.open("rb") as content:
        os.fsync(content.fileno())
    return {"bytes": file.stat().st_size, "sha256": _sha256(file)}


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
