"""A notebook written for scikit-rec's SASRec runs here with other import lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sasrec_tasks.api import (
    InteractionsDataset,
    ItemsDataset,
    SASRecClassifierEstimator,
    SASRecRegressorEstimator,
    SequentialRecommender,
    SequentialScorer,
)
from sasrec_tasks.sasrec import fit
from sasrec_tasks.schema import interactions_schema_file


@pytest.fixture
def events(circle: pd.DataFrame) -> pd.DataFrame:
    """Interactions with ratings from 1 to 5, in order of time."""
    return circle.assign(rating=np.random.default_rng(0).integers(1, 6, len(circle)))


@pytest.fixture
def here(events: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The notebook's folder: train.csv, valid.csv by the usual recipe, items.csv, recent.csv, schema.yaml.

    The recipe counts from the end in a column `rank`, which stays in valid.csv.
    """
    monkeypatch.chdir(tmp_path)
    ranked = events.assign(rank=events.groupby("USER_ID").cumcount(ascending=False))
    ranked.drop(columns="rank").to_csv("train.csv", index=False)  # all of them
    ranked[ranked["rank"] == 1].to_csv("valid.csv", index=False)  # each user's second to last
    events[["ITEM_ID"]].drop_duplicates().to_csv("items.csv", index=False)
    events[["USER_ID", "ITEM_ID", "TIMESTAMP"]].to_csv("recent.csv", index=False)
    kinds = {"USER_ID": "str", "ITEM_ID": "str", "OUTCOME": "float", "TIMESTAMP": "int"}
    lines = [f"  - name: {name}\n    type: {kind}\n" for name, kind in kinds.items()]
    Path("schema.yaml").write_text("columns:\n" + "".join(lines))
    return tmp_path


@pytest.mark.usefixtures("here")
def test_quick_start() -> None:
    estimator = SASRecClassifierEstimator(
        hidden_units=50,
        num_blocks=2,
        num_heads=1,
        dropout_rate=0.2,
        num_negatives=1,
        max_len=50,
        learning_rate=0.001,
        epochs=200,
        batch_size=128,
        early_stopping_patience=5,
        restore_best_weights=True,
        random_state=42,
    )
    recommender = SequentialRecommender(SequentialScorer(estimator), max_len=50)
    recommender.train(
        items_ds=ItemsDataset(data_location="items.csv"),
        interactions_ds=InteractionsDataset(data_location="train.csv", client_schema_path="schema.yaml"),
        valid_interactions_ds=InteractionsDataset(data_location="valid.csv"),
    )
    assert estimator.result is not None
    assert estimator.result.stopped == "patience"
    found = recommender.recommend(interactions=pd.read_csv("recent.csv"), top_k=10)
    assert found.groupby("USER_ID")["ITEM_ID"].nunique().tolist() == [10] * 20


@pytest.mark.usefixtures("here")
def test_the_recipe_for_a_validation_split_leaks_nothing_here(events: pd.DataFrame) -> None:
    """It gives all events for training, the last one, which is the test, among them."""

    def trained(interactions: InteractionsDataset, validation: InteractionsDataset | None) -> torch.Tensor:
        estimator = SASRecClassifierEstimator(epochs=2, restore_best_weights=False, verbose=0, device="cpu")
        recommender = SequentialRecommender(SequentialScorer(estimator))
        recommender.train(
            items_ds=ItemsDataset(data_location="items.csv"),
            interactions_ds=interactions,
            valid_interactions_ds=validation,
        )
        assert estimator.model is not None
        return estimator.model.item_embedding.weight

    recipe = trained(InteractionsDataset("train.csv"), InteractionsDataset("valid.csv"))
    honest = events[events.groupby("USER_ID").cumcount(ascending=False) >= 2]
    assert torch.equal(recipe, trained(InteractionsDataset(honest), None))
    assert not torch.equal(recipe, trained(InteractionsDataset("train.csv"), None))


def test_a_schema_of_names_and_types_alone_is_enough(here: Path) -> None:
    for schema in (here / "schema.yaml", interactions_schema_file()):
        frame = InteractionsDataset("train.csv", client_schema_path=str(schema)).fetch_data()
        assert frame.columns.tolist() == ["USER_ID", "ITEM_ID", "OUTCOME", "TIMESTAMP"]
        assert len(frame) == 120


