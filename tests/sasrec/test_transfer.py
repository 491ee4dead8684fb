"""Weights that are carried over: the same model for what it knows, and a sensible place for what it does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from sasrec_tasks.sasrec.fit import build
from sasrec_tasks.sasrec.model_config import SASRecConfig
from sasrec_tasks.sasrec.scoring import model_scorer
from sasrec_tasks.sasrec.sequences import Sequences
from sasrec_tasks.sasrec.transfer import carry_over, fits


def histories(*rows: list[int]) -> Sequences:
    items = np.array([item for row in rows for item in row], np.int32)
    offsets = np.cumsum([0, *map(len, rows)])
    return Sequences.from_offsets(offsets, items, np.ones(len(items), np.float32))


def sized(num_items: int, **others: Any) -> SASRecConfig:
    return SASRecConfig(num_items=num_items, hidden_units=8, max_len=6, **others)


@pytest.mark.parametrize(
    "others", [{}, {"blocks": "gated", "positions": "rotary", "conv_width": 3, "temperature": 0.1}]
)
def test_known_items_score_as_before_whatever_their_numbers(others: dict[str, Any]) -> None:
    earlier = build(sized(6, **others), 1)
    model = build(sized(5, **others), 2)
    index = np.array([0, 6, 2, 0, 1, 3])  # item 3 is new; the earlier 4 and 5 are gone
    carry_over(model, earlier, index, histories([1, 2], [4, 5]))
    own = model_scorer(model, histories([1, 2, 4], [5]))(np.arange(2))
    theirs = model_scorer(earlier, histories([6, 2, 1], [3]))(np.arange(2))
    known = [1, 2, 4, 5]
    torch.testing.assert_close(own[:, known], theirs[:, index[known]])


def test_a_new_item_begins_as_the_mean_of_those_beside_it() -> None:
    earlier, model = build(sized(3), 1), build(sized(5), 2)
    index = np.array([0, 1, 2, 3, 0, 0])  # 4 and 5 are new
    new = carry_over(model, earlier, index, histories([1, 4, 2], [3], [4, 3], [5, 4]))
    assert new == 2
    old = earlier.item_embedding.weight
    torch.testing.assert_close(model.item_embedding.weight[4], (old[1] + old[2] + old[3]) / 3)
    torch.testing.assert_close(model.item_embedding.weight[5], old[1:].mean(0))  # beside a new one only
    assert not model.item_embedding.weight[0].any()


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_item_vectors_keep_a_share_and_all_else_is_carried_over(share: float) -> None:
    earlier, fresh, model = build(sized(3), 1), build(sized(4), 2), build(sized(4), 2)
    carry_over(model, earlier, np.array([0, 3, 1, 2, 0]), histories([4, 1]), item_share=share)
    old, own, found = (each.item_embedding.weight for each in (earlier, fresh, model))
    expected = share * old[[0, 3, 1, 2, 3]] + (1 - share) * own  # item 4 is new, and begins as item 1
    torch.testing.assert_close(found, expected)
    assert not found[0].any()
    others = dict(earlier.named_parameters())
    for name, weights in model.named_parameters():
        if name != "item_embedding.weight":
            torch.testing.assert_close(weights, others[name])


def test_the_earlier_model_is_left_as_it_is() -> None:
    earlier, model = build(sized(3), 1), build(sized(3), 2)
    carry_over(model, earlier, np.arange(4), histories([1, 2]))
    with torch.no_grad():
        for weights in model.parameters():
            weights.zero_()
    assert all(
        weights.any() for name, weights in earlier.named_parameters() if name.endswith("embedding.weight")
    )


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ({}, True),
        ({"dropout_rate": 0.5}, True),
        ({"attention_dropout": False}, True),
        ({"num_blocks": 3}, False),
        ({"positions": "rotary"}, False),
        ({"temperature": 0.1}, False),
    ],
)
def test_what_fits(others: dict[str, Any], expected: bool) -> None:
    assert fits(sized(9, **others), sized(5)) is expected
    if not expected:
        with pytest.raises(ValueError, match="do not fit"):
            carry_over(build(sized(5, **others), 0), build(sized(5), 0), np.arange(6), histories([1, 2]))
