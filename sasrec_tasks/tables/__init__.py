"""Where the top-k goes: one module per kind of table behind one Protocol, chosen by the URL."""

from __future__ import annotations

from sasrec_tasks.tables.delta import DeltaTables
from sasrec_tasks.tables.parquet import PREFIX, ParquetTables
from sasrec_tasks.tables.postgres import SCHEMES, PostgresTables
from sasrec_tasks.tables.protocol import Published, Superseded, Tables

__all__ = ["Published", "Superseded", "Tables", "open_tables"]


def open_tables(url: str) -> Tables:
    """The tables at a URL: `parquet+…`, `postgresql://…`, or else a Delta Lake table."""
    if url.startswith(PREFIX):
        return ParquetTables(url)
    if url.partition("://")[0] in SCHEMES:
        return PostgresTables(url)
    return DeltaTables(url)
