"""When a run is late."""

from __future__ import annotations

import pytest

from sasrec_tasks.deadline import hours
from sasrec_tasks.errors import BadSettings


@pytest.mark.parametrize(("text", "expected"), [("", 0), ("0", 0), ("6", 6), ("1.5", 1.5), (" 26 ", 26)])
def test_hours_are_a_number(text: str, expected: float) -> None:
    assert hours(text) == expected


@pytest.mark.parametrize("text", ["six", "-1", "nan", "inf", "1e300", "6h"])
def test_anything_else_is_told_by_its_name(text: str) -> None:
    with pytest.raises(BadSettings, match=f"^SASREC_DEADLINE_HOURS='{text}': is no number of hours"):
        hours(text)
