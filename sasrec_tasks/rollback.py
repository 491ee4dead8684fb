"""Back to an earlier publish: table, popular items and champion together."""

from __future__ import annotations

import logging
from collections import Counter
from itertools import islice
from typing import Any

import pyarrow.compute as pc

from sasrec_tasks import announcement
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.tables import Published, Tables, open_tables
from sasrec_tasks.tables.protocol import FORGOTTEN

log = logging.getLogger(__name__)


def roll_back(table: str, *, version: int | None = None, run_id: str = "") -> dict[str, Any]:
    """Serve an earlier publish again, as a new version. The next run compares itself with it.

    Args:
        table: as the setting `table`; where it names several, all go back.
        version: of the (first) table; by default that of the publish before the one that is served.
        run_id: the run, instead of a version.

    Returns:
        What consumers are told (`announcement.facts`): of what is served now, and instead of which run; the same if
        what is asked for is served already.

    Raises:
        BadSettings: no such version or run is kept, or there is nothing to go back to.
        OSError: its rows are not kept any more, or another run was published meanwhile, and stays.
    """
    tables = open_tables(table)
    served = next(tables.published(), None)
    if served is None:
        raise BadSettings(f"table={table!r}: nothing is published there")
    to = _found(tables, table, version, run_id)
    # served already or not: other tables of the setting may have to follow yet
    done = tables.rollback(to, instead_of=served)
    when = "already" if done.version == served.version else "again"
    log.warning("rollback: %s: version %d serves run %s %s", tables.url, done.version, done.run_id, when)
    # As the version itself tells it: a rollback that is tried again after its commit tells the same.
    back = done.metadata.get("rolled_back") or {}
    before = next((each.version for each in tables.published() if each.version < done.version), None)
    rows, users = _sizes(tables, done.version)
    summary = {
        "table": table,
        "version": done.version,
        "previous_version": back.get("version", before),
        "as_of": done.as_of.isoformat(),
        "rows": rows,
        "users": users,
        "metrics": announcement.figures(done.metadata.get("metrics") or {}),
    }
    return announcement.facts(summary, run_id=done.run_id, instead_of=back.get("run_id"))


def _sizes(tables: Tables, version: int) -> tuple[int, int]:
    """Rows of a version, and users with rows."""
    counts: Counter[int] = Counter()
    for batch in tables.rows(version, ["RANK"]):
        for found in pc.value_counts(batch.column("RANK")).to_pylist():
            counts[found["values"]] += found["counts"]
    return counts.total(), counts[1]


def _found(tables: Tables, table: str, version: int | None, run_id: str) -> Published:
    if version is not None and run_id:
        raise BadSettings("rollback: name a version or a run, not both")
    if version is None and not run_id:
        before = list(islice(tables.published(), 1, 2))
        if not before:
            raise BadSettings(f"table={table!r}: holds one publish only: there is none to go back to")
        version = before[0].version
    kept = list(tables.kept())
    found = next(
        (each for each in kept if each.version == version or (run_id and each.run_id == run_id)), None
    )
    if found is None:
        known = ", ".join(f"{each.version} ({each.run_id})" for each in kept[:10])
        what = f"run {run_id!r}" if run_id else f"version {version}"
        why = _why_gone(list(tables.published()), version, run_id)
        raise BadSettings(f"table={table!r}: {what} is not kept{why}: there are {known}")
    return found


def _why_gone(published: list[Published], version: int | None, run_id: str) -> str:
    """Why there are no rows of a version, or of a run; "" if it is not known."""
    asked = next((each for each in published if each.run_id == run_id), None)
    number = asked.version if asked else version
    for each in published:
        told = each.metadata.get(FORGOTTEN)
        if told and number is not None and 0 <= number < each.version:
            return (
                f" any more, its rows were removed when {told['users']} user(s) were forgotten "
                f"({told['at']}, version {each.version}): they would come back with it"
            )
    if asked or any(each.version == version for each in published):
        return " any more, its rows were pruned (prune.keep_versions, prune.keep_days)"
    return ""
