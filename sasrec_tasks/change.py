"""How much the table would change: who would have no rows any more, whose lists would be other ones."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from sasrec_tasks import scratch
from sasrec_tasks.tables import Published, Tables
from sasrec_tasks.tables.protocol import RECOMMENDATIONS, Watched

SERVED = "CREATE TABLE served AS SELECT USER_ID FROM rows WHERE RANK = 1"

TONIGHT = "CREATE TABLE tonight AS FROM rows"

LOST = (
    "SELECT count(*), count(*) FILTER (tonight.USER_ID IS NULL) FROM served LEFT JOIN tonight USING (USER_ID)"
)

CHOSEN = """
SELECT USER_ID FROM $candidates
ORDER BY hash(concat(USER_ID, ' ', $random_state)), USER_ID LIMIT $users
"""

LISTS = """
WITH lengths AS (  -- lists of another length than before are compared as far as both go
    SELECT USER_ID, least(old.length, new.length) AS length
    FROM (SELECT USER_ID, count(*) AS length FROM old GROUP BY USER_ID) AS old
    JOIN (SELECT USER_ID, count(*) AS length FROM new GROUP BY USER_ID) AS new USING (USER_ID)
),
stayed AS (
    SELECT USER_ID, count(*) AS items
    FROM old JOIN new USING (USER_ID, ITEM_ID) JOIN lengths USING (USER_ID)
    WHERE old.RANK <= length AND new.RANK <= length
    GROUP BY USER_ID
)
SELECT length, sum(coalesce(items, 0))::BIGINT, count(*), count(*) FILTER (items IS NULL)
FROM lengths LEFT JOIN stayed USING (USER_ID) GROUP BY length ORDER BY length
"""


USER = pa.schema([("USER_ID", pa.string())])

Lists = Callable[[list[str]], Iterable[pa.RecordBatch]]
"""Users → their rows, with the columns of the table."""


@dataclass(frozen=True, kw_only=True)
class ListsCompared:
    """Users' lists beside other ones of theirs."""

    users_compared: int
    overlap: float | None  # mean share of a user's items that stay; None: nobody to compare
    lists_changed: float | None  # share of users who keep none


@dataclass(frozen=True, kw_only=True)
class Change(ListsCompared):
    """Tonight's rows beside those of a published version."""

    users_before: int
    users_lost: float  # share of them


class NotReadable(Exception):  # noqa: N818 - it says what is the case
    """The rows that are published can't be read; those of tonight are another matter."""

    def __init__(self, why: Exception) -> None:
        super().__init__(str(why))
        self.why = why


def measure(
    tables: Tables,
    published: Published,
    *,
    tonight: Iterable[pa.RecordBatch],
    lists: Lists,
    users: int,
    random_state: int,
) -> Change:
    """Hold what would be published against what is, in bounded memory.

    Args:
        tonight: USER_ID of all who would have rows.
        lists: tonight's.
        users: at most so many, drawn at random from those who have rows in both, have their lists compared.
        random_state: seed of the draw.

    Raises:
        NotReadable: the published version. What reading tonight's meets with is raised as it is.
    """
    with scratch.database(memory_limit="512MB") as db:
        with _of_the_table():
            served = tables.rows(published.version, ("USER_ID", "RANK"))
        _create(db, SERVED, _read(served), served.schema)
        _create(db, TONIGHT, tonight, USER)
        before, lost = db.execute(LOST).fetchall()[0]
        chosen = _drawn(db, "served SEMI JOIN tonight USING (USER_ID)", users, random_state)
        with _of_the_table():
            old = tables.for_users(chosen, published.version)
        compared = _compared(db, old, pa.Table.from_batches(lists(chosen), RECOMMENDATIONS))
    return Change(
        users_before=before, users_lost=lost / before if before else 0.0, **dataclasses.asdict(compared)
    )


def compare(
    old: Lists, new: Lists, *, tonight: Iterable[pa.RecordBatch], users: int, random_state: int
) -> ListsCompared:
    """Hold two models' lists of the same users against each other, in bounded memory.

    Args:
        tonight: USER_ID of all who would have rows.
        users: at most so many of them, drawn at random, have their lists compared.
        random_state: seed of the draw.
    """
    with scratch.database(memory_limit="512MB") as db:
        _create(db, TONIGHT, tonight, USER)
        chosen = _drawn(db, "tonight", users, random_state)
        return _compared(db, *(pa.Table.from_batches(lists(chosen), RECOMMENDATIONS) for lists in (old, new)))


@contextmanager
def _of_the_table() -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise NotReadable(error) from error


def _read(served: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    with _of_the_table():
        yield from served


def _drawn(db: duckdb.DuckDBPyConnection, candidates: str, users: int, random_state: int) -> list[str]:
    """USER_ID of at most so many users of a relation."""
    query = CHOSEN.replace("$candidates", candidates)
    drawn = db.execute(query, {"random_state": random_state, "users": users}).fetchall()
    return [user for (user,) in drawn]


def _compared(db: duckdb.DuckDBPyConnection, old: pa.Table, new: pa.Table) -> ListsCompared:
    for name, rows in (("old", old), ("new", new)):
        listed = rows.select(["USER_ID", "RANK", "ITEM_ID"])
        _create(db, f"CREATE TABLE {name} AS FROM rows", listed.to_batches(), listed.schema)
    of_lengths = db.execute(LISTS).fetchall()
    compared = sum(users for _, _, users, _ in of_lengths)
    if not compared:
        return ListsCompared(users_compared=0, overlap=None, lists_changed=None)
    # of whole numbers: a database adds up fractions in an order of its own, and the last digit hangs on it
    overlap = math.fsum(stayed / length for length, stayed, _, _ in of_lengths) / compared
    return ListsCompared(
        users_compared=compared,
        overlap=overlap,
        lists_changed=sum(changed for *_, changed in of_lengths) / compared,
    )


def _create(
    db: duckdb.DuckDBPyConnection, statement: str, rows: Iterable[pa.RecordBatch], schema: pa.Schema
) -> None:
    """A table from rows; what they meet with is raised as it is, where DuckDB would pass it on as text."""
    watched = Watched(rows)
    db.register("rows", watched.reader(schema))
    try:
        db.execute(statement)
    except Exception:
        if watched.error:
            raise watched.error from None
        raise
    db.unregister("rows")
