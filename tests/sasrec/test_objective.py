"""Shared negatives: whatever their order, a position's own target among them counts for nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sasrec_tasks.sasrec.losses import Loss
from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.objective import Objective, without_own


@given(
    targets=st.lists(st.integers(1, 30), min_size=1, max_size=20),
    negatives=st.lists(st.integers(1, 30), max_size=30, unique=True),
)
@settings(deadline=None)
def test_own_targets_are_masked_and_have_no_gradient(targets: list[int], negatives: list[int]) -> None:
    own, shared = torch.tensor(targets), torch.tensor(sorted(negatives), dtype=torch.int64)
    scores = torch.randn(len(own), len(shared), requires_grad=True)
    masked = without_own(scores.clone(), shared, own)
    is_own = shared == own[:, None]
    assert torch.equal(masked, scores.masked_fill(is_own, -torch.inf))
    masked.masked_fill(is_own, 0).square().sum().backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    assert torch.equal(scores.grad, (2 * scores.detach()).masked_fill(is_own, 0))


@pytest.mark.parametrize("loss", ["bce", "gbce", "mse", "sampled_softmax"])
def test_the_order_of_shared_negatives_does_not_matter(
    random_model: Callable[..., SASRec], loss: Loss
) -> None:
    model, objective = random_model(), Objective(loss=loss, gbce_t=0.5)
    hidden, targets = torch.randn(40, 8), torch.randint(1, 31, (40,))
    negatives = torch.randperm(30)[:10] + 1
    found = [
        objective(model, hidden, targets, some, torch.ones(40)) for some in (negatives, negatives.flip(0))
    ]
    torch.testing.assert_close(found[0], found[1])
