"""PostgreSQL: rows copied into a table of their own, and views that are switched to it.

For `…?table=shop.recommendations` there are, in the schema `shop`:

- `recommendations` and `recommendations_popular`, views: what consumers read;
- `recommendations_0_1f2e`, … and `recommendations_popular_0_1f2e`, …: the rows of a publish, with an index on USER_ID;
- `recommendations_versions`: what was published when, and which rows it serves.

A publish is one transaction, the views switched at its end: a connection that is lost leaves nothing behind.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import pyarrow as pa

from sasrec_tasks.errors import BadSettings
from sasrec_tasks.mentions import Mentions
from sasrec_tasks.postgresql import OF_THE_SERVER, Cursor, split_table, transaction
from sasrec_tasks.tables import postgres_search
from sasrec_tasks.tables.postgres_search import OF_JSON, as_json
from sasrec_tasks.tables.protocol import (
    POPULAR,
    RECOMMENDATIONS,
    Forgot,
    Pruned,
    Published,
    Watched,
    forgotten,
    is_without,
    meanwhile,
    require_replaceable,
    require_served,
)
from sasrec_tasks.tables.retention import Keep, not_kept
from sasrec_tasks.tables.versions import Version, Versions
from sasrec_tasks.traces import Searched

log = logging.getLogger(__name__)

NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]{0,39}\.)?[A-Za-z_][A-Za-z0-9_]{0,29}")
LOCK_TIMEOUT = "60s"
"""How long switching a view waits for a consumer's long transaction, and other consumers behind it."""

VERSIONS = """
CREATE TABLE IF NOT EXISTS {versions} (
    version bigint PRIMARY KEY, place text NOT NULL, follows bigint, run_id text NOT NULL,
    as_of timestamptz NOT NULL, metadata text NOT NULL, at timestamptz NOT NULL DEFAULT now()
)"""


