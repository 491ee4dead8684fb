"""One case tried on the real tasks, beside a table that stands there already."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hostile.case import SECRET, Case, Found, Given, Place, Refused, Served, same_as_plain
from hostile.data import SETTINGS, rows, table
from sasrec_tasks import contents, contract, progress
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.errors import RetryCannotHelp
from sasrec_tasks.naming import from_names
from sasrec_tasks.pipeline import TASKS, run_task, start
from sasrec_tasks.tables import open_tables

FOLDERS = ("table", "table_popular")
"""What must be untouched after an error."""

AFTER_SPLIT = ("train", "evaluate", "gate", "refit", "export", "as_of")
"""Settings that the rows hang on once `split` is done."""

LONGEST_MESSAGE = 4000
"""Characters of what is said: whatever came in, people must be able to read it."""


@dataclass(frozen=True)
class Standing:
    """A table of earlier data, and the rows that the plain data get."""

    folder: Path
    version: int
    rows: pa.Table
    plain: pa.Table
    split: str  # digest of what `split` left of the plain data
    settings: dict[str, Any]  # of the tasks after it


def standing(folder: Path) -> Standing:
    """Publish earlier data in a folder, and the plain data in one beside."""
    place = Place(folder / "standing")
    place.write(table(rows()[: len(rows()) - 8]))  # a user fewer
    publish(place, {"as_of": "2025-12-01"}, "standing")
    plain = Place(folder / "plain")
    plain.write(table())
    publish(plain, {}, "plain")
    tables = open_tables(place.table)
    version = next(tables.published()).version
    store = RunStore.of(plain.store, "plain")
    settings = {name: group for name, group in store.settings().model_dump().items() if name in AFTER_SPLIT}
    marker = store.marker("split")
    assert marker
    rows_there = tables.rows(version).read_all()
    return Standing(place.folder, version, rows_there, _newest(plain)[1], marker.digest, settings)


def publish(place: Place, given: Given, run_id: str) -> dict[str, Any]:
    """Run all tasks; the summary of each."""
    places = {"source": place.source, "store": place.store, "table": place.table}
    store = start(from_names({**SETTINGS, **places, **given}), run_id)
    return {task: run_task(task, store.uri) for task in TASKS}


def place_beside(before: Standing, folder: Path) -> Place:
    """A place with a copy of the table that stands."""
    for found in before.folder.glob("table*"):
        shutil.copytree(found, folder / found.name)
    return Place(folder)


def try_case(case: Case, place: Place, before: Standing, *, whole: bool = True) -> None:
    """Hold what a case gets against what it says.

    Args:
        whole: run what is said to get the rows of the plain data to its end, too. What comes after `split` hangs on its
            files and the settings alone, so that they are the same if those files are.

    Raises:
        AssertionError: it gets something else.
    """
    bytes_before = _digest(place)
    made = case.make(place)
    done: dict[str, Mapping[str, Any]] = {}
    at, run_id = "start", "hostile"
    error: RetryCannotHelp | OSError | None = None
    try:
        given = (
            {"source": made} if isinstance(made, str) else dict((made() if callable(made) else made) or {})
        )
        run_id = given.pop("run_id", run_id)
        places = {"source": place.source, "store": place.store, "table": place.table}
        place.source = str(given.get("source", place.source))
        store = start(from_names({**SETTINGS, **places, **given}), run_id)
        with progress.use(partial(_after_the_first_part, case, place)) if case.meanwhile else nullcontext():
            for at in TASKS:
                done[at] = run_task(at, store.uri)
                if at == "split" and not whole and _is_as_plain(case, store, before):
                    _require_no_secret(place)
                    return
    except (RetryCannotHelp, OSError) as raised:  # anything else is a bug, and the test's error
        error = raised
    if error is None:
        assert not isinstance(case.gets, Refused), f"is published, though it should get: {case.gets.told()}"
        _holds_served(case, place, before, done, RunStore.of(place.store, run_id))
    else:
        assert isinstance(case.gets, Refused), f"{at}: {type(error).__name__}: {error}"
        _holds_refused(case.gets, place, before, bytes_before, at, error)
    _require_no_secret(place)


def _is_as_plain(case: Case, store: RunStore, before: Standing) -> bool:
    """Whether the rows that are to come are known, since nothing that they are made from is another."""
    if not isinstance(case.gets, Served) or case.gets.holds is not same_as_plain:
        return False
    split, validated = store.marker("split"), store.marker("validate")
    assert split
    assert validated
    changed = {k: v for k, v in store.settings().model_dump().items() if k in AFTER_SPLIT} != before.settings
    return (
        not changed and split.digest == before.split and validated.summary["rejected"] == case.gets.rejected
    )


@contextmanager
def _after_the_first_part(
    case: Case, place: Place, description: str, total: int, unit: str
) -> Iterator[progress.Advance]:
    """As a bar of progress, it hears when `ingest` has read a part; what is to be done then is done once."""
    waiting = [case.meanwhile] if description == "ingest" and case.meanwhile else []

    def advance(done: int, note: str = "") -> None:
        while waiting:
            waiting.pop()(place)

    yield advance


def _holds_refused(
    gets: Refused,
    place: Place,
    before: Standing,
    bytes_before: str,
    at: str,
    error: RetryCannotHelp | OSError,
) -> None:
    said = str(error)
    assert type(error) is gets.error, f"{type(error).__name__}: {said}"
    assert gets.pattern(place).search(said), f"{said}\ndoes not match\n{gets.pattern(place).pattern}"
    assert at == gets.by, f"{at}: {said}"
    assert len(said) <= LONGEST_MESSAGE, f"{len(said)} characters: {said[:300]}…"
    assert SECRET not in said
    assert _digest(place) == bytes_before, "the table that stood there is another one"
    _still_read(place, before)
    _require_nothing_half_done(place, at)


def _holds_served(
    case: Case, place: Place, before: Standing, done: Mapping[str, Mapping[str, Any]], store: RunStore
) -> None:
    assert not isinstance(case.gets, Refused)
    popular, found_rows = _newest(place)
    assert set(found_rows["RUN_ID"].to_pylist()) | set(popular["RUN_ID"].to_pylist()) <= {store.run_id}
    assert sum(map(len, contract.checked(found_rows.to_batches()))) == len(found_rows)
    contract.checked_popular(popular)
    _still_read(place, before)
    found = Found(
        rows=found_rows,
        popular=popular,
        plain=before.plain,
        summaries=done,
        rejected=pq.read_table(store.folder("validate") / contents.REJECTED).to_pylist(),
    )
    assert done["validate"]["rejected"] == case.gets.rejected, found.rejected[:5]
    case.gets.holds(found)


def _newest(place: Place) -> tuple[pa.Table, pa.Table]:
    """Popular items and rows."""
    tables = open_tables(place.table)
    newest = next(tables.published())
    return tables.popular(newest.version), tables.rows(newest.version).read_all()


def _still_read(place: Place, before: Standing) -> None:
    """The version that stood there is read as it was."""
    assert open_tables(place.table).rows(before.version).read_all().equals(before.rows)


def _digest(place: Place) -> str:
    """Of all files of the tables."""
    digest = hashlib.sha256()
    for name in FOLDERS:
        for file in sorted(each for each in (place.folder / name).rglob("*") if each.is_file()):
            digest.update(f"{file.relative_to(place.folder)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _require_nothing_half_done(place: Place, at: str) -> None:
    """No file of a task that did not end: neither in the place of a whole one nor in its try's folder."""
    for run in Path(place.store).glob("*"):
        tries = [each.name for each in run.glob(".*") if each.is_dir()]
        assert not tries, f"left behind: {tries}"
        for task in TASKS[TASKS.index(at) if at in TASKS else 0 :]:
            files = [each.name for each in (run / task).glob("*")]
            assert not files or "_SUCCESS" in files, f"left behind in {task}: {files}"


def _require_no_secret(place: Place) -> None:
    planted = place.folder / "planted"  # where a case itself writes the secret
    for file in place.folder.rglob("*"):
        if file.is_file() and planted not in file.parents:
            assert SECRET.encode() not in file.read_bytes(), f"{file} holds the secret"
