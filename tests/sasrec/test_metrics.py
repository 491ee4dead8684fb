from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
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
from sasrec_tasks.sasrec.ranking import rank_all, rank_sampled
from sasrec_tasks.sasrec.scoring import constant_scorer
from sasrec_tasks.sasrec.sequences import HeldOut
from sasrec_tasks.sasrec.unseen import sample_unseen


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
    users=st.lists(
        st.tuples(
            st.lists(st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0]), min_size=12, max_size=12),
            st.sets(st.integers(2, 12), max_size=8),  # seen
        ),
        min_size=1,
        max_size=4,
    ),
    k=st.sampled_from([1, 5, 10]),
)
@settings(deadline=None, max_examples=50)
def test_rankings_equal_those_of_torchmetrics(
    held_out: Callable[..., HeldOut], users: list[tuple[list[float], set[int]]], k: int
) -> None:
    """Value by value, item 1 the target of 12; a tie is its mean over all places it can take.

    Scores are positive: torchmetrics takes others for items that were not retrieved.
    """
    table = torch.tensor(
        [[9.0, *scores] for scores, _ in users]
    )  # padding scores best, and counts for nothing
    targets = held_out([1] * len(users), [sorted(seen) for _, seen in users])
    served, with_seen = (
        per_user(ranks, k) for ranks in rank_all(lambda rows: table[torch.from_numpy(rows)].clone(), targets)
    )
    for user, (scores, seen) in enumerate(users):
        unseen = [score for item, score in enumerate(scores, start=1) if item not in seen]
        for got, candidates in ((served, unseen), (with_seen, scores)):
            figures = [got[name][user] for name in (f"hr@{k}", f"ndcg@{k}", "mrr")]
            assert figures == pytest.approx(by_torchmetrics(torch.tensor(candidates), k), abs=1e-6)


def by_torchmetrics(scores: torch.Tensor, k: int) -> npt.NDArray[np.float64]:
    """Hit rate, NDCG and reciprocal rank of the first candidate, over all orders of those that tie with it."""
    relevant = torch.zeros(len(scores), dtype=torch.bool)
    relevant[0] = True
    equals = scores == scores[0]
    places = torch.linspace(-0.01, 0.01, int(equals.sum()))  # the target above or below its equals
    values = []
    for place in range(len(places)):
        spread = scores.clone()
        others = places[torch.arange(len(places)) != place]
        spread[equals] += torch.cat([places[place : place + 1], others])
        values.append(
            (
                retrieval_hit_rate(spread, relevant, top_k=k),
                retrieval_normalized_dcg(spread, relevant, top_k=k),
                retrieval_reciprocal_rank(spread, relevant),
            )
        )
    means: npt.NDArray[np.float64] = np.mean(values, axis=0)
    return means


@pytest.mark.parametrize("sign", [1, -1, 0])
def test_ordering_by_item_id_or_not_at_all_gains_nothing_over_chance(
    held_out: Callable[..., HeldOut], sign: int
) -> None:
    targets = np.random.default_rng(0).integers(1, 501, size=4000)
    held = held_out(targets.tolist(), [[]] * len(targets))
    score = constant_scorer(sign * np.arange(501, dtype=np.float32))
    events = held_out(targets.tolist(), [[int(target)] for target in targets]).seen
    negatives = sample_unseen(events, 500, 100, random_state=0)
    sampled = per_user(rank_sampled(score, held, negatives))["hr@10"]
    assert sampled.mean() == pytest.approx(10 / 101, abs=0.015)
    full, _ = rank_all(score, held)
    assert per_user(full)["hr@10"].mean() == pytest.approx(10 / 500, abs=0.008)


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
