from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sasrec_tasks.sasrec import ranking
from sasrec_tasks.sasrec.metrics import MISS, Ranks, per_user
from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.ranking import Placed, rank, rank_all, rank_constant, rank_sampled
from sasrec_tasks.sasrec.scoring import Scorer, constant_scorer, model_scorer
from sasrec_tasks.sasrec.sequences import HeldOut, LeaveLastTwoOut, Sequences
from sasrec_tasks.sasrec.unseen import sample_unseen

Scores = npt.NDArray[np.float32]
Make = Callable[..., Sequences]
MakeHeldOut = Callable[..., HeldOut]
ModelFactory = Callable[..., SASRec]

NUM_ITEMS = 8
user = st.tuples(
    st.integers(1, NUM_ITEMS),  # target
    st.lists(st.integers(1, NUM_ITEMS), max_size=6),  # seen
    st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 2.0]), min_size=NUM_ITEMS + 1, max_size=NUM_ITEMS + 1),
)
User = tuple[int, list[int], list[float]]
users_scored = st.lists(user, min_size=1, max_size=6)


def scorer(scores: Scores) -> Scorer:
    return lambda rows: torch.from_numpy(scores[rows])


def unpack(users: list[User], held_out: MakeHeldOut) -> tuple[Scores, HeldOut]:
    targets, seen, scores = zip(*users, strict=True)
    return np.array(scores, dtype=np.float32), held_out(list(targets), list(seen))


def pairs(ranks: Ranks) -> list[tuple[int, int]]:
    return list(zip(ranks.better.tolist(), ranks.tied.tolist(), strict=True))


def reference(target: int, candidates: set[int], scores: list[float]) -> tuple[int, int]:
    """How many candidates are better than and tied with the target, one at a time."""
    if target not in candidates or scores[target] == -np.inf:
        return MISS, 0
    others = candidates - {target}
    better = sum(scores[item] > scores[target] for item in others)
    return better, sum(scores[item] == scores[target] for item in others)


@given(users=users_scored)
@settings(deadline=None, max_examples=100)
def test_rank_all_equals_an_item_by_item_reference(held_out: MakeHeldOut, users: list[User]) -> None:
    scores, targets = unpack(users, held_out)
    served, with_seen = rank_all(scorer(scores), targets)
    items = set(range(1, NUM_ITEMS + 1))
    assert pairs(served) == [reference(target, items - set(seen), row) for target, seen, row in users]
    assert pairs(with_seen) == [reference(target, items, row) for target, _, row in users]


def test_rank_all_equals_argsort_over_many_blocks_of_users(held_out: MakeHeldOut) -> None:
    random = np.random.default_rng(0)
    scores = random.permuted(np.tile(np.arange(51, dtype=np.float32), (700, 1)), axis=1)
    targets = random.integers(1, 51, size=700)
    _, with_seen = rank_all(scorer(scores), held_out(targets.tolist(), [[]] * 700))
    order = np.argsort(-scores[:, 1:], axis=1) + 1
    assert with_seen.better.tolist() == np.argmax(order == targets[:, None], axis=1).tolist()
    assert not with_seen.tied.any()


def test_a_target_seen_before_is_a_miss_only_where_seen_items_are_left_out(held_out: MakeHeldOut) -> None:
    scores = np.array([0, 9, 1, 2], dtype=np.float32)
    served, with_seen = rank_all(constant_scorer(scores), held_out([1], [[1, 2]]))
    assert per_user(served) == {"hr@10": [0], "ndcg@10": [0], "mrr": [0]}
    assert per_user(with_seen)["hr@10"] == [1]
    assert pairs(with_seen) == [(0, 0)]


def test_a_target_that_cannot_be_recommended_is_a_miss_however_few_the_items(held_out: MakeHeldOut) -> None:
    scores = np.array([0, -np.inf, 1, 2], dtype=np.float32)
    negatives = np.array([[2, 3]])
    target = held_out([1], [[]])
    for ranks in (
        *rank_all(constant_scorer(scores), target),
        rank_sampled(constant_scorer(scores), target, negatives),
    ):
        assert per_user(ranks) == {"hr@10": [0], "ndcg@10": [0], "mrr": [0]}


def test_users_without_a_history_miss(random_model: ModelFactory, held_out: MakeHeldOut) -> None:
    targets = held_out([3, 3], [[], [1]])
    for ranks in rank_all(model_scorer(random_model(), targets.history), targets):
        assert ranks.better[0] == MISS
        assert ranks.better[1] < 30


def test_ranking_nobody_gives_no_ranks(held_out: MakeHeldOut) -> None:
    nobody = held_out([], [])
    score = constant_scorer(np.ones(4, dtype=np.float32))
    none = np.empty((0, 3), dtype=np.int64)
    for ranks in (*rank_all(score, nobody), rank_sampled(score, nobody, none)):
        assert len(ranks) == 0
    for placed in (
        rank(score, nobody, none, 3),
        rank_constant(np.ones(4, dtype=np.float32), nobody, none, 3),
    ):
        assert placed.best.shape == (0, 3)
        assert len(placed.served) == 0


def test_constant_scores_get_what_chance_gets(held_out: MakeHeldOut, sequences: Make) -> None:
    score = constant_scorer(np.zeros(501, dtype=np.float32))
    targets = held_out([1, 250, 500], [[], [], []])
    negatives = sample_unseen(sequences([[1], [250], [500]]), 500, 100, random_state=0)
    assert per_user(rank_sampled(score, targets, negatives))["hr@10"] == pytest.approx([10 / 101] * 3)
    served, _ = rank_all(score, targets)
    assert per_user(served)["hr@10"] == pytest.approx([10 / 500] * 3)


