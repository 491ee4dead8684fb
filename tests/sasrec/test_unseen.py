from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sasrec_tasks.sasrec.sequences import Sequences
from sasrec_tasks.sasrec.unseen import sample_unseen

Make = Callable[..., Sequences]


@given(
    seen=st.lists(st.lists(st.integers(1, 12), max_size=14), min_size=1, max_size=8),
    negatives=st.integers(0, 15),
    seed=st.integers(0, 5),
)
@settings(deadline=None, max_examples=100)
def test_sampled_items_are_distinct_and_unseen_and_as_many_as_there_are(
    sequences: Make, seen: list[list[int]], negatives: int, seed: int
) -> None:
    drawn = sample_unseen(sequences(seen), 12, negatives, random_state=seed)
    assert drawn.shape == (len(seen), negatives)
    for row, of_user in zip(drawn.tolist(), seen, strict=True):
        unseen = set(range(1, 13)) - set(of_user)
        count = min(len(unseen), negatives)
        assert len(set(row[:count])) == count
        assert set(row[:count]) <= unseen
        assert row[count:] == [0] * (negatives - count)


def test_sampled_items_follow_random_state(sequences: Make) -> None:
    histories = sequences([[1, 2, 3]] * 600)
    first, again, other = (sample_unseen(histories, 200, 20, random_state=seed) for seed in (4, 4, 5))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[:256], first[256:512])


@pytest.mark.parametrize("seen", [[1], [1, 2, 3, 4, 5, 6, 7]])
def test_each_unseen_item_is_as_likely_and_at_any_place(sequences: Make, seen: list[int]) -> None:
    drawn = sample_unseen(sequences([seen] * 6000), 10, 2, random_state=0)
    for column in drawn.T:
        counts = np.bincount(column, minlength=11)
        expected = np.full(10 - len(seen), 6000 / (10 - len(seen)))
        assert counts[len(seen) + 1 :] == pytest.approx(expected, abs=5 * expected[0] ** 0.5)


def test_sampling_ends_soon_where_hardly_an_item_is_left(sequences: Make) -> None:
    histories = sequences([list(range(2, 50_001))])
    started = time.process_time()
    assert sample_unseen(histories, 50_000, 5, random_state=0).tolist() == [[1, 0, 0, 0, 0]]
    assert time.process_time() - started < 2
