from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sasrec_tasks.sasrec.largest import LEAST_PRODUCTS
from sasrec_tasks.sasrec.scoring import MOST_USERS, ScoresByVectors, constant_scorer
from sasrec_tasks.sasrec.sequences import HeldOut, Sequences
from sasrec_tasks.sasrec.top_k import sample_k, top_k

MakeHeldOut = Callable[..., HeldOut]
Make = Callable[..., Sequences]

NUM_ITEMS = 8
user = st.tuples(
    st.lists(st.integers(1, NUM_ITEMS), max_size=6),  # seen
    st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 2.0]), min_size=NUM_ITEMS + 1, max_size=NUM_ITEMS + 1),
)


@given(users=st.lists(user, min_size=1, max_size=6), k=st.integers(1, NUM_ITEMS + 3))
@settings(deadline=None)
def test_top_k_equals_sorting_the_unseen_items(
    sequences: Make, users: list[tuple[list[int], list[float]]], k: int
) -> None:
    scores = np.array([of_user for _, of_user in users], dtype=np.float32)
    seen = sequences([items for items, _ in users])
    best, items = top_k(lambda rows: torch.from_numpy(scores[rows]), seen, np.arange(len(users)), k)
    for row, (left_out, of_user) in enumerate(users):
        candidates = set(range(1, NUM_ITEMS + 1)) - set(left_out)
        expected = sorted((of_user[i] for i in candidates if of_user[i] > -np.inf), reverse=True)[:k]
        listed = best[row].tolist()
        assert listed[: len(expected)] == expected
        assert all(score == -np.inf for score in listed[len(expected) :])
        chosen = items[row].tolist()[: len(expected)]
        assert len(set(chosen)) == len(chosen)
        assert set(chosen) <= candidates
        assert [of_user[item] for item in chosen] == expected


def test_top_k_with_nothing_to_leave_out_lists_seen_items_but_no_padding() -> None:
    _, items = top_k(constant_scorer(np.array([9, 1, 3, 2], dtype=np.float32)), None, np.arange(2), 3)
    assert items.tolist() == [[2, 3, 1]] * 2


def test_top_k_of_some_users_over_many_blocks(sequences: Make) -> None:
    scores = np.random.default_rng(0).permuted(np.tile(np.arange(41, dtype=np.float32), (900, 1)), axis=1)
    users = np.arange(0, 900, 2)
    seen = np.argsort(-scores[users, 1:], axis=1)[:, 0] + 1  # everyone's best
    best, items = top_k(
        lambda rows: torch.from_numpy(scores[rows]), sequences([[int(item)] for item in seen]), users, 5
    )
    expected = np.argsort(-scores[users, 1:], axis=1)[:, 1:6] + 1
    assert np.array_equal(items, expected)
    assert np.array_equal(best, np.take_along_axis(scores[users], expected, axis=1))


def test_of_very_many_items_the_best_are_those_of_all_scores() -> None:
    """Users with all kinds of histories: none, with padding, of many items, and some who have no scores."""
    random, k, users = np.random.default_rng(0), 3, MOST_USERS + 40
    items = k * LEAST_PRODUCTS + 500
    lengths = random.integers(0, 60, users)
    lengths[0] = items - 2
    seen = random.integers(0, items + 1, lengths.sum()).astype(np.int32)
    seen[: lengths[0]] = random.permutation(items)[: lengths[0]] + 1
    histories = Sequences.from_offsets(
        np.concatenate([[0], lengths.cumsum()]), seen, np.ones(len(seen), np.float32)
    )
    silent = torch.arange(users) % 7 == 3
    of_users, of_items = (random.standard_normal((n, 8)).astype(np.float32) for n in (users, items + 1))
    score = ScoresByVectors(torch.from_numpy(abs(of_users)), torch.from_numpy(of_items), silent)
    score._items[0] = 9.0  # padding would be everybody's best
    assert score.in_tiles(k)
    for left_out in (histories, None):
        best, found = top_k(score, left_out, np.arange(users), k)
        expected, theirs = top_k(lambda rows: score(rows), left_out, np.arange(users), k)
        np.testing.assert_allclose(best, expected, rtol=1e-5)
        listed = best > -np.inf
        assert np.array_equal(listed.sum(1) == 0, silent.numpy())
        assert np.array_equal(found[listed], theirs[listed])


