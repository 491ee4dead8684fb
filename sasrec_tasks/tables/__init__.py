"""Where the top-k goes: one module per kind of table behind one Protocol."""

from __future__ import annotations

from sasrec_tasks.tables.delta import DeltaTables
from sasrec_tasks.tables.protocol import Published, Superseded, Tables

__all__ = ["Published", "Superseded", "Tables", "open_tables"]


def open_tables(url: str) -> Tables:
    """The tables at a URL. Delta Lake, the embedded default, is the only kind so far."""
    return DeltaTables(url)
