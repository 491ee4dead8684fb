from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sasrec_tasks.sasrec.negatives import Negatives, NegativeSampling
from sasrec_tasks.sasrec.sequences import Sequences

NUM_ITEMS = 7
Make = Callable[..., Sequences]
histories = st.lists(st.lists(st.integers(1, NUM_ITEMS), max_size=12), min_size=1, max_size=5)


def drawn(
    sampling: NegativeSampling, number: int, targets: list[int], own: Sequences, seed: int = 0
) -> np.ndarray:
    rows = np.arange(len(targets)) % len(own)
    negatives = Negatives(sampling=sampling, number=number, num_items=NUM_ITEMS)
    return negatives.draw(np.array(targets), rows, own, np.random.default_rng(seed))


@given(users=histories, data=st.data(), number=st.integers(1, 9))
@settings(deadline=None)
def test_unseen_negatives_are_what_a_user_lacks(
    sequences: Make, users: list[list[int]], data: st.DataObject, number: int
) -> None:
    targets = [data.draw(st.integers(1, NUM_ITEMS)) for _ in range(3 * len(users))]
    found = drawn("unseen", number, targets, sequences(users))
    assert found.shape == (len(targets), number)
    assert (found >= 1).all()
    assert (found <= NUM_ITEMS).all()
    for position, target in enumerate(targets):
        row = position % len(users)
        own = {*users[row], *targets[row :: len(users)]}
        avoided = own if len(own) < NUM_ITEMS else {target}
        assert not avoided & set(found[position].tolist())


def test_unseen_negatives_are_uniform_over_what_a_user_lacks(sequences: Make) -> None:
    own = sequences([[2, 5, 2], [7, 1, 3, 4, 6]])
    found = drawn("unseen", 60, [5, 6] * 1000, own)
    assert np.bincount(found[::2].ravel(), minlength=8) == pytest.approx(
        np.array([0, 12, 0, 12, 12, 0, 12, 12]) * 1000, rel=0.05
    )
    assert np.bincount(found[1::2].ravel(), minlength=8) == pytest.approx(
        np.array([0, 0, 30, 0, 0, 30, 0, 0]) * 1000, rel=0.05
    )


@pytest.mark.parametrize("sampling", ["other", "unseen"])
@pytest.mark.parametrize("target", [1, 4, 7])
def test_negatives_are_uniform_over_the_other_items(
    sequences: Make, sampling: NegativeSampling, target: int
) -> None:
    """As unseen, of somebody who has had nothing else."""
    counts = np.bincount(drawn(sampling, 60, [target] * 1000, sequences([[]])).ravel(), minlength=8)
    assert counts[[0, target]].tolist() == [0, 0]
    assert np.delete(counts, [0, target]) == pytest.approx(np.full(6, 10_000), abs=500)


def test_shared_negatives_are_distinct_and_uniform_over_all_items(sequences: Make) -> None:
    own = sequences([[1]])
    draws = [drawn("shared", 3, [1], own, seed) for seed in range(10_000)]
    assert all(len(set(each.tolist())) == 3 for each in draws)
    counts = np.bincount(np.concatenate(draws), minlength=8)
    assert counts[0] == 0
    assert counts[1:] == pytest.approx(np.full(7, 30_000 / 7), rel=0.05)
    assert sorted(drawn("shared", 30, [1], own)) == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("sampling", ["other", "unseen", "shared"])
def test_where_none_are_wanted_none_are_drawn(sequences: Make, sampling: NegativeSampling) -> None:
    assert drawn(sampling, 0, [1, 2], sequences([[1, 2]])).size == 0


def test_a_catalogue_of_one_item_has_no_negatives() -> None:
    Negatives(sampling="other", number=0, num_items=1)
    with pytest.raises(ValueError, match="at least 2 items, not 1"):
        Negatives(sampling="other", number=1, num_items=1)
