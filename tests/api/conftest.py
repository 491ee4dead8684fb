"""Tiny tables, and recommenders that learn them in a moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sasrec_tasks.api import (
    SASRecClassifierEstimator,
    SASRecRegressorEstimator,
    SequentialRecommender,
    SequentialScorer,
)

Rows = list[tuple[Any, Any, float, Any]]

TINY: dict[str, Any] = {
    "hidden_units": 8,
    "num_blocks": 1,
    "dropout_rate": 0.0,
    "learning_rate": 0.01,
    "epochs": 2,
    "verbose": 0,
    "device": "cpu",
}


def _table(rows: Rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["USER_ID", "ITEM_ID", "OUTCOME", "TIMESTAMP"])


@pytest.fixture(scope="session")
def table() -> Callable[[Rows], pd.DataFrame]:
    """Rows (user, item, outcome, time) → a DataFrame."""
    return _table


@pytest.fixture(scope="session")
def circle() -> pd.DataFrame:
    """20 users go six steps around twelve items, each from another start."""
    return _table([(f"u{u}", f"i{(u + step) % 12}", 1.0, 100 + step) for u in range(20) for step in range(6)])


@pytest.fixture(scope="session")
def tiny() -> Callable[..., SASRecClassifierEstimator]:
    """Settings → a classifier that is trained in milliseconds."""
    return lambda **settings: SASRecClassifierEstimator(**{**TINY, **settings})


@pytest.fixture(scope="session")
def train() -> Callable[..., SequentialRecommender]:
    """Training interactions, arguments of `train` and settings → a trained recommender."""

    def train(
        interactions: Any,
        *,
        regressor: bool = False,
        items: Any = None,
        validation: Any = None,
        train_on_all: bool = False,
        **settings: Any,
    ) -> SequentialRecommender:
        kind = SASRecRegressorEstimator if regressor else SASRecClassifierEstimator
        estimator = kind(**{**TINY, **settings})
        recommender = SequentialRecommender(SequentialScorer(estimator), max_len=estimator.max_len)
        recommender.train(
            interactions_ds=interactions,
            items_ds=items,
            valid_interactions_ds=validation,
            train_on_all=train_on_all,
        )
        return recommender

    return train


@pytest.fixture(scope="session")
def learned(circle: pd.DataFrame, train: Callable[..., SequentialRecommender]) -> SequentialRecommender:
    """Knows the way around the circle. Shared: tests only ask it."""
    return train(circle, epochs=100, hidden_units=16, random_state=1)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[pd.DataFrame, str], Path]:
    """A table and a name ending in .csv or .parquet → the file."""

    def write(frame: pd.DataFrame, name: str) -> Path:
        file = tmp_path / name
        if ".csv" in name:
            frame.to_csv(file, index=False)
        else:
            frame.to_parquet(file, index=False)
        return file

    return write
