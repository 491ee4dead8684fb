"""Where interactions are read from: one module per kind of source behind one Protocol, chosen by its name."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import pyarrow as pa

from sasrec_tasks import connections
from sasrec_tasks.config import Settings
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.sources.delta import DeltaSource, is_delta
from sasrec_tasks.sources.parquet import ParquetSource
from sasrec_tasks.sources.protocol import CutBy, Part, Source
from sasrec_tasks.sources.sql import SqlSource

__all__ = ["CutBy", "Part", "Source", "open_source", "since"]


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
    if source and is_delta(source):
        return DeltaSource(source, as_of=as_of)
    return ParquetSource(
        source,
        as_of=as_of,
        since=first,
        arrival=settings.ingest.arrival_partition,
        types=types,
        allowed_roots=settings.ingest.allowed_roots,
    )
