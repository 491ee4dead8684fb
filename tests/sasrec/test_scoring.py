from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from sasrec_tasks.sasrec import scoring
from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.scoring import (
    BLOCK_SCORES,
    LEAST_USERS,
    MOST_USERS,
    candidates,
    constant_scorer,
    encode,
    model_scorer,
    scored_blocks,
    users_at_once,
)
from sasrec_tasks.sasrec.sequences import LeaveLastTwoOut, Sequences

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]

Make = Callable[..., Sequences]
ModelFactory = Callable[..., SASRec]


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
    monkeypatch.setattr(scoring, "ENCODE_SLOTS", tokens)
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


def test_candidates_are_all_but_padding_and_what_was_seen(sequences: Make) -> None:
    score = constant_scorer(np.array([9, 1, 3, 2], dtype=np.float32))
    every = candidates(score, None, np.arange(2))
    assert every.tolist() == [[-np.inf, 1, 3, 2]] * 2
    assert candidates(score, sequences([[2], []]), np.arange(2)).tolist() == [
        [-np.inf, 1, -np.inf, 2],
        [-np.inf, 1, 3, 2],
    ]


def test_scores_of_one_block_are_those_of_any_other_cut_into_blocks(
    random_model: ModelFactory, random_split: LeaveLastTwoOut
) -> None:
    score = model_scorer(random_model(), random_split.whole)
    users = np.arange(len(random_split.whole))
    together = score(users).clone()
    for size in (1, 7, len(users)):
        for start in range(0, len(users), size):
            part = users[start : start + size]
            torch.testing.assert_close(score(part), together[part], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("items", "users"),
    [(1, MOST_USERS), (3_000, MOST_USERS), (1_000_000, BLOCK_SCORES // 1_000_000), (10**8, LEAST_USERS)],
)
def test_the_scores_of_a_block_fit_its_memory(items: int, users: int) -> None:
    assert users_at_once(items) == users


def test_blocks_are_all_users_in_order(random_model: ModelFactory, random_split: LeaveLastTwoOut) -> None:
    score = model_scorer(random_model(), random_split.whole)
    assert np.array_equal(np.concatenate([*scored_blocks(score, 1000)]), np.arange(1000))
    assert [*scored_blocks(score, 0)] == []


def test_some_items_are_scored_as_among_all(random_model: Callable[..., SASRec], sequences: Make) -> None:
    model, histories = random_model(), sequences([[1, 2, 3], [], [30]])
    some = np.array([0, 2, 7, 30])
    scores = model_scorer(model, histories)(np.arange(3)).clone()
    assert torch.allclose(model_scorer(model, histories, some)(np.arange(3))[:, 1:], scores[:, some[1:]])