def test_top_k_of_nobody() -> None:
    scores, items = top_k(constant_scorer(np.ones(4, dtype=np.float32)), None, np.arange(0), 2)
    assert scores.shape == items.shape == (0, 2)


SCORES = torch.tensor([[-torch.inf, 2.0, 0.0, 1.0, -torch.inf, -1.0]])


def draw(
    k: int, *, users: int = 1, temperature: float = 1.0, replace: bool = False, seed: int = 0
) -> torch.Tensor:
    """Indices (users, k) of items drawn by SCORES."""
    generators = [torch.Generator().manual_seed(1_000_000 * seed + user) for user in range(users)]
    scores = SCORES.repeat(users, 1)
    drawn, items = sample_k(scores, k, temperature=temperature, replace=replace, generators=generators)
    assert torch.equal(drawn, scores.gather(1, items))
    return items


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_items_are_drawn_as_often_as_the_softmax_of_their_scores_says(
    temperature: float, replace: bool
) -> None:
    items = draw(1, users=20_000, temperature=temperature, replace=replace)
    shares = torch.bincount(items.flatten(), minlength=6) / 20_000
    torch.testing.assert_close(shares, (SCORES[0] / temperature).softmax(0), atol=0.015, rtol=0)


def test_the_second_item_is_drawn_by_softmax_over_what_is_left() -> None:
    items = draw(2, users=40_000)
    second = items[items[:, 0] == 1][:, 1]
    left = SCORES[0].index_fill(0, torch.tensor([1]), -torch.inf).softmax(0)
    shares = torch.bincount(second, minlength=6) / len(second)
    torch.testing.assert_close(shares, left, atol=0.015, rtol=0)


def test_with_replacement_each_draw_is_independent_of_the_others() -> None:
    items = draw(2, users=40_000, replace=True)
    second = items[items[:, 0] == 1][:, 1]
    shares = torch.bincount(second, minlength=6) / len(second)
    torch.testing.assert_close(shares, SCORES[0].softmax(0), atol=0.015, rtol=0)


def test_without_replacement_items_are_distinct_and_what_cannot_be_drawn_comes_last() -> None:
    items = draw(6, users=500)
    assert all(sorted(row) == [0, 1, 2, 3, 4, 5] for row in items.tolist())
    assert all(set(row[4:]) == {0, 4} for row in items.tolist())


def test_with_replacement_more_items_can_be_drawn_than_there_are() -> None:
    items = draw(40, users=50, replace=True)
    assert items.shape == (50, 40)
    assert set(items.flatten().tolist()) == {1, 2, 3, 5}


@pytest.mark.parametrize("temperature", [1e-4, 1e-30, 5e-324])
def test_a_temperature_near_0_draws_the_ranking(temperature: float) -> None:
    assert draw(4, users=50, temperature=temperature).tolist() == [[1, 3, 2, 5]] * 50
    assert draw(3, users=50, temperature=temperature, replace=True).tolist() == [[1, 1, 1]] * 50


def test_a_high_temperature_draws_any_item_alike() -> None:
    shares = torch.bincount(draw(1, users=20_000, temperature=1e6).flatten(), minlength=6) / 20_000
    torch.testing.assert_close(shares, torch.tensor([0, 1, 1, 1, 0, 1]) / 4, atol=0.015, rtol=0)


def test_draws_follow_the_generator() -> None:
    assert torch.equal(draw(3, users=50, seed=1), draw(3, users=50, seed=1))
    assert not torch.equal(draw(3, users=50, seed=1), draw(3, users=50, seed=2))
