"""What tonight's interactions look like in a few figures, to be held against those of earlier nights."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from sasrec_tasks import scratch
from sasrec_tasks.timestamps import TICKS, first_tick_at

RECENT = timedelta(hours=48)

Profile = dict[str, float]
"""rows, users (to about 2%), items, events_per_user, and of the 48 hours before as_of those with events."""

USERS = "SELECT approx_count_distinct(USER_ID) FROM read_parquet($snapshot)"

HOURS = """
SELECT count(*) FROM (
    SELECT DISTINCT TIMESTAMP // $hour FROM read_parquet($snapshot) WHERE TIMESTAMP BETWEEN $first AND $last
)
"""

CATALOGUE = """
CREATE TABLE catalogue AS SELECT DISTINCT ITEM_ID FROM read_parquet($snapshot) WHERE ITEM_ID IS NOT NULL
"""

KNOWN = "SELECT count(*) FROM catalogue SEMI JOIN read_parquet($items) USING (ITEM_ID)"


def measure(
    snapshot: Path, *, rows: int, unit: str, as_of: datetime, known_items: Path | None
) -> tuple[Profile, float | None]:
    """The profile of a snapshot, in bounded memory.

    Args:
        snapshot: parquet of events, with the columns of the contract.
        rows: of them, those that are not rejected.
        unit: of its timestamps.
        as_of: all its events are from before.
        known_items: parquet with an earlier night's ITEM_ID.

    Returns:
        The profile, and the share of its items that are known, None without known_items.
    """
    with scratch.database(
        memory_limit="256MB",
        preserve_insertion_order=False,
        enable_external_file_cache=False,  # each column is read once
    ) as db:
        (users,) = db.execute(USERS, {"snapshot": str(snapshot)}).fetchall()[0]
        (hours,) = db.execute(
            HOURS,
            {
                "snapshot": str(snapshot),
                "first": first_tick_at(as_of - RECENT, unit),
                "last": first_tick_at(as_of, unit) - 1,
                "hour": 3600 * TICKS[unit],
            },
        ).fetchall()[0]
        db.execute(CATALOGUE, {"snapshot": str(snapshot)})
        (items,) = db.execute("SELECT count(*) FROM catalogue").fetchall()[0]
        known = None
        if known_items and items:
            known = db.execute(KNOWN, {"items": str(known_items)}).fetchall()[0][0] / items
    profile = {
        "rows": rows,
        "users": users,
        "items": items,
        "events_per_user": round(rows / max(users, 1), 3),
        "hours": hours,
    }
    return profile, known
