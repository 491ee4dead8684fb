"""Repeats are found wherever the stream is cut."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sasrec_tasks.repeats import Columns, Repeats

events = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 3)), max_size=30)


def as_columns(rows: list[tuple[int, int, int]], first: int = 0) -> Columns:
    table = np.array(rows, np.int64).reshape(-1, 3)
    return {
        "user": table[:, 0],
        "timestamp": table[:, 1],
        "item": table[:, 2].astype(np.int32),
        "place": np.arange(first, first + len(table)),
    }


@given(events, st.lists(st.integers(0, 30)))
def test_the_first_of_each_user_item_and_time_stays_in_order(
    rows: list[tuple[int, int, int]], cuts: list[int]
) -> None:
    rows = sorted(rows, key=lambda row: row[:2])
    seen: set[tuple[int, int, int]] = set()
    expected = [place for place, row in enumerate(rows) if not (row in seen or seen.add(row))]  # type: ignore[func-returns-value]
    repeats, found = Repeats(), []
    bounds = [0, *sorted(cut for cut in cuts if cut < len(rows)), len(rows)]
    for start, stop in pairwise(bounds):
        found.append(repeats.without(as_columns(rows[start:stop], start))["place"])
    if rest := repeats.rest():
        found.append(rest["place"])
    assert np.concatenate(found).tolist() == expected
    assert repeats.dropped == len(rows) - len(expected)


def test_a_repeated_consumption_at_another_time_stays() -> None:
    repeats = Repeats()
    kept = [repeats.without(as_columns([(0, 1, 7), (0, 1, 7), (0, 2, 7), (1, 1, 7)])), repeats.rest()]
    assert [len(part["item"]) for part in kept] == [2, 1]
    assert repeats.dropped == 1


@pytest.mark.parametrize("is_dropped", [True, False])
def test_the_split_drops_what_was_delivered_twice(front: Any, is_dropped: bool) -> None:
    rows = [("u", "x", 1.0, 10), ("u", "y", 1.0, 10), ("u", "x", 2.0, 10), ("u", "x", 1.0, 11), ("v", "x", 1.0, 10),
            ("v", "y", 1.0, 11), ("v", "z", 1.0, 12)]  # fmt: skip
    store = front.run(front.write(rows), split__drop_repeats=is_dropped)
    folder = store.folder("split")
    assert np.load(folder / "offsets.npy").tolist() == ([0, 3, 6] if is_dropped else [0, 4, 7])
    outcomes = [1.0] * 6 if is_dropped else [1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 1.0]
    assert np.load(folder / "outcomes.npy").tolist() == outcomes
    assert store.marker("split").summary["repeats"] == int(is_dropped)
