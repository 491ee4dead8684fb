"""Values made ahead by a thread are the same, and made ahead."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sasrec_tasks.sasrec.ahead import AHEAD, made_ahead


@given(values=st.lists(st.integers(), max_size=10))
def test_values_are_the_same_in_the_same_order(values: list[int]) -> None:
    assert list(made_ahead(iter(values))) == values


def test_the_next_values_are_made_while_one_is_worked_on() -> None:
    made = threading.Semaphore(0)

    def values() -> Iterator[int]:
        for number in range(10):
            made.release()
            yield number

    ahead = made_ahead(values())
    next(ahead)
    for _ in range(1 + AHEAD):
        assert made.acquire(timeout=10)
    assert not made.acquire(blocking=False)  # and no more than these
    ahead.close()


def test_an_error_is_raised_where_its_value_would_have_come() -> None:
    def values() -> Iterator[int]:
        yield 1
        raise MemoryError("no more")

    ahead = made_ahead(values())
    assert next(ahead) == 1
    with pytest.raises(MemoryError, match="no more"):
        next(ahead)


def test_what_is_left_half_way_leaves_no_thread() -> None:
    before = threading.active_count()
    ahead = made_ahead(iter(range(1000)))
    next(ahead)
    ahead.close()
    assert threading.active_count() == before