@given(users=users_scored, data=st.data())
@settings(deadline=None)
def test_rank_sampled_equals_an_item_by_item_reference(
    held_out: MakeHeldOut, users: list[User], data: st.DataObject
) -> None:
    scores, targets = unpack(users, held_out)
    expected, negatives = [], np.zeros((len(users), 4), dtype=np.int64)
    for row, (target, _, of_user) in enumerate(users):
        others = [item for item in range(1, NUM_ITEMS + 1) if item != target]
        chosen = data.draw(st.lists(st.sampled_from(others), unique=True, max_size=4))
        negatives[row, : len(chosen)] = chosen
        expected.append(reference(target, {target, *chosen}, of_user))
    assert pairs(rank_sampled(scorer(scores), targets, negatives)) == expected


def negatives_of(
    targets: HeldOut, num_items: int, count: int, random: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Items other than the target, the same one perhaps twice, and padding."""
    drawn = random.integers(0, num_items, size=(len(targets), count))
    return np.where(drawn >= targets.targets[:, None], drawn + 1, drawn) * (drawn > 0)


def equal(one: Placed, other: Placed) -> bool:
    ranks = all(
        pairs(getattr(one, name)) == pairs(getattr(other, name))
        for name in ("sampled", "served", "with_seen")
    )
    return ranks and np.array_equal(one.best, other.best)


@given(users=users_scored, k=st.integers(0, NUM_ITEMS + 2))
@settings(deadline=None)
def test_all_at_once_is_what_each_is_alone(held_out: MakeHeldOut, users: list[User], k: int) -> None:
    scores, targets = unpack(users, held_out)
    negatives = negatives_of(targets, NUM_ITEMS, 3, np.random.default_rng(0))
    placed = rank(scorer(scores), targets, negatives, k)
    served, with_seen = rank_all(scorer(scores), targets)
    assert pairs(placed.served) == pairs(served)
    assert pairs(placed.with_seen) == pairs(with_seen)
    assert pairs(placed.sampled) == pairs(rank_sampled(scorer(scores), targets, negatives))
    for best, (_, seen, row) in zip(placed.best.tolist(), users, strict=True):
        unseen = {item for item in range(1, NUM_ITEMS + 1) if item not in seen and row[item] > -np.inf}
        found = [item for item in best if item]
        assert len(best) == k
        assert len(set(found)) == len(found) == min(k, len(unseen))
        assert sorted((row[item] for item in unseen), reverse=True)[:k] == [row[item] for item in found]


@given(
    users=users_scored,
    of_all=st.lists(
        st.sampled_from([-np.inf, -1.0, 0.0, 2.0]), min_size=NUM_ITEMS + 1, max_size=NUM_ITEMS + 1
    ),
    k=st.integers(0, NUM_ITEMS + 2),
)
@settings(deadline=None)
def test_scores_that_all_users_have_are_ranked_as_any_others(
    held_out: MakeHeldOut, users: list[User], of_all: list[float], k: int
) -> None:
    _, targets = unpack(users, held_out)
    scores = np.array(of_all, dtype=np.float32)
    negatives = negatives_of(targets, NUM_ITEMS, 3, np.random.default_rng(0))
    found, expected = (
        rank_constant(scores, targets, negatives, k),
        rank(constant_scorer(scores), targets, negatives, k),
    )
    values = np.where(np.arange(len(scores)) > 0, scores, -np.inf)
    assert np.array_equal(
        values[found.best], values[expected.best]
    )  # which of the same score comes first is free
    assert equal(found, Placed(**{**vars(expected), "best": found.best}))


def test_many_users_and_tiles_rank_the_same(held_out: MakeHeldOut, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    scores = random.permutation(300).astype(np.float32)  # no two the same
    targets = held_out(
        random.integers(1, 300, size=900).tolist(),
        [random.integers(1, 300, size=random.integers(0, 40)).tolist() for _ in range(900)],
    )
    negatives = negatives_of(targets, 299, 20, random)
    whole = rank(constant_scorer(scores), targets, negatives, 10)
    monkeypatch.setattr(ranking, "TILE", 1000)
    monkeypatch.setattr(ranking, "USERS_AT_ONCE", 77)
    assert equal(rank(constant_scorer(scores), targets, negatives, 10), whole)
    assert equal(rank_constant(scores, targets, negatives, 10), whole)


def test_a_constant_scorer_is_not_changed_by_ranking(held_out: MakeHeldOut) -> None:
    scores = np.array([9, 1, 3, 2], dtype=np.float32)
    rank_all(constant_scorer(scores), held_out([1], [[2]]))
    assert scores.tolist() == [9, 1, 3, 2]


def test_memory_mapped_sequences_rank_the_same(
    random_model: ModelFactory, random_split: LeaveLastTwoOut, mapped: Callable[[Sequences], Sequences]
) -> None:
    model = random_model()
    want = random_split.test
    with warnings.catch_warnings(action="error"):
        got = LeaveLastTwoOut.of(mapped(random_split.whole)).test
        for on_disk, in_memory in zip(
            rank_all(model_scorer(model, got.history), got),
            rank_all(model_scorer(model, want.history), want),
            strict=True,
        ):
            assert pairs(on_disk) == pairs(in_memory)
        drawn = sample_unseen(got.seen, 30, 5, random_state=0)
    assert np.array_equal(drawn, sample_unseen(want.seen, 30, 5, random_state=0))
