from __future__ import annotations

import time
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
from sasrec_tasks.sasrec.ranking import (
    Scorer,
    candidates,
    constant_scorer,
    encode,
    model_scorer,
    rank_all,
    rank_sampled,
    sample_k,
    sample_unseen,
    top_k,
)
from sasrec_tasks.sasrec.sequences import HeldOut, LeaveLastTwoOut, Sequences

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]

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
    for ranks in (*rank_all(score, nobody), rank_sampled(score, nobody, np.empty((0, 3), dtype=np.int64))):
        assert len(ranks) == 0


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


@given(users=users_scored, k=st.integers(1, NUM_ITEMS + 3))
@settings(deadline=None)
def test_top_k_equals_sorting_the_unseen_items(held_out: MakeHeldOut, users: list[User], k: int) -> None:
    scores, targets = unpack(users, held_out)
    best, items = top_k(scorer(scores), targets.seen, np.arange(len(users)), k)
    for row, (_, seen, of_user) in enumerate(users):
        candidates = set(range(1, NUM_ITEMS + 1)) - set(seen)
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


def test_a_constant_scorer_is_not_changed_by_ranking(held_out: MakeHeldOut) -> None:
    scores = np.array([9, 1, 3, 2], dtype=np.float32)
    rank_all(constant_scorer(scores), held_out([1], [[2]]))
    assert scores.tolist() == [9, 1, 3, 2]


@pytest.mark.parametrize("device", DEVICES)
def test_encode_equals_each_user_alone(
    random_model: ModelFactory, random_split: LeaveLastTwoOut, device: str
) -> None:
    model = random_model(max_len=6, dropout_rate=0.5).to(device).train()
    users = encode(model, random_split.whole)
    model.eval()
    for user, row in enumerate(random_split.whole.last(6).padded()):
        items = torch.from_numpy(row[row > 0])[None].to(device)
        expected = model(items)[0, -1] if items.numel() else torch.zeros(8, device=device)
        torch.testing.assert_close(users[user], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("tokens", [1, 7, 40])
def test_encode_reads_no_more_slots_at_once_than_allowed(
    random_model: ModelFactory, random_split: LeaveLastTwoOut, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model(max_len=15)
    expected = encode(model, random_split.whole)
    shapes: list[tuple[int, int]] = []
    model.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    monkeypatch.setattr(ranking, "ENCODE_SLOTS", tokens)
    torch.testing.assert_close(encode(model, random_split.whole), expected, atol=1e-5, rtol=0)
    assert all(rows == 1 or rows * width <= tokens for rows, width in shapes)
    assert sum(rows for rows, _ in shapes) == (random_split.whole.lengths > 0).sum()


def test_model_scores_are_dot_products_with_the_shared_embedding(
    random_model: ModelFactory, sequences: Make
) -> None:
    model = random_model()
    with torch.no_grad():
        expected = model(torch.tensor([[4, 9, 2]]))[0, -1] @ model.item_embedding.weight.T
    scores = model_scorer(model, sequences([[1], [4, 9, 2]]))(np.array([1]))
    torch.testing.assert_close(scores[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["item_embedding.weight", "blocks.0.attention.qkv.weight"])
def test_weights_that_are_not_finite_are_refused(
    random_model: ModelFactory, sequences: Make, where: str, value: float
) -> None:
    model = random_model()
    with torch.no_grad():
        model.get_parameter(where)[2] = value
    with pytest.raises(FloatingPointError, match="not finite"):
        model_scorer(model, sequences([[1, 3]]))


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


def test_candidates_are_all_but_padding_and_what_was_seen(sequences: Make) -> None:
    score = constant_scorer(np.array([9, 1, 3, 2], dtype=np.float32))
    every = candidates(score, None, np.arange(2))
    assert every.tolist() == [[-np.inf, 1, 3, 2]] * 2
    assert candidates(score, sequences([[2], []]), np.arange(2)).tolist() == [
        [-np.inf, 1, -np.inf, 2],
        [-np.inf, 1, 3, 2],
    ]
