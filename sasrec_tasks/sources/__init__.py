"""Where interactions are read from: one module per kind of source behind one Protocol, chosen by its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from sasrec_tasks import connections, roots
from sasrec_tasks.config import Settings
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.sources.delta import DeltaSource, is_delta
from sasrec_tasks.sources.parquet import ParquetSource
from sasrec_tasks.sources.protocol import CutBy, Part, Source
from sasrec_tasks.sources.sql import SqlSource, query_of_table
from sasrec_tasks.sources.template import expanded, is_template, names_days

__all__ = ["CutBy", "Part", "Source", "open_source", "open_table", "since"]


def since(settings: Settings, as_of: datetime) -> datetime | None:
    """The first moment of the look-back; None without one."""
    days = settings.ingest.lookback_days
    try:
        return None if days is None else as_of - timedelta(days=days)
    except OverflowError as error:
        raise BadSettings(f"ingest.lookback_days={days}: begins before the year 1") from error


def open_source(settings: Settings, as_of: datetime, types: Mapping[str, pa.DataType]) -> Source:
    """The source that the settings name, as it was at a moment.

    Args:
        types: of columns that may stand in a file's path and are no text.

    Raises:
        BadData: nothing to read there.
        BadSettings: a source of no known kind.
    """
    source, first = settings.source, since(settings, as_of)
    address = connections.resolve(source)
    if connections.is_postgres(address):
        query = settings.ingest.query
        return SqlSource(address, shown=source, query=query, as_of=as_of, since=first)
    place = _one_place(source, as_of, settings.data_interval_start, "source", settings.ingest.allowed_roots)
    if place and is_delta(place):
        return DeltaSource(place, as_of=as_of, allowed_roots=settings.ingest.allowed_roots)
    return ParquetSource(
        source,
        as_of=as_of,
        since=first,
        data_interval_start=settings.data_interval_start,
        arrival=settings.ingest.arrival_partition,
        types=types,
        allowed_roots=settings.ingest.allowed_roots,
    )


def open_table(
    url: str,
    *,
    setting: str,
    as_of: datetime,
    data_interval_start: datetime | None = None,
    allowed_roots: tuple[str, ...] | None = None,
) -> Source:
    """A whole table, as it was at a moment if it knows, as it is now if not.

    Args:
        url: parquet (a file, a folder, a glob or an fsspec URL of one, with {data_interval_end} in it if need be), a
            Delta table, or a table of a database, `connection:ID?table=shop.items`.
        setting: what names it, for messages.

    Raises:
        BadData: nothing to read there.
        BadSettings: a table of no known kind, or of many days.
    """
    if names_days(url):
        raise BadSettings(
            f"{setting}={url!r}: is read as of one moment: write {{data_interval_end}} in the place of {{date}}"
        )
    address = connections.resolve(url)
    if connections.is_postgres(address):
        address, query = query_of_table(address, shown=url, setting=setting)
        source = SqlSource(address, shown=url, query=query, as_of=as_of, since=None, setting=setting)
        now = datetime.now(UTC).isoformat()  # a database doesn't tell whether a table has changed
        source.parts = [replace(part, version=now) for part in source.parts]
        return source
    place = _one_place(url, as_of, data_interval_start, setting, allowed_roots)
    if place and is_delta(place):
        return DeltaSource(place, as_of=as_of, allowed_roots=allowed_roots, setting=setting)
    return ParquetSource(
        url,
        as_of=as_of,
        since=None,
        data_interval_start=data_interval_start,
        arrival="",
        types={},
        allowed_roots=allowed_roots,
        setting=setting,
    )


def _one_place(
    url: str,
    as_of: datetime,
    data_interval_start: datetime | None,
    setting: str,
    allowed_roots: tuple[str, ...] | None,
) -> str | None:
    """The place that a URL stands for; None of many days."""
    if not is_template(url):
        return url
    if names_days(url):
        return None
    ((_, place),) = expanded(
        url, as_of=as_of, since=None, data_interval_start=data_interval_start, setting=setting
    )
    roots.check(setting, place, allowed_roots)
    return place
