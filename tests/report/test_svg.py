"""Scales and ticks: the axis holds every value, in round steps."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from sasrec_tasks.report.svg import Scale, ticks

NUMBERS = st.floats(-1e9, 1e9).filter(lambda value: value == 0 or abs(value) > 1e-9)


@given(NUMBERS, NUMBERS)
def test_ticks_hold_every_value_in_a_few_steps(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    marks = ticks(low, high)
    span = marks[-1] - marks[0]
    assert marks == sorted(set(marks))
    assert 2 <= len(marks) <= 9
    if high - low > 1e-6 * max(abs(low), abs(high)):
        assert marks[0] <= low + 1e-6 * span
        assert marks[-1] >= high - 1e-6 * span


@given(NUMBERS)
def test_one_value_alone_has_an_axis(value: float) -> None:
    marks = ticks(value, value)
    assert marks[0] <= value <= marks[-1]
    assert all(map(math.isfinite, marks))


def test_a_scale_is_linear_and_survives_a_span_of_nothing() -> None:
    assert Scale(0, 10, 100, 0)(5) == 50
    assert Scale(3, 3, 0, 100)(3) == 0