def test_interactions_can_be_typed_into_the_notebook() -> None:
    interactions = pd.DataFrame(
        {
            "USER_ID": ["ann", "ann", "ann", "bob", "bob"],
            "ITEM_ID": ["tea", "cup", "pot", "tea", "jug"],
            "OUTCOME": [1.0] * 5,
            "TIMESTAMP": [10, 20, 30, 15, 25],
        }
    )
    recommender = SequentialRecommender(SequentialScorer(SASRecClassifierEstimator(epochs=2, verbose=0)))
    recommender.train(interactions_ds=InteractionsDataset(data_location=interactions))
    assert recommender.recommend(interactions=interactions, top_k=4).groupby("USER_ID").size().tolist() == [
        4,
        4,
    ]


@pytest.mark.usefixtures("here")
def test_soft_labels_are_ratings_over_five(events: pd.DataFrame) -> None:
    events["OUTCOME"] = events["rating"] / 5.0
    estimator = SASRecClassifierEstimator(hidden_units=50, num_blocks=2, num_heads=1, epochs=3, verbose=0)
    recommender = SequentialRecommender(SequentialScorer(estimator), max_len=50)
    recommender.train(items_ds=ItemsDataset("items.csv"), interactions_ds=InteractionsDataset(events))
    assert len(recommender.recommend(interactions=events, top_k=2)) == 40


@pytest.mark.usefixtures("here")
def test_the_regressor_takes_ratings_as_they_are(events: pd.DataFrame) -> None:
    events["OUTCOME"] = events["rating"]
    estimator = SASRecRegressorEstimator(hidden_units=50, num_blocks=2, num_heads=1, epochs=3, verbose=0)
    recommender = SequentialRecommender(SequentialScorer(estimator), max_len=50)
    recommender.train(items_ds=ItemsDataset("items.csv"), interactions_ds=InteractionsDataset(events))
    assert len(recommender.recommend(interactions=events, top_k=2)) == 40


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("epochs", [50, 200, 500])
def test_the_advised_numbers_of_epochs_are_bounds_for_early_stopping(
    monkeypatch: pytest.MonkeyPatch, epochs: int
) -> None:
    estimator = SASRecClassifierEstimator(epochs=epochs, early_stopping_patience=5, restore_best_weights=True)
    monkeypatch.setattr(fit, "validate", lambda *_: 1.0)  # never better than the first
    recommender = SequentialRecommender(SequentialScorer(estimator))
    recommender.train(
        items_ds=ItemsDataset(data_location="items.csv"),
        interactions_ds=InteractionsDataset(data_location="train.csv"),
        valid_interactions_ds=InteractionsDataset(data_location="valid.csv"),
    )
    result = estimator.result
    assert result is not None
    assert (result.stopped, result.best_epoch, len(result.history)) == ("patience", 1, 6)


@pytest.mark.parametrize("name_and_values", [
    ("max_len", (20, 50, 200)),
    ("num_negatives", (1, 3, 10)),
    ("learning_rate", (0.0001, 0.001, 0.005)),
    ("dropout_rate", (0.0, 0.2, 0.5)),
    ("weight_decay", (0.0, 1e-4, 1e-3)),
])  # fmt: skip
def test_every_advised_value_trains(
    circle: pd.DataFrame, name_and_values: tuple[str, tuple[float, ...]]
) -> None:
    name, values = name_and_values
    found = []
    for value in values:
        settings = {"hidden_units": 8, "epochs": 2, "verbose": 0, "device": "cpu", name: value}
        estimator = SASRecClassifierEstimator(**settings)  # type: ignore[arg-type]
        recommender = SequentialRecommender(SequentialScorer(estimator), max_len=estimator.max_len)
        recommender.train(interactions_ds=circle)
        found.append(recommender.score_items(circle).to_numpy())
        assert np.isfinite(found[-1]).all()
    assert all(not np.array_equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("sizes", [
    {"hidden_units": 50, "num_blocks": 2},
    {"hidden_units": 100, "num_blocks": 2},
    {"hidden_units": 128, "num_blocks": 3, "num_heads": 2},
])  # fmt: skip
def test_every_advised_size_trains(circle: pd.DataFrame, sizes: dict[str, int]) -> None:
    estimator = SASRecClassifierEstimator(epochs=1, verbose=0, **sizes)  # type: ignore[arg-type]
    SequentialRecommender(SequentialScorer(estimator), max_len=50).train(interactions_ds=circle)
    assert estimator.model is not None
    assert estimator.model.config.as_dict().items() >= sizes.items()
