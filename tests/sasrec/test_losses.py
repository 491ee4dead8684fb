from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sasrec_tasks.sasrec import losses
from sasrec_tasks.sasrec.losses import bce, gbce, mse, sampled_softmax, softmax

scores = st.floats(-20, 20, width=32)
positions = st.lists(
    st.tuples(scores, st.lists(scores, min_size=3, max_size=3), st.floats(0, 1, width=32)),
    min_size=1,
    max_size=8,
)
Pointwise = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
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


@pytest.mark.parametrize("loss", [bce, mse])
def test_negatives_weigh_the_same_whatever_their_number(loss: Pointwise) -> None:
    positive = torch.tensor([0.3, -1.0], requires_grad=True)
    negative = torch.tensor([[0.5], [2.0]], requires_grad=True)
    label = torch.tensor([1.0, 0.2])
    once = torch.autograd.grad(loss(positive, negative, label), [positive, negative])
    of_seven = loss(positive, negative.expand(2, 7), label)
    seven_times = torch.autograd.grad(of_seven, [positive, negative])
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


@given(rows=positions, t=st.floats(0, 1))
def test_gbce_is_bce_with_the_positive_raised_to_beta(rows: Positions, t: float) -> None:
    """gSASRec, eq. 8 and 13; with t = 0, β is 1."""
    num_items, k = 31, 3
    rate = k / (num_items - 1)
    beta = rate * (t * (1 - 1 / rate) + 1 / rate)
    expected = [
        -(y * beta * log_sigmoid(r) + (1 - y) * log_sigmoid(-r) + sum(log_sigmoid(-n) for n in ns)) / (k + 1)
        for r, ns, y in rows
    ]
    found = float(gbce(*tensors(rows), num_items=num_items, t=t))
    assert found == pytest.approx(sum(expected) / len(rows), rel=1e-4, abs=1e-5)


def test_gbce_with_full_calibration_learns_true_probabilities() -> None:
    """Of 10 items one follows with probability .3: sampling 2 of 9 negatives must not raise the sigmoid."""
    torch.manual_seed(0)
    score = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.Adam([score], lr=0.05)
    for _ in range(600):
        follows = torch.rand(256) < 0.3
        drawn = torch.rand(256, 2) < 1 / 9  # a negative is this item, where another one followed
        loss = gbce(
            score.expand(256).masked_fill(~follows, torch.inf),
            score.expand(256, 2).masked_fill(~drawn | follows[:, None], -torch.inf),
            torch.ones(256),
            num_items=10,
            t=1.0,
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert float(score.sigmoid()) == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize("loss", [bce, mse])
def test_a_negative_that_is_the_target_counts_for_nothing(loss: Pointwise) -> None:
    negative = torch.tensor([[0.3, -torch.inf]], requires_grad=True)
    found = loss(torch.tensor([0.5]), negative, torch.tensor([1.0]))
    assert math.isfinite(float(found))
    (gradient,) = torch.autograd.grad(found, [negative])
    assert gradient[0, 1] == 0
    assert gradient[0, 0] != 0


def reference(
    hidden: torch.Tensor, items: torch.Tensor, targets: torch.Tensor, label: torch.Tensor
) -> torch.Tensor:
    scores = hidden @ items[1:].T
    return (label * torch.nn.functional.cross_entropy(scores, targets - 1, reduction="none")).mean()


@pytest.mark.parametrize("block_scores", [1, 40, 10**6])
def test_softmax_and_its_gradients_are_cross_entropys_whatever_the_block(
    monkeypatch: pytest.MonkeyPatch, block_scores: int
) -> None:
    monkeypatch.setattr(losses, "BLOCK_SCORES", block_scores)
    torch.manual_seed(0)
    hidden, items = torch.randn(7, 4, requires_grad=True), torch.randn(12, 4, requires_grad=True)
    targets, label = torch.randint(1, 12, (7,)), torch.rand(7)
    ours, theirs = (of(hidden, items, targets, label) for of in (softmax, reference))
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(
        torch.autograd.grad(2 * ours, [hidden, items]),
        torch.autograd.grad(2 * theirs, [hidden, items]),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    assert not torch.autograd.grad(softmax(hidden, items, targets, label), items)[0][0].any()  # padding


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_softmax_stays_finite_at_extreme_scores(scale: float) -> None:
    hidden = torch.full((2, 1), scale, requires_grad=True)
    loss = softmax(hidden, torch.tensor([[0.0], [1.0], [-1.0]]), torch.tensor([1, 2]), torch.ones(2))
    assert math.isfinite(float(loss))
    assert torch.autograd.grad(loss, [hidden])[0].isfinite().all()


def test_sampled_softmax_with_all_other_items_is_softmax() -> None:
    torch.manual_seed(0)
    scores, label = torch.randn(5, 9), torch.rand(5)
    targets = torch.randint(9, (5,))
    others = scores.scatter(1, targets[:, None], -torch.inf)
    found = sampled_softmax(scores.gather(1, targets[:, None])[:, 0], others, label, log_q=0.0)
    wanted = (label * torch.nn.functional.cross_entropy(scores, targets, reduction="none")).mean()
    torch.testing.assert_close(found, wanted)


def test_the_log_q_correction_makes_a_sample_stand_for_all_items() -> None:
    """Samples of 10 of 1,000 negatives: exp of (loss + positive) averages to the full sum."""
    torch.manual_seed(0)
    positive, others = torch.tensor([1.0]), torch.randn(1000)
    full = positive.exp() + others.exp().sum()
    drawn = torch.stack([others[torch.randperm(1000)[:10]] for _ in range(4000)])
    losses_ = torch.stack(
        [sampled_softmax(positive, row[None], torch.ones(1), log_q=math.log(10 / 1000)) for row in drawn]
    )
    assert float((losses_ + positive).exp().mean()) == pytest.approx(float(full), rel=0.03)
