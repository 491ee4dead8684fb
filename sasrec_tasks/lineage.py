"""What a run reads and writes, by the addresses that lineage tools know: https://openlineage.io/docs/spec/naming."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from sasrec_tasks import connections
from sasrec_tasks.roots import places, without_pattern

POSTGRES_PORT = 5432


def addresses(value: str) -> list[str]:
    """Of a setting that names one place or several, those that have an address; no password, and no pattern.

    >>> addresses("/data/events/*.parquet, s3://bucket/table")
    ['file:///data/events', 's3://bucket/table']
    """
    return [found for place in places(value) if (found := _address(place))]


def _address(place: str) -> str:
    resolved = connections.resolve(place).removeprefix("parquet+")
    if connections.is_postgres(resolved):
        return _of_postgres(resolved)
    plain = without_pattern(resolved.partition("{")[0] if "{" in resolved else resolved)
    if "::" in plain:
        return ""  # a chain of file systems has no address
    return plain if "://" in plain else Path(plain).absolute().as_uri()


def _of_postgres(address: str) -> str:
    """`postgres://host:port/database/schema/table`; "" of a source that is asked by a query."""
    parts = urlsplit(address)
    schema, _, table = dict(parse_qsl(parts.query)).get("table", "").rpartition(".")
    if not table or not parts.hostname:
        return ""
    port = parts.port or POSTGRES_PORT
    return f"postgres://{parts.hostname}:{port}/{parts.path.strip('/')}/{schema or 'public'}/{table}"
