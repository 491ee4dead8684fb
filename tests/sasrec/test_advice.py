from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sasrec_tasks.sasrec.advice import advised_max_len, advised_sizes


@pytest.mark.parametrize(
    ("num_items", "sizes"),
    [
        (2, (50, 2, 1)),
        (9_999, (50, 2, 1)),
        (10_000, (100, 2, 1)),
        (100_000, (100, 2, 1)),
        (100_001, (128, 3, 2)),
        (10_000_000, (128, 3, 2)),
    ],
)
def test_sizes_grow_with_the_catalogue(num_items: int, sizes: tuple[int, int, int]) -> None:
    assert advised_sizes(num_items) == sizes


@given(lengths=st.lists(st.integers(0, 400), min_size=1, max_size=60))
def test_max_len_covers_nine_histories_of_ten_unless_they_are_very_long(lengths: list[int]) -> None:
    advised = advised_max_len(np.array(lengths))
    assert 20 <= advised <= 200
    covered = np.mean(np.array(lengths) <= advised)
    assert covered >= 0.9 or advised == 200
    assert advised == 20 or np.mean(np.array(lengths) < advised) < 0.9 + 1 / len(lengths)


@pytest.mark.parametrize(
    ("lengths", "advised"),
    [([], 20), ([3] * 10, 20), ([70] * 10, 70), ([70] * 9 + [5_000], 70), ([70] * 5 + [5_000] * 5, 200)],
)
def test_a_few_very_long_histories_do_not_lengthen_the_rest(lengths: list[int], advised: int) -> None:
    assert advised_max_len(np.array(lengths, dtype=np.int64)) == advised
