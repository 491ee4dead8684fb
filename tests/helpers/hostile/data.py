"""The plain data that each case spoils, and the settings that all have."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

T = 1_700_000_000
COLUMNS = ("USER_ID", "ITEM_ID", "OUTCOME", "TIMESTAMP")
USERS, ITEMS, EVENTS = 20, 12, 8

SETTINGS: dict[str, Any] = {
    "as_of": "2026-01-01",
    "train.epochs": 1,
    "train.hidden_units": 8,
    "train.num_blocks": 1,
    "train.max_len": 8,
    "train.device": "cpu",
    "evaluate.bootstrap_samples": 100,
    "gate.force_publish": True,  # the data, not the model, are tried here
    "validate.drift_warn": None,
    "validate.drift_fail": None,
}
"""Of a run that ends in a second."""

Row = tuple[Any, Any, Any, Any]


def rows() -> list[Row]:
    """Events of 20 users with 8 of 12 items each: one spoilt row may be set aside, two are too many."""
    return [
        (f"user {user:02d}", f"item {(5 * user + 7 * n * n + n) % ITEMS:02d}", float(1 + (user + n) % 5),
         T + 3600 * n + user)
        for user in range(USERS)
        for n in range(EVENTS)
    ]  # fmt: skip


def table(events: list[Row] | None = None, **columns: Any) -> pa.Table:
    """Rows as a table; columns in place of others, or beside them; those that are None are left out."""
    types = (pa.string(), pa.string(), pa.float64(), pa.int64())
    found: dict[str, Any] = {
        name: pa.array([row[place] for row in (rows() if events is None else events)], kind)
        for place, (name, kind) in enumerate(zip(COLUMNS, types, strict=True))
    }
    return pa.table({name: values for name, values in (found | columns).items() if values is not None})


def column(name: str) -> pa.Array:
    """A column of the plain data."""
    return table()[name].combine_chunks()


PAIRS = len({row[:2] for row in rows()})
"""Users and items that came together: all that is left where times are equal, and repeats are dropped."""
