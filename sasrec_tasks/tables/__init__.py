"""Where the top-k goes: one module per kind of table behind one Protocol, chosen by the URL; and its reader."""

from __future__ import annotations

from sasrec_tasks.tables.protocol import Forgot, OtherList, Pruned, Published, Superseded, Tables
from sasrec_tasks.tables.reader import Recommendations
from sasrec_tasks.tables.retention import Keep, NotKept
from sasrec_tasks.tables.urls import open_tables

__all__ = [
    "Forgot",
    "Keep",
    "NotKept",
    "OtherList",
    "Pruned",
    "Published",
    "Recommendations",
    "Superseded",
    "Tables",
    "open_tables",
]
