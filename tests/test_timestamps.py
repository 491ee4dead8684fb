from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sasrec_tasks.timestamps import (
    TICKS,
    first_tick_at,
    moment_of,
    of_another_unit,
    unit_of_integers,
    unit_of_type,
)

units = st.sampled_from(sorted(TICKS))
moments = st.datetimes(min_value=datetime(1700, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC))


def ticks(moment: datetime, unit: str) -> tuple[int, int]:
    """A moment in ticks, exactly: whole ticks and what is left over, in microsecond-ticks."""
    return divmod(
        (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * TICKS[unit], 10**6
    )


@given(moments, units)
def test_first_tick_is_the_least_that_is_not_before_the_moment(moment: datetime, unit: str) -> None:
    whole, rest = ticks(moment, unit)
    assert first_tick_at(moment, unit) == whole + (rest > 0)


@given(st.datetimes(timezones=st.just(UTC)), units)
def test_first_tick_fits_int64_at_any_moment(moment: datetime, unit: str) -> None:
    assert -(2**63) <= first_tick_at(moment, unit) < 2**63


@given(moments, st.sampled_from(["us", "ns"]))
def test_a_ticks_moment_is_the_one_it_came_from(moment: datetime, unit: str) -> None:
    assert moment_of(first_tick_at(moment, unit), unit) == moment


@given(
    st.lists(st.datetimes(datetime(1974, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)), min_size=1),
    units,
)
def test_auto_tells_the_unit_of_any_times_of_ours(times: list[datetime], unit: str) -> None:
    values = pa.array([ticks(moment, unit)[0] for moment in times], pa.int64())
    assert unit_of_integers(values) == unit


def test_a_few_odd_values_do_not_change_the_unit() -> None:
    assert unit_of_integers(pa.array([None, 0, -1, 1_700_000_000_000, *[1_700_000_000_123] * 3])) == "ms"


@given(
    st.lists(st.datetimes(datetime(1974, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)), min_size=1),
    units,
    units,
)
def test_times_of_ours_are_of_another_unit_where_they_are(
    times: list[datetime], unit: str, other: str
) -> None:
    values = pa.array([ticks(moment, other)[0] for moment in times], pa.int64())
    assert of_another_unit(values, unit).to_pylist() == [unit != other] * len(times)  # type: ignore[arg-type]


def test_sentinels_and_missing_values_are_of_no_other_unit() -> None:
    for unit in TICKS:
        found = of_another_unit(pa.array([0, -1, None, -(2**63)]), unit)  # type: ignore[arg-type]
        assert found.to_pylist() == [False, False, None, False]


def test_no_values_have_no_unit() -> None:
    assert unit_of_integers(pa.array([], pa.int64())) is None
    assert unit_of_integers(pa.array([None, None], pa.int64())) is None


@pytest.mark.parametrize(
    ("kind", "unit"),
    [
        (pa.timestamp("s"), "s"),
        (pa.timestamp("ns", "Asia/Tokyo"), "ns"),
        (pa.date32(), "s"),
        (pa.date64(), "ms"),
        (pa.int64(), None),
        (pa.string(), None),
        (pa.time32("s"), None),
    ],
)
def test_units_of_types(kind: pa.DataType, unit: str | None) -> None:
    assert unit_of_type(kind) == unit
