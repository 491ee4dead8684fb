"""An example of a consumer: a table in PostgreSQL that is kept up with the recommendations, changed users alone.

Unlike a table that is published to (`postgresql://…` as `table`), it holds one copy of the rows, updated in place:
for a database whose other tables refer to it, or whose replication should carry changes only.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from sasrec_tasks import connections
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.postgresql import OF_THE_SERVER, Cursor, split_table, transaction
from sasrec_tasks.tables import Recommendations

log = logging.getLogger(__name__)

NAME = re.compile(r"[a-z_][a-z0-9_]{0,49}")

TABLES = (
    'CREATE TABLE IF NOT EXISTS "{table}" (user_id text, rank int, item_id text NOT NULL, origin text NOT NULL,'
    " PRIMARY KEY (user_id, rank))",
    'CREATE TABLE IF NOT EXISTS "{table}_loaded" (version bigint NOT NULL, run_id text NOT NULL)',
)

CHANGED = "changed_rows"  # a temporary table

REPLACE = (
    f'DELETE FROM "{{table}}" USING (SELECT DISTINCT user_id FROM {CHANGED}) AS changed'
    ' WHERE "{table}".user_id = changed.user_id',
    f'INSERT INTO "{{table}}" SELECT user_id, rank, item_id, origin FROM {CHANGED} WHERE rank IS NOT NULL',
    'DELETE FROM "{table}_loaded"',
)


def upsert(url: str, to: str) -> dict[str, Any]:
    """Bring the table up to the newest version, in one transaction; running it again changes nothing.

    Args:
        url: of the recommendations.
        to: `postgresql://…?table=name` or `connection:ID?table=name`.

    Returns:
        version, since (the version that was loaded before, or None), users (changed, new or gone), rows (written).

    Raises:
        BadSettings: nothing is published, or `to` is no such address.
        OSError: the database can't be reached or says no.
    """
    newest = Recommendations(url)
    with _table(to) as (cursor, table):
        for statement in TABLES:
            cursor.execute(statement.format(table=table))
        cursor.execute(OF_THE_SERVER)
        cursor.execute(f'LOCK TABLE "{table}_loaded" IN EXCLUSIVE MODE')  # one at a time
        cursor.execute(f'SELECT version, run_id FROM "{table}_loaded"')
        found = cursor.fetchone()
        since, run_id = (int(found[0]), str(found[1])) if found else (None, "")
        users = rows = 0
        if (since, run_id) != (newest.version, newest.run_id):
            changes = None if since is None else _changes(url, newest, since, run_id)
            if changes is None:
                cursor.execute(f'DELETE FROM "{table}"')
                changes = pa.Table.from_pandas(newest.to_pandas(), preserve_index=False)
            users = len(changes["USER_ID"].unique())
            rows = len(changes) - changes["RANK"].null_count
            lower = pa.schema([(name.lower(), changes.schema.field(name).type) for name in COLUMNS])
            columns = [changes[name] for name in COLUMNS]
            cursor.adbc_ingest(CHANGED, pa.Table.from_arrays(columns, schema=lower), temporary=True)
            for statement in REPLACE:
                cursor.execute(statement.format(table=table))
            cursor.execute(
                f'INSERT INTO "{table}_loaded" VALUES ($1::text::bigint, $2)',
                parameters=(str(newest.version), newest.run_id),
            )
        cursor.commit()
    log.info("upsert: version %d, %s users changed since version %s", newest.version, f"{users:,}", since)
    return {"version": newest.version, "since": since, "users": users, "rows": rows}


COLUMNS = ("USER_ID", "RANK", "ITEM_ID", "ORIGIN")


def _changes(url: str, newest: Recommendations, since: int, run_id: str) -> pa.Table | None:
    """What differs from the version that is loaded; None if that is not kept any more, or is another run's now.

    A table that was deleted and made anew counts its versions from 0 again.
    """
    try:
        served = Recommendations(url, since).run_id
        if served != run_id:
            raise OSError(f"it is of run {served}, and run {run_id} is loaded")
        changes = newest.changes(since)
    except OSError as error:
        log.warning("upsert: version %d can't be compared with, loading all rows: %s", since, error)
        return None
    return pa.Table.from_pandas(changes.astype({"RANK": "Int64"}), preserve_index=False)


@contextmanager
def _table(to: str) -> Iterator[tuple[Cursor, str]]:
    """A cursor in a transaction, which is undone unless it was committed, and the table's name."""
    address = connections.resolve(to)
    uri, name = split_table(address)
    if not connections.is_postgres(address) or not NAME.fullmatch(name):
        raise BadSettings(
            f"{to.partition('@')[2] or to!r}: name a table of a PostgreSQL database in lower case: "
            "connection:ID?table=top_items"
        )
    with transaction(uri, name) as cursor:
        yield cursor, name
