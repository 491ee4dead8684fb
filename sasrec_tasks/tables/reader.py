"""What consumers read the table with; needs neither torch nor Airflow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from sasrec_tasks.errors import BadSettings
from sasrec_tasks.tables import compare
from sasrec_tasks.tables.protocol import Published, Tables
from sasrec_tasks.tables.retention import NotKept
from sasrec_tasks.tables.urls import open_tables

CHANGES = """
WITH new_lists AS (SELECT USER_ID, list(ITEM_ID ORDER BY RANK) AS items FROM new GROUP BY USER_ID),
     old_lists AS (SELECT USER_ID, list(ITEM_ID ORDER BY RANK) AS items FROM old GROUP BY USER_ID),
     changed AS (
         SELECT coalesce(new_lists.USER_ID, old_lists.USER_ID) AS USER_ID,
                CASE WHEN old_lists.USER_ID IS NULL THEN 'new'
                     WHEN new_lists.USER_ID IS NULL THEN 'gone' ELSE 'changed' END AS CHANGE
         FROM new_lists FULL JOIN old_lists USING (USER_ID)
         WHERE new_lists.items IS DISTINCT FROM old_lists.items)
SELECT USER_ID, CHANGE, RANK, ITEM_ID, ORIGIN FROM changed LEFT JOIN new USING (USER_ID) ORDER BY USER_ID, RANK
"""


class Recommendations:
    """One version of the table, by default the newest when this is made: later publishes don't change it.

    Args:
        url: as the setting `table`; several with commas between are read from the first.
        version: one that is kept, instead of the newest.

    Raises:
        BadSettings: nothing is published there.
        NotKept: the version is not kept any more.

    >>> recommendations = Recommendations("recommendations")
    >>> recommendations.for_user("42")["ITEM_ID"].tolist()
    """

    def __init__(self, url: str, version: int | None = None) -> None:
        self._tables = open_tables(url)
        self._published: Published = (
            _newest(self._tables) if version is None else _kept(self._tables, version)
        )

    def __repr__(self) -> str:
        return (
            f"Recommendations({self._tables.url!r}, version={self.version}, as_of={self.as_of.isoformat()!r})"
        )

    @property
    def version(self) -> int:
        """Number of the version; grows with each publish and rollback."""
        return self._published.version

    @property
    def run_id(self) -> str:
        """The run that made the rows."""
        return self._published.run_id

    @property
    def as_of(self) -> datetime:
        """Events before this moment were read."""
        return self._published.as_of

    @property
    def metadata(self) -> dict[str, Any]:
        """What the publish said: metrics, model, data interval."""
        return self._published.metadata

    @property
    def age(self) -> timedelta:
        """Time since `as_of`."""
        return datetime.now(UTC) - self.as_of

    def for_user(self, user: str, *, popular_if_unknown: bool = True) -> pd.DataFrame:
        """A user's rows, best first: RANK, ITEM_ID, SCORE, ORIGIN, RUN_ID, AS_OF.

        Args:
            user: USER_ID.
            popular_if_unknown: the popular items for a user who is not in the table; else no rows.
        """
        rows = self._tables.for_users([user], self.version).drop_columns("USER_ID")
        if not len(rows) and popular_if_unknown:
            rows = self._tables.popular(self.version)
        return _frame(rows)

    def popular(self) -> pd.DataFrame:
        """The popular items, best first."""
        return _frame(self._tables.popular(self.version))

    def users(self) -> int:
        """How many users have rows."""
        firsts = self._tables.rows(self.version, ["RANK"])
        return sum(pc.sum(pc.equal(batch.column("RANK"), 1)).as_py() or 0 for batch in firsts)

    def to_pandas(self) -> pd.DataFrame:
        """All rows, in order of USER_ID and RANK as far as the table keeps it."""
        return _frame(self._tables.rows(self.version).read_all())

    def changes(self, since_version: int) -> pd.DataFrame:
        """The lists that differ from those of an earlier version, for incremental loads.

        Args:
            since_version: one that is kept.

        Returns:
            USER_ID, CHANGE ("new", "changed", "gone"), RANK, ITEM_ID, ORIGIN: the whole list of each user whose
            items or their order are others, and one row without RANK and ITEM_ID for each who is gone.
            Scores are those of another model each night, and count as no change.

        Raises:
            NotKept: the earlier version is not kept any more, or never was: load the whole table.
        """
        newest = _newest(self._tables).version
        if not 0 <= since_version <= newest:
            raise NotKept(
                f"{self._tables.url}: version {since_version} is not kept: there was none of that number, the newest "
                f"is {newest}"
            )
        with compare.versions(self._tables, new=self.version, old=since_version) as db:
            return _frame(db.sql(CHANGES).to_arrow_table())


def _newest(tables: Tables) -> Published:
    newest = next(tables.published(), None)
    if newest is None:
        raise BadSettings(
            f"table={tables.url!r}: nothing is published there: check the URL, or publish a run first"
        )
    return newest


def _kept(tables: Tables, version: int) -> Published:
    found = next((each for each in tables.kept() if each.version == version), None)
    if found is None:
        raise NotKept(f"{tables.url}: version {version} is no publish, or is not kept any more")
    return found


def _frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    return frame
