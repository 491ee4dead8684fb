from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sasrec_tasks.sasrec.losses import LOSSES, bce, mse

scores = st.floats(-20, 20, width=32)
positions = st.lists(
    st.tuples(scores, st.lists(scores, min_size=3, max_size=3), st.floats(0, 1, width=32)),
    min_size=1,
    max_size=8,
)
Positions = list[tuple[float, list[float], float]]


def tensors(rows: Positions) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    positive, negative, label = zip(*rows, strict=True)
    return torch.tensor(positive), torch.tensor(negative), torch.tensor(label)


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


@given(rows=positions)
def test_bce_is_the_soft_label_formula(rows: Positions) -> None:
    expected = [
        -(y * log_sigmoid(r) + (1 - y) * log_sigmoid(-r)) - sum(log_sigmoid(-n) for n in ns) / len(ns)
        for r, ns, y in rows
    ]
    assert float(bce(*tensors(rows))) == pytest.approx(sum(expected) / len(rows), rel=1e-4, abs=1e-5)


@given(rows=positions)
def test_mse_is_the_squared_error_to_rating_and_zero(rows: Positions) -> None:
    expected = [(r - y) ** 2 + sum(n**2 for n in ns) / len(ns) for r, ns, y in rows]
    assert float(mse(*tensors(rows))) == pytest.approx(sum(expected) / len(rows), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_negatives_weigh_the_same_whatever_their_number(name: str) -> None:
    positive = torch.tensor([0.3, -1.0], requires_grad=True)
    negative = torch.tensor([[0.5], [2.0]], requires_grad=True)
    label = torch.tensor([1.0, 0.2])
    once = torch.autograd.grad(LOSSES[name](positive, negative, label), [positive, negative])
    loss = LOSSES[name](positive, negative.expand(2, 7), label)
    seven_times = torch.autograd.grad(loss, [positive, negative])
    for one, seven in zip(once, seven_times, strict=True):
        torch.testing.assert_close(one, seven)


@pytest.mark.parametrize("score", [-1e4, 1e4])
def test_bce_stays_finite_at_extreme_scores(score: float) -> None:
    loss = bce(torch.tensor([score]), torch.tensor([[score]]), torch.tensor([0.5]))
    assert math.isfinite(float(loss))


@pytest.mark.parametrize("label", [0.0, 0.25, 1.0])
def test_bce_is_least_where_the_score_says_the_soft_label(label: float) -> None:
    candidates = torch.linspace(-8, 8, 321)
    losses = [bce(r[None], torch.zeros(1, 1), torch.tensor([label])) for r in candidates]
    best = float(torch.sigmoid(candidates[int(torch.stack(losses).argmin())]))
    assert best == pytest.approx(label, abs=0.02)
