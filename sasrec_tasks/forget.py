"""Forget users: in the table, in the runs' folders, and from now on.

In this order, so that nothing comes back behind it: the list that `ingest` and `export` leave them out by, the runs'
folders, the table of runs, the tables. What a task on another machine makes meanwhile of files as they were, it can't
commit any more. At last all that is left is searched. Each step finds what it has to do by looking, so that the same
call goes on after a kill, and does nothing the second time.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sasrec_tasks import abandoned, addresses, forgotten, named_list, run_folders, runs
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.forget_run import Cleaned, clean
from sasrec_tasks.mentions import Mentions
from sasrec_tasks.rewriting import TASKS
from sasrec_tasks.roots import places
from sasrec_tasks.tables import Forgot, open_tables
from sasrec_tasks.traces import Searched, in_folders

log = logging.getLogger(__name__)

SCRATCH = ("sasrec-duckdb-", "sasrec-store-", "sasrec-rewriting-", *(f"sasrec-{task}-" for task in TASKS))
"""What the names of temporary folders begin with, which killed processes leave on this machine."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was done, and what a search has found then; nobody's id is in it."""

    users: int  # that were asked for
    listed: int  # of them, those who were not on the store's list before
    tables: list[Forgot]
    reasons: int  # rows of the table of runs that named one
    runs: list[Cleaned]  # those whose folders were changed
    other_tables: list[str]  # of runs in the store
    searched: Searched
    dry_run: bool

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)


def forget(
    users: Collection[str], *, table: str, store: str, dry_run: bool = False, new_list: bool = False
) -> Report:
    """Take users out of a table and a store, and leave them out from now on.

    Args:
        users: USER_IDs, as text.
        table: as the setting `table`.
        store: as the setting `store`.
        dry_run: change nothing, only search.
        new_list: the list that the table names is lost: it names this store's from now on.

    Returns:
        What was done. Something found at the end is of what is at work elsewhere, or stands where nothing is changed
        (settings, names of files): see `Searched.found`.

    Raises:
        BadSettings: no user, an empty id, an address with a secret, or a table that names a list of forgotten users
            which the store has not.
        OSError: a run is at work on this machine, or something can't be read, written or reached. What was done is
            done; the same call goes on.
    """
    if not users or not all(users):
        raise BadSettings("--user: is empty: name a user, as USER_ID has it")
    addresses.check("store", store)  # it is named in the table's metadata
    mentions = Mentions(users)
    tables, runs_url = open_tables(table), runs.url_of(table, store)
    listed, reasons = 0, 0
    forgot: list[Forgot] = []
    cleaned: list[Cleaned] = []
    if not dry_run:
        if not new_list:
            _require_named(table, store)
        _require_none_at_work(store)
        listed = forgotten.add(store, users)
        run_folders.remove_leftovers(store)
        for prefix in SCRATCH:
            abandoned.remove(Path(tempfile.gettempdir()), prefix)
        cleaned = [done for run in _runs(store) if (done := clean(run, mentions)).files or done.discarded]
        reasons = runs.forget(runs_url, mentions)
        if new_list or tables.search(mentions).found:
            forgot = tables.forget(mentions.users, named_list.named(forgotten.read(store), store))
    searched = tables.search(mentions) + in_folders(
        dict.fromkeys((store, *([] if _is_below(runs_url, store) else [runs_url]))), mentions
    )
    report = Report(
        users=len(mentions.users),
        listed=listed,
        tables=forgot,
        reasons=reasons,
        runs=cleaned,
        other_tables=_other_tables(store, table),
        searched=searched,
        dry_run=dry_run,
    )
    log.info(
        "forget: %d user(s): %d run folders changed, %d tables; %s files searched, %d places found",
        report.users,
        len(cleaned),
        len(forgot),
        f"{searched.files:,}",
        len(searched.found),
    )
    return report


def _runs(store: str) -> list[RunStore]:
    return [run for run in run_folders.in_store(store) if run.is_started()]


def _require_named(table: str, store: str) -> None:
    """Refuse users of another store's table: this store's list would take the place of theirs."""
    for place in places(table):
        if newest := next(open_tables(place).published(), None):
            named_list.require(newest, table=place, store=store)


def _require_none_at_work(store: str) -> None:
    for run in _runs(store):
        if run.is_at_work():
            raise OSError(
                f"{run.uri}: a task of this run is at work on this machine: nothing was changed: try again when it has "
                "ended, or end it first; it can be gone on with afterwards"
            )


def _other_tables(store: str, table: str) -> list[str]:
    """Primary tables of the store's runs that are not the one at hand; what can't be read names none."""
    own = {place.rstrip("/") for place in places(table)}
    found: dict[str, None] = {}
    for run in _runs(store):
        try:
            theirs = places(run.settings().table)
        except ValueError:
            continue
        found |= dict.fromkeys(place for place in theirs if place.rstrip("/") not in own)
    return list(found)


def _is_below(url: str, store: str) -> bool:
    return url.startswith(f"{store.rstrip('/')}/")
