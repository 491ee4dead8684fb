"""Back to an earlier publish: table, popular items and champion together."""

from __future__ import annotations

import logging
from itertools import islice
from typing import Any

from sasrec_tasks.errors import BadSettings
from sasrec_tasks.tables import Published, Tables, open_tables

log = logging.getLogger(__name__)


def roll_back(table: str, *, version: int | None = None, run_id: str = "") -> dict[str, Any]:
    """Serve an earlier publish again, as a new version. The next run compares itself with it.

    Args:
        table: as the setting `table`; where it names several, all go back.
        version: of the (first) table; by default that of the publish before the one that is served.
        run_id: the run, instead of a version.

    Returns:
        table, version (the new one), run_id and as_of of what is served now, instead_of (run id).

    Raises:
        BadSettings: no such version or run is kept, or there is nothing to go back to.
        OSError: its rows are not kept any more.
    """
    tables = open_tables(table)
    served = next(tables.published(), None)
    if served is None:
        raise BadSettings(f"table={table!r}: nothing is published there")
    to = _found(tables, table, version, run_id)
    done = tables.rollback(to)
    log.warning("rollback: %s: version %d serves run %s again", tables.url, done.version, done.run_id)
    return {
        "table": tables.url,
        "version": done.version,
        "run_id": done.run_id,
        "as_of": done.as_of.isoformat(),
        "instead_of": served.run_id,
    }


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
        was = any(each.version == version or each.run_id == run_id for each in tables.published())
        why = " any more, its rows were pruned (prune.keep_versions, prune.keep_days)" if was else ""
        raise BadSettings(f"table={table!r}: {what} is not kept{why}: there are {known}")
    return found
