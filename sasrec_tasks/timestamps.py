"""Units of timestamps: which one integers are in, and where a moment falls in it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

Unit = Literal["s", "ms", "us", "ns"]

TICKS: dict[str, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
"""Ticks per second."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def unit_of_type(kind: pa.DataType) -> str | None:
    """Unit of a date or date-time type; None for others."""
    if pa.types.is_timestamp(kind):
        return str(kind.unit)
    if pa.types.is_date32(kind):
        return "s"
    return "ms" if pa.types.is_date64(kind) else None


def unit_of_integers(values: pa.Array) -> Unit | None:
    """The unit in which the middle one of the values is a time of ours; None without values.

    10¹¹ seconds are the year 5138 and 10¹¹ milliseconds are 1973, so between 1973 and 5138 no two
    units can be confused.
    """
    middle = pc.quantile(values, 0.5, interpolation="lower")[0].as_py()
    if middle is None:
        return None
    for unit, limit in (("s", 10**11), ("ms", 10**14), ("us", 10**17)):
        if abs(middle) < limit:
            return unit  # type: ignore[return-value]
    return "ns"


def first_tick_at(moment: datetime, unit: str) -> int:
    """The first tick at or after a moment, as int64 can hold it."""
    microseconds = (moment - _EPOCH) // timedelta(microseconds=1)
    return max(min(-(-microseconds * TICKS[unit] // 10**6), 2**63 - 1), -(2**63))


def moment_of(tick: int, unit: str) -> datetime:
    """The moment of a tick, to the microsecond."""
    return _EPOCH + timedelta(microseconds=tick * 10**6 // TICKS[unit])
