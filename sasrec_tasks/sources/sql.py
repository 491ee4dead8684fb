"""A query to PostgreSQL, streamed.

A database does not know what had arrived by a moment, so events are taken by their own time; the query may ask for
those it needs by `:as_of` and `:since`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from sasrec_tasks.errors import BadData, BadSettings
from sasrec_tasks.extras import needs
from sasrec_tasks.postgresql import connected, said, split_table
from sasrec_tasks.sources.protocol import CutBy, Part

TABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*\.)?[A-Za-z_][A-Za-z0-9_]*")
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class SqlSource:
    """The rows of a query, in the order in which it gives them.

    Args:
        address: of the database, with its secrets.
        shown: what messages and the manifest name instead.
        query: with `:as_of` and `:since`, which stand for moments; `:since` is 1970 without a look-back.
        setting: what the query comes from, for messages.

    Raises:
        BadSettings: no query, or no driver.
    """

    def __init__(
        self,
        address: str,
        *,
        shown: str,
        query: str | None,
        as_of: datetime,
        since: datetime | None,
        setting: str = "ingest.query",
    ) -> None:
        if not query:
            raise BadSettings(
                f"ingest.query: not set: {shown} is a database, write the query that gives the interactions, for "
                "instance SELECT user_id, item_id, 1.0 AS outcome, ts FROM events WHERE ts < :as_of ORDER BY ts"
            )
        self.address, self.shown, self.setting = address, shown, setting
        self.query = _with_moments(query, as_of=as_of, since=since or BEGINNING)
        self.cut_by: CutBy = "event time"
        self.about: dict[str, Any] = {"query": self.query}
        self.parts = [Part(path=shown, bytes=0, version=self.query)]

    def schema(self, part: Part) -> pa.Schema:
        """Names and types of the query's columns; see `Source`."""
        with self._rows(f"SELECT * FROM ({self.query.rstrip().rstrip(';')}\n) AS query LIMIT 0") as reader:
            return reader.schema

    def batches(self, part: Part, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows of the query; see `Source`."""
        with self._rows(self.query) as reader:
            for batch in reader:
                yield batch.select(list(columns))

    @contextmanager
    def _rows(self, query: str) -> Iterator[pa.RecordBatchReader]:
        try:
            from adbc_driver_manager import Error, OperationalError, ProgrammingError
        except ImportError as error:
            raise BadSettings(f"{self.shown}: {needs('adbc_driver_postgresql')}") from error
        try:
            with connected(self.address, self.shown) as cursor:
                cursor.execute("SET TRANSACTION READ ONLY")
                cursor.execute(query)
                yield cursor.fetch_record_batch()
        except ProgrammingError as error:
            raise BadSettings(f"{self.setting}: {self.shown}: {said(error, self.address)}") from None
        except OperationalError as error:
            raise OSError(f"{self.shown}: {said(error, self.address)}") from None
        except Error as error:
            raise BadData(f"{self.shown}: {said(error, self.address)}") from None


def query_of_table(address: str, *, shown: str, setting: str) -> tuple[str, str]:
    """Address and query of `postgresql://…?table=shop.items`.

    Raises:
        BadSettings: no table is named, or it has no plain name.
    """
    uri, name = split_table(address)
    if not TABLE.fullmatch(name):
        raise BadSettings(
            f"{setting}={shown!r}: {name!r} is no name of a table: end it with ?table=items or ?table=shop.items"
        )
    quoted = ".".join(f'"{part.lower()}"' for part in name.split("."))  # lower case, as without the quotes
    return uri, f"SELECT * FROM {quoted}"


def _with_moments(query: str, **moments: datetime) -> str:
    """The query with `:name` replaced by a moment; `::type` is a cast and stays."""
    for name, moment in moments.items():
        query = re.sub(rf"(?<!:):{name}\b", f"'{moment.isoformat()}'::timestamptz", query)
    return query