class PostgresTables:
    """`postgresql://…?table=recommendations`; what else stands in the URL is libpq's.

    Args:
        shown: what messages name instead of the URL.
    """

    folder: str | None = None

    def __init__(self, url: str, shown: str = "") -> None:
        self.url = shown or without_password(url)
        self.uri, name = split_table(url)
        self.name = name or "recommendations"
        if not NAME.fullmatch(self.name):
            raise BadSettings(
                f"table={self.url!r}: {self.name!r} is no name of a table: letters, digits and _, at most 30, "
                "a schema before it if need be (?table=shop.recommendations)"
            )

    def published(self) -> Iterator[Published]:
        """What is published, newest first; see `Tables`."""
        with self._connection() as cursor:
            versions = self._versions(cursor)
        return versions.served()

    def kept(self) -> Iterator[Published]:
        """All that can be served again; see `Tables`."""
        with self._connection() as cursor:
            return self._versions(cursor).kept(self._places(cursor))

    def rolled_back(self) -> set[str]:
        """The runs that were rolled back; see `Tables`."""
        with self._connection() as cursor:
            return self._versions(cursor).rolled_back()

    def publish(
        self,
        rows: Iterator[pa.RecordBatch],
        popular: pa.Table,
        *,
        run_id: str,
        as_of: datetime,
        metadata: dict[str, Any],
        may_replace: Callable[[Published], None] | None = None,
    ) -> Published:
        """Publish a run once; see `Tables`."""
        with self._connection() as cursor:
            before = self._versions(cursor)
            if done := before.of_run(run_id):
                log.info("export: run %s is version %d of %s already", run_id, done.version, self.url)
                return done
            require_replaceable(before.newest, as_of, may_replace)
            place = f"{before.next}_{secrets.token_hex(4)}"
            watched = Watched(rows)
            try:
                self._copy(cursor, self._table("popular", place), popular.cast(POPULAR).to_reader())
                self._copy(cursor, self._table("", place), watched.reader())
            except Exception:
                if watched.error:
                    raise watched.error from None
                raise
            now = self._locked_versions(cursor)
            if done := now.of_run(run_id):  # by another try of this task, while the rows were copied
                return done
            version = now.after(before, self.url, place=place, run_id=run_id, as_of=as_of, metadata=metadata)
            self._serve(cursor, version)
            cursor.commit()
        return version

    def rollback(self, to: Published, *, instead_of: Published | None = None) -> Published:
        """Serve an earlier version again; see `Tables`."""
        with self._connection() as cursor:
            versions = self._locked_versions(cursor)
            if versions.newest and versions.newest.run_id == to.run_id:
                return versions.newest
            require_served(versions.at(None, self.url), instead_of, self.url)
            version = versions.back_to(to.version, self.url)
            if version.place not in self._places(cursor):
                raise not_kept(self.url, to.version)
            self._serve(cursor, version)
            cursor.commit()
        return version

    def prune(self, keep: Keep, *, dry_run: bool = False) -> list[Pruned]:
        """Drop the tables of old publishes; see `Tables`. A publish that was killed has left none."""
        with self._connection() as cursor:
            if self._versions(cursor).newest is None:
                return []
            versions = self._locked_versions(cursor)
            places = self._places(cursor)
            assert versions.newest is not None  # versions are never taken back
            there = list(versions.kept(places))
            runs = keep.runs(there)
            kept = {version.place for version in there if version.run_id in runs}
            gone = places.keys() - kept - {versions.newest.place}
            if not dry_run:
                cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
                for place in sorted(gone):
                    cursor.execute(f"DROP TABLE {self._table('', place)}, {self._table('popular', place)}")
                cursor.commit()
        return [
            Pruned(
                url=self.url,
                kept=runs,
                removed=tuple(version for version in there if version.run_id not in runs),
                leftovers=0,
                bytes=sum(places[place] for place in gone),
            )
        ]

    def forget(self, users: Collection[str], told: dict[str, Any] | None = None) -> list[Forgot]:
        """Serve a copy of the newest rows without users, and then drop all other tables; see `Tables`."""
        with self._connection() as cursor:
            if self._versions(cursor).newest is None:
                return [Forgot(url=self.url, version=None)]
            versions = self._locked_versions(cursor)
            newest = versions.at(None, self.url)
            if not is_without(self.for_users(list(users)), newest, told):
                newest = versions.renewed(
                    self._copy_without(cursor, users, versions), forgotten(users, newest, told)
                )
                self._serve(cursor, newest)
                cursor.commit()  # consumers go on while the others are dropped
        with self._connection() as cursor:
            versions = self._locked_versions(cursor)
            if versions.at(None, self.url).version != newest.version:
                raise meanwhile(self.url)
            places = self._places(cursor)
            there = tuple(kept.version for kept in versions.kept(places) if kept.place != newest.place)
            cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            for place in sorted(places.keys() - {newest.place}):
                cursor.execute(f"DROP TABLE {self._table('', place)}, {self._table('popular', place)}")
            cursor.commit()
        return [Forgot(url=self.url, version=newest.version, removed=there)]

    def _copy_without(self, cursor: Any, users: Collection[str], versions: Versions) -> str:
        """Place of a copy of the newest rows without users, in the order in which they came."""
        old, place = versions.at(None, self.url).place, f"{versions.next}_{secrets.token_hex(4)}"
        cursor.execute("SET LOCAL synchronize_seqscans = off")
        for kind, where in (("popular", ""), ("", f'WHERE "USER_ID" NOT IN {OF_JSON}')):
            new = self._table(kind, place)
            cursor.execute(f"CREATE TABLE {new} (LIKE {self._table(kind, old)} INCLUDING ALL)")
            cursor.execute(
                f"INSERT INTO {new} SELECT * FROM {self._table(kind, old)} {where}",
                parameters=(as_json(users),) if where else None,
            )
            cursor.execute(f"ANALYZE {new}")
        return place

    def search(self, mentions: Mentions) -> Searched:
        """Look through the tables; see `Tables`."""
        with self._connection() as cursor:
            return postgres_search.in_tables(cursor, self.name, mentions)

    def rows(self, version: int, columns: Sequence[str] | None = None) -> pa.RecordBatchReader:
        """The rows of a version, in the order in which they came; see `Tables`."""
        schema = pa.schema([RECOMMENDATIONS.field(name) for name in columns or RECOMMENDATIONS.names])
        with self._connection() as cursor:
            place = self._place(cursor, version)

        def batches() -> Iterator[pa.RecordBatch]:
            with self._connection() as cursor:
                cursor.execute("SET LOCAL synchronize_seqscans = off")  # or a scan may start where another is
                cursor.execute(f"SELECT {_columns(schema)} FROM {self._table('', place)}")
                for batch in cursor.fetch_record_batch():
                    yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)

        return pa.RecordBatchReader.from_batches(schema, batches())

    def for_users(self, users: Sequence[str], version: int | None = None) -> pa.Table:
        """The rows of some users; see `Tables`."""
        rows = self._read(RECOMMENDATIONS, "", version, f'WHERE "USER_ID" IN {OF_JSON}', (as_json(users),))
        return rows.sort_by([("USER_ID", "ascending"), ("RANK", "ascending")])

    def popular(self, version: int | None = None) -> pa.Table:
        """The popular items, best first; see `Tables`."""
        return self._read(POPULAR, "popular", version).sort_by("RANK")

    # SQL

    def _read(
        self, schema: pa.Schema, kind: str, version: int | None, where: str = "", values: tuple[str, ...] = ()
    ) -> pa.Table:
        with self._connection() as cursor:
            place = self._place(cursor, version)
            cursor.execute(
                f"SELECT {_columns(schema)} FROM {self._table(kind, place)} {where}",
                parameters=values or None,
            )
            return pa.Table.from_arrays(cursor.fetch_arrow_table().columns, schema=schema)

    def _copy(self, cursor: Cursor, table: str, rows: pa.RecordBatchReader) -> None:
        """A new table with an index, visible to others when the transaction ends."""
        schema, _, name = table.rpartition(".")
        cursor.adbc_ingest(
            name.strip('"'), rows, mode="create", **({"db_schema_name": schema.strip('"')} if schema else {})
        )
        if "USER_ID" in rows.schema.names:
            cursor.execute(f'CREATE INDEX ON {table} ("USER_ID")')
            cursor.execute(f"ANALYZE {table}")

    def _serve(self, cursor: Cursor, version: Version) -> None:
        """Write a version down, and switch the views to its rows."""
        cursor.execute(
            f"INSERT INTO {self._table('versions')} (version, place, follows, run_id, as_of, metadata)"
            " VALUES ($1::text::bigint, $2, $3::text::bigint, $4, $5::text::timestamptz, $6)",
            parameters=(
                str(version.version),
                version.place,
                None if version.follows is None else str(version.follows),
                version.run_id,
                version.as_of.isoformat(),
                json.dumps(version.metadata),
            ),
        )
        cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        for kind, schema in (("", RECOMMENDATIONS), ("popular", POPULAR)):
            cursor.execute(
                f"CREATE OR REPLACE VIEW {self._table(kind)} AS "
                f"SELECT {_columns(schema)} FROM {self._table(kind, version.place)}"
            )

    def _locked_versions(self, cursor: Cursor) -> Versions:
        """The versions, which no other publisher changes until this transaction ends."""
        cursor.execute(OF_THE_SERVER)
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext($1))", parameters=(self._table("versions"),))
        cursor.execute(VERSIONS.format(versions=self._table("versions")))
        return self._versions(cursor)

    def _versions(self, cursor: Cursor, *, with_metadata: bool = True) -> Versions:
        cursor.execute("SELECT to_regclass($1) IS NOT NULL", parameters=(self._table("versions"),))
        if not cursor.fetchone()[0]:
            return Versions()
        metadata = "metadata" if with_metadata else "'{}'::text AS metadata"
        cursor.execute(
            f"SELECT version, place, follows, run_id, as_of, {metadata}, at FROM {self._table('versions')}"
        )
        found = cursor.fetch_arrow_table().to_pylist()
        return Versions(Version(**{**row, "metadata": json.loads(row["metadata"])}) for row in found)

    def _places(self, cursor: Cursor) -> dict[str, int]:
        """The places whose tables are there, and their bytes."""
        if self._versions(cursor, with_metadata=False).newest is None:
            return {}
        tables = ["to_regclass($1 || place || '\"')", "to_regclass($2 || place || '\"')"]
        size = " + ".join(f"pg_total_relation_size({table})" for table in tables)
        cursor.execute(
            f"SELECT place, {size} AS bytes FROM (SELECT DISTINCT place FROM {self._table('versions')}) AS places"
            f" WHERE {' AND '.join(f'{table} IS NOT NULL' for table in tables)}",
            parameters=tuple(
                self._table(kind, "_").removesuffix('"').removesuffix("_") for kind in ("", "popular")
            ),
        )
        return {row["place"]: row["bytes"] for row in cursor.fetch_arrow_table().to_pylist()}

    def _place(self, cursor: Cursor, version: int | None) -> str:
        """Where the rows of a version are, or of the newest."""
        found = self._versions(cursor, with_metadata=False).at(version, self.url)
        if version is not None:
            tables = (self._table("", found.place), self._table("popular", found.place))
            cursor.execute("SELECT to_regclass($1) IS NULL OR to_regclass($2) IS NULL", parameters=tables)
            if cursor.fetchone()[0]:
                raise not_kept(self.url, version)
        return found.place

    def _table(self, kind: str = "", place: str = "") -> str:
        """Quoted name: of a view, or of the table that holds a publish's rows."""
        schema, _, name = self.name.rpartition(".")
        whole = "_".join(part for part in (name, kind, place) if part)
        return f'"{schema}"."{whole}"' if schema else f'"{whole}"'

    def _connection(self) -> AbstractContextManager[Cursor]:
        return transaction(self.uri, self.url)


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    parts = urlsplit(url)
    user, at, place = parts.netloc.rpartition("@")
    query = [(name, value) for name, value in parse_qsl(parts.query) if name != "password"]
    return urlunsplit(
        (parts.scheme, f"{user.partition(':')[0]}{at}{place}", parts.path, urlencode(query), "")
    )


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f'"{name}"' for name in schema.names)
