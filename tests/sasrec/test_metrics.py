from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.retrieval import (
    retrieval_hit_rate,
    retrieval_normalized_dcg,
    retrieval_reciprocal_rank,
)

from sasrec_tasks.sasrec.metrics import MISS, Ranks, bootstrap, interval, per_user


def ranks(*pairs: tuple[int, int]) -> Ranks:
    table = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return Ranks(better=table[:, 0], tied=table[:, 1])


def gains(rank: int, k: int) -> tuple[float, float, float]:
    return float(rank <= k), 1 / math.log2(rank + 1) if rank <= k else 0.0, 1 / rank


@given(
    pairs=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 100)), min_size=1, max_size=8),
    k=st.integers(1, 20),
)
@settings(deadline=None)
def test_a_tie_counts_at_its_mean_over_all_orders(pairs: list[tuple[int, int]], k: int) -> None:
    got = per_user(ranks(*pairs), k)
    for user, (better, tied) in enumerate(pairs):
        possible = [gains(rank, k) for rank in range(better + 1, better + tied + 2)]
        hr, ndcg, mrr = np.mean(possible, axis=0)
        assert got[f"hr@{k}"][user] == pytest.approx(hr, abs=1e-9)
        assert got[f"ndcg@{k}"][user] == pytest.approx(ndcg, abs=1e-9)
        assert got["mrr"][user] == pytest.approx(mrr, abs=1e-9)


@given(
    scores=st.lists(
        st.lists(st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0]), min_size=12, max_size=12),
        min_size=1,
        max_size=4,
    ),
    k=st.sampled_from([1, 5, 10]),
)
@settings(deadline=None, max_examples=50)
def test_metrics_equal_those_of_torchmetrics(scores: list[list[float]], k: int) -> None:
    """Value by value, the target first of 12 candidates; a tie is its mean over all places it can take.

    Scores are positive: torchmetrics takes others for items that were not retrieved.
    """
    table = torch.tensor(scores)
    better = (table > table[:, :1]).sum(1).numpy()
    tied = (table == table[:, :1]).sum(1).numpy() - 1
    got = per_user(Ranks(better=better, tied=tied), k)
    relevant = torch.zeros(12, dtype=torch.bool)
    relevant[0] = True
    for user, row in enumerate(table):
        places = torch.linspace(-0.01, 0.01, int(tied[user]) + 1)  # the target above or below its equals
        equals = row == row[0]
        values = []
        for place in range(int(tied[user]) + 1):
            spread = row.clone()
            others = places[torch.arange(len(places)) != place]
            spread[equals] += torch.cat([places[place : place + 1], others])
            values.append(
                (
                    retrieval_hit_rate(spread, relevant, top_k=k),
                    retrieval_normalized_dcg(spread, relevant, top_k=k),
                    retrieval_reciprocal_rank(spread, relevant),
                )
            )
        wanted = np.mean(values, axis=0)
        assert [got[name][user] for name in (f"hr@{k}", f"ndcg@{k}", "mrr")] == pytest.approx(
            wanted, abs=1e-6
        )


def test_a_model_that_orders_by_item_id_gains_nothing_over_chance() -> None:
    """Constant scores: whatever the id of the target, every one of 100 others ties with it."""
    constant = per_user(ranks(*[(0, 100)] * 5))
    assert constant["hr@10"] == pytest.approx([10 / 101] * 5)


def test_untied_ranks_have_the_papers_gains() -> None:
    got = per_user(ranks((0, 0), (2, 0), (9, 0), (10, 0)))
    assert got["hr@10"].tolist() == [1, 1, 1, 0]
    assert got["ndcg@10"] == pytest.approx([1, 1 / 2, 1 / math.log2(11), 0])
    assert got["mrr"] == pytest.approx([1, 1 / 3, 1 / 10, 1 / 11])


def test_a_miss_scores_zero_next_to_any_other_rank() -> None:
    for figures in per_user(ranks((0, 0), (MISS, 0), (1, 2))).values():
        assert figures[1] == 0
        assert (figures[[0, 2]] > 0).all()
    assert per_user(ranks((MISS, 0)))["mrr"].tolist() == [0]


def test_no_users_give_no_figures() -> None:
    assert [len(figures) for figures in per_user(ranks()).values()] == [0, 0, 0]


def figures(users: int = 200) -> dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    random = np.random.default_rng(0)
    return {"a": random.random(users), "b": random.random(users)}


def test_bootstrap_draws_the_same_users_for_every_column() -> None:
    values = figures()
    names, means = bootstrap(
        {**values, "sum": values["a"] + values["b"], "a again": values["a"]}, samples=50, random_state=1
    )
    assert names == ["a", "b", "sum", "a again"]
    np.testing.assert_allclose(means[:, 2], means[:, 0] + means[:, 1])
    np.testing.assert_allclose(means[:, 3], means[:, 0])


def test_bootstrap_means_spread_like_the_standard_error() -> None:
    values = figures()
    _, means = bootstrap(values, samples=4000, random_state=1)
    assert means[:, 0].mean() == pytest.approx(values["a"].mean(), abs=0.002)
    assert means[:, 0].std() == pytest.approx(values["a"].std() / 200**0.5, rel=0.06)


def test_bootstrap_is_drawn_from_its_random_state() -> None:
    first, same, other = (bootstrap(figures(), samples=5, random_state=seed)[1] for seed in (1, 1, 2))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


@given(seed=st.integers(0, 1000), users=st.integers(2, 60))
@settings(deadline=None, max_examples=40)
def test_interval_contains_the_mean(seed: int, users: int) -> None:
    values = np.random.default_rng(seed).random(users)
    _, means = bootstrap({"a": values}, samples=300, random_state=seed)
    low, high = interval(means[:, 0])
    assert low < values.mean() < high


def test_interval_leaves_out_a_fortieth_on_each_side() -> None:
    assert interval(np.arange(1001) / 1000) == pytest.approx((0.025, 0.975))
