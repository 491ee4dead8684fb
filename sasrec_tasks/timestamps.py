"""Units of timestamps: which one integers are in, and where a moment falls in it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

Unit = Literal["s", "ms", "us", "ns"]

TICKS: dict[str, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
"""Ticks per second."""

LIMITS: dict[Unit, int] = {"s": 10**11, "ms": 10**14, "us": 10**17}
"""Integers from here on are of a finer unit."""

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
    return next((unit for unit, limit in LIMITS.items() if abs(middle) < limit), "ns")


def of_another_unit(values: pa.Array, unit: Unit) -> pa.Array:
    """Which integers are times of ours, from 1973 on, in another unit alone.

    Returns:
        Booleans; null where the value is.
    """
    odd = pc.greater(values, LIMITS[unit] - 1 if unit in LIMITS else 2**63 - 1)
    units: list[Unit] = ["s", "ms", "us", "ns"]
    if place := units.index(unit):
        small = pc.less(values, LIMITS[units[place - 1]])
        odd = pc.or_(odd, pc.and_(small, pc.greater_equal(values, 10**8)))
    return odd


def first_tick_at(moment: datetime, unit: str) -> int:
    """The first tick at or after a moment, as int64 can hold it."""
    microseconds = (moment - _EPOCH) // timedelta(microseconds=1)
    return max(min(-(-microseconds * TICKS[unit] // 10**6), 2**63 - 1), -(2**63))


def moment_of(tick: int, unit: str) -> datetime:
    """The moment of a tick, to the microsecond."""
    return _EPOCH + timedelta(microseconds=tick * 10**6 // TICKS[unit])
