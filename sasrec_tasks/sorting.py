"""The order of events, in SQL: of all users on one machine, or of some of them on each of several.

A database has a table or view `valid` of the events, with their numbers in the source as `row`, by which ties are
broken.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from sasrec_tasks.config import Split
from sasrec_tasks.contents import ROWS_AT_ONCE
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.repeats import Columns, Repeats

CATALOGUE = """
CREATE TABLE items AS
SELECT row_number() OVER (ORDER BY ITEM_ID)::INTEGER AS index, ITEM_ID, count(*) AS events,
       min(TIMESTAMP) AS first_event
FROM valid GROUP BY ITEM_ID HAVING count(*) >= $min_item_events
"""

PEOPLE = """
CREATE TABLE users AS
SELECT row_number() OVER (ORDER BY USER_ID) - 1 AS index, USER_ID, count(*) AS events
FROM valid GROUP BY USER_ID
"""

PEOPLE_OF_SOME_ITEMS = """
CREATE TABLE users AS
SELECT row_number() OVER (ORDER BY USER_ID) - 1 AS index, USER_ID, count(items.index) AS events
FROM valid LEFT JOIN items USING (ITEM_ID) GROUP BY USER_ID
"""

SORTED = """
SELECT users.index AS user, items.index AS item, OUTCOME::FLOAT AS outcome, TIMESTAMP AS timestamp
FROM valid JOIN items USING (ITEM_ID) JOIN users USING (USER_ID)
ORDER BY users.index, TIMESTAMP, row
"""


@contextmanager
def within_limit(settings: Split) -> Iterator[None]:
    """While events are sorted.

    Raises:
        BadSettings: `split.memory_limit` is too low.
    """
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        said = str(error).partition("\n")[0]
        raise BadSettings(
            f"split.memory_limit={settings.memory_limit!r}: too little for this source, raise it ({said})"
        ) from error


def number_users(db: duckdb.DuckDBPyConnection, settings: Split) -> None:
    """Make the table `users` of those in `valid`, in order; `items` must be there."""
    db.execute(PEOPLE if settings.min_item_events == 1 else PEOPLE_OF_SOME_ITEMS)


class Sorted:
    """The events of `valid` that are of `items`, user after user, each user's by TIMESTAMP, in parts of many.

    Columns are user and item (their indices), outcome, timestamp. `read` were read so far, of them `repeats` left out.
    """

    def __init__(self, db: duckdb.DuckDBPyConnection, settings: Split) -> None:
        self._db, self._settings = db, settings
        self.read = self.repeats = 0

    def __iter__(self) -> Iterator[Columns]:
        found = Repeats()
        for batch in self._db.sql(SORTED).to_arrow_reader(ROWS_AT_ONCE):
            columns = {name: batch.column(name).to_numpy() for name in batch.schema.names}
            self.read += len(batch)
            yield found.without(columns) if self._settings.drop_repeats else columns
        if rest := found.rest():
            yield rest
        self.repeats = found.dropped
