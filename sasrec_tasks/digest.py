"""What a consumer may want to know of a new version of the table, in a few figures."""

from __future__ import annotations

import json
import logging
from typing import Any

from sasrec_tasks import filesystem
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.tables import compare, open_tables

log = logging.getLogger(__name__)

FIGURES = """
SELECT count(*) AS rows, count(DISTINCT USER_ID) AS users, count(DISTINCT ITEM_ID) AS items,
       count(DISTINCT USER_ID) FILTER (ORIGIN = 'popular') AS users_served_popular
FROM new
"""

CHANGES = """
WITH new_lists AS (SELECT USER_ID, list(ITEM_ID) AS items FROM new GROUP BY USER_ID),
     old_lists AS (SELECT USER_ID, list(ITEM_ID) AS items FROM old GROUP BY USER_ID)
SELECT count(new_lists.USER_ID) FILTER (old_lists.USER_ID IS NULL) AS users_new,
       count(old_lists.USER_ID) FILTER (new_lists.USER_ID IS NULL) AS users_gone,
       -- rounded: the order of summing differs between threads, the digest of a version must not
       round(avg(len(list_intersect(new_lists.items, old_lists.items)) / len(new_lists.items))
           FILTER (new_lists.USER_ID IS NOT NULL AND old_lists.USER_ID IS NOT NULL), 12) AS overlap,
       count(*) FILTER (list_sort(new_lists.items) = list_sort(old_lists.items)) AS users_with_the_same_items
FROM new_lists FULL JOIN old_lists USING (USER_ID)
"""


def write(url: str, version: int | None = None, previous_version: int | None = None) -> dict[str, Any]:
    """Describe a version of the table, and how it differs from what was served before it.

    Args:
        url: of the recommendations.
        version: of the table; None is the newest.
        previous_version: what was served before, as the Asset event says; None: the newest before it that is kept.

    Returns:
        The digest, which also lies at `<folder>_digest/<version>.json` unless the table is in a database: rows,
        users, items, users_served_popular, and against the previous version, if its rows are kept, users_new,
        users_gone, overlap (mean share of a user's items that were there before) and users_with_the_same_items.

    Raises:
        BadSettings: nothing is published there.
    """
    tables = open_tables(url)
    kept = {each.version: each for each in tables.kept()}  # with those that were rolled back since
    this = None if version is None else kept.get(version)
    if this is None:
        this = next((p for p in tables.published() if version is None or p.version <= version), None)
    if this is None:
        raise BadSettings(
            f"table={url!r}: no publish in it{'' if version is None else f' up to version {version}'}"
        )
    old = previous_version
    if old is None:
        earlier = (e for e in kept.values() if e.version < this.version and e.run_id != this.run_id)
        old = next((each.version for each in earlier), None)
    elif old not in kept:
        old = None  # its rows were pruned
    with compare.versions(tables, new=this.version, old=old) as db:
        figures = db.sql(FIGURES).to_arrow_table().to_pylist()[0]
        if old is not None:
            figures |= db.sql(CHANGES).to_arrow_table().to_pylist()[0]
    digest = {
        "table": url,
        "version": this.version,
        "run_id": this.run_id,
        "as_of": this.as_of.isoformat(),
        "previous_version": old,
        **figures,
    }
    log.info("digest: %s", json.dumps(digest))
    if tables.folder is None:  # a database has no place for a file
        return digest
    place = f"{tables.folder}_digest/{this.version}.json"
    fs, path = filesystem.opened(place, "table")
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    fs.pipe_file(path, json.dumps(digest, indent=2).encode())
    return {**digest, "digest": place}
