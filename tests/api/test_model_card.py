"""The card of a notebook's model says what it was trained on, how it ranks, and its limits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from sasrec_tasks.api import SequentialRecommender
from sasrec_tasks.api.model_card import as_markdown

Train = Callable[..., SequentialRecommender]


@pytest.fixture(scope="module")
def validated(train: Train, circle: pd.DataFrame) -> SequentialRecommender:
    held_out = circle[circle.groupby("USER_ID").cumcount(ascending=False) == 0]
    return train(circle, validation=held_out, epochs=3)


def test_it_tells_data_training_and_figures(validated: SequentialRecommender, circle: pd.DataFrame) -> None:
    card = validated.scorer.card
    users = circle["USER_ID"].nunique()
    assert card["data"] == {
        "users": users,
        "items": circle["ITEM_ID"].nunique(),
        "events": len(circle) - users,
        "period": (str(circle["TIMESTAMP"].min()), str(circle["TIMESTAMP"].max())),
        "validation_events": users,
    }
    assert card["training"]["epochs"] == 3
    assert card["sizes"] == validated.scorer.model.config.as_dict()
    for figures in card["metrics"].values():
        for metric in ("hr@10", "ndcg@10", "mrr"):
            low, high = figures["ci95"][metric]
            assert 0 <= low <= figures[metric] <= high <= 1


def test_without_validation_it_has_no_figures_and_says_so(learned: SequentialRecommender) -> None:
    assert learned.scorer.card["metrics"] is None
    assert "trained without validation interactions" in as_markdown(learned.scorer.card)


def test_it_lies_beside_what_is_saved_and_comes_back(
    validated: SequentialRecommender, tmp_path: Path
) -> None:
    validated.save(tmp_path)
    card = json.loads((tmp_path / "model_card.json").read_text(encoding="utf-8"))
    text = (tmp_path / "model_card.md").read_text(encoding="utf-8")
    assert text == as_markdown(card)
    for limit in card["limits"]:
        assert limit in text
    assert f"{card['metrics']['model']['ndcg@10']:.4f}" in text
    assert SequentialRecommender.load(tmp_path).scorer.card == card
