"""The kind of table that a URL names."""

from __future__ import annotations

from sasrec_tasks import connections
from sasrec_tasks.roots import places
from sasrec_tasks.tables.delta import DeltaTables
from sasrec_tasks.tables.parquet import PREFIX, ParquetTables
from sasrec_tasks.tables.postgres import PostgresTables
from sasrec_tasks.tables.protocol import Tables
from sasrec_tasks.tables.several import SeveralTables


def open_tables(url: str) -> Tables:
    """The tables at a URL, or at several with commas between, of which the first is the primary.

    Args:
        url: `parquet+<folder or URL>`, `postgresql://…?table=…`, `connection:ID?table=…`, or else the folder or
            URL of a Delta Lake table.
    """
    primary, *others = [_open(place) for place in places(url)] or [_open(url)]
    return SeveralTables(primary, others) if others else primary


def _open(url: str) -> Tables:
    if url.startswith(PREFIX):
        return ParquetTables(url)
    address = connections.resolve(url)
    if connections.is_postgres(address):
        return PostgresTables(address, shown=url if address != url else "")
    return DeltaTables(address)
