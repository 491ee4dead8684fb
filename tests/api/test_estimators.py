from __future__ import annotations

import inspect
import json
import logging
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from sasrec_tasks.api import (
    SASRecClassifierEstimator,
    SASRecRegressorEstimator,
    SequentialRecommender,
    SequentialScorer,
)
from sasrec_tasks.sasrec.losses import Loss
from sasrec_tasks.sasrec.sequences import Sequences
from sasrec_tasks.sasrec.trainer import Trainer

Train = Callable[..., SequentialRecommender]
Table = Callable[[list[Any]], pd.DataFrame]
BOTH = [SASRecClassifierEstimator, SASRecRegressorEstimator]
LENGTHS = np.array([5, 9, 12])  # of histories

DOCUMENTED = {
    "hidden_units": 50,
    "num_blocks": 2,
    "num_heads": 1,
    "dropout_rate": 0.2,
    "num_negatives": 1,
    "max_len": 50,
    "learning_rate": 0.001,
    "epochs": 200,
    "batch_size": 128,
    "weight_decay": 0.0,
    "early_stopping_patience": None,
    "restore_best_weights": True,
    "random_state": 42,
}


@pytest.mark.parametrize("kind", BOTH)
def test_arguments_and_defaults_are_those_of_scikit_rec_and_go_by_name(kind: Any) -> None:
    parameters = inspect.signature(kind).parameters
    assert {name: parameters[name].default for name in DOCUMENTED} == DOCUMENTED
    assert "verbose" in parameters
    assert {parameter.kind for parameter in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    assert kind().settings.items() >= DOCUMENTED.items()


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"num_negatives": 0},
            "num_negatives must be .*at least 1, not 0: without negatives every item may score alike",
        ),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 1.5}, "batch_size"),
        ({"early_stopping_patience": 0}, "early_stopping_patience"),
        ({"early_stopping_metric": "luck"}, r"early_stopping_metric must be one of .*'luck'"),
        ({"learning_rate": -0.1}, "learning_rate must be .*, not -0.1"),
        ({"weight_decay": -1.0}, "weight_decay must be .*, not -1.0"),
        ({"max_minutes": -1.0}, "max_minutes must be .*, not -1.0"),
        ({"hidden_units": 50, "num_heads": 3}, r"hidden_units \(50\) must be divisible by num_heads \(3\)"),
        ({"max_len": 0}, 'max_len must be a whole number of at least 1 or "auto", not 0'),
        ({"max_len": "x"}, """max_len must be .* or "auto", not 'x'"""),
        ({"num_blocks": 0}, "num_blocks must be a whole number of at least 1"),
        ({"hidden_units": "big"}, """hidden_units must be a whole number .* or "auto", not 'big'"""),
        ({"hidden_units": 8.0}, "hidden_units must be a whole number .*, not 8.0"),
        ({"num_heads": True}, "num_heads must be a whole number .*, not True"),
        ({"batch_size": True}, "batch_size must be a whole number .*, not True"),
        ({"conv_width": None}, "conv_width must be a whole number .*, not None"),
        ({"dropout_rate": 1.0}, r"dropout_rate must be a number in \[0, 1\)"),
        ({"dropout_rate": "much"}, r"dropout_rate must be a number in \[0, 1\), not 'much'"),
        ({"temperature": 0}, "temperature must be a finite number above 0 or None, not 0"),
        ({"learning_rate": "a"}, "learning_rate must be a finite number above 0, not 'a'"),
        ({"learning_rate": 0}, "learning_rate must be a finite number above 0, not 0"),
        ({"max_minutes": 0}, "max_minutes must be a finite number above 0 or None, not 0"),
        ({"adam_beta2": 1.0}, r"adam_beta2 must be a number in \[0, 1\), not 1.0"),
        ({"random_state": -1}, "random_state must be a whole number of at least 0 .* or None, .*, not -1"),
        ({"random_state": "x"}, "random_state must be .*, not 'x'"),
        ({"random_state": 2**63}, "random_state must be .* below 9223372036854775808"),
        ({"restore_best_weights": "no"}, "restore_best_weights must be True or False, not 'no'"),
        ({"positions": "none"}, "positions must be one of learned, rotary, not 'none'"),
        ({"verbose": "yes"}, "verbose must be .*, not 'yes'"),
        ({"device": "foo"}, "device must be .*, not 'foo'"),
        ({"device": "meta"}, "device must be .*, not 'meta'"),
        ({"device": [1]}, r"device must be .*, not \[1\]"),
        (
            {"hidden_units": 5, "num_heads": "auto", "positions": "rotary"},
            "rotary positions need heads of even",
        ),
    ],
)
def test_a_setting_out_of_bounds_is_refused_before_training(
    kind: Any, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        kind(**settings)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, device: str) -> torch.Tensor:
        raise AssertionError(f"Torch not compiled with {device} enabled")

    monkeypatch.setattr(torch, "ones", refuse)
    with pytest.raises(ValueError, match=r"device must be .*, not 'cuda': Torch not compiled"):
        SASRecClassifierEstimator(device="cuda")


@pytest.mark.parametrize("kind", BOTH)
def test_numbers_of_numpy_are_kept_as_plain_ones(kind: Any) -> None:
    given: dict[str, Any] = {
        "hidden_units": np.int64(8),
        "num_heads": np.uint8(2),
        "epochs": np.int64(2),
        "batch_size": np.int32(7),
        "random_state": np.int64(3),
        "learning_rate": np.float32(0.5),
        "dropout_rate": np.float64(0.25),
        "max_minutes": np.int64(4),
        "attention_dropout": np.False_,
    }
    kept = kind(**given).settings
    assert kept.items() >= given.items()
    assert json.loads(json.dumps(kept)) == kept


def test_without_a_seed_one_is_drawn_and_shown() -> None:
    drawn = [SASRecClassifierEstimator(random_state=None).random_state for _ in range(4)]
    assert all(type(seed) is int for seed in drawn)
    assert len(set(drawn)) > 1


def test_what_is_set_later_is_checked_when_training(train: Train, circle: pd.DataFrame) -> None:
    estimator = train(circle, epochs=1).scorer.estimator
    estimator.epochs = 0
    with pytest.raises(ValueError, match=r"epochs must be .*, not 0"):
        SequentialRecommender(SequentialScorer(estimator)).train(interactions_ds=circle)


@pytest.mark.parametrize(("outcomes", "said"), [
    ([1.0, 5.0], r"from 1 to 5.*OUTCOME / 5.*SASRecRegressorEstimator"),
    ([0.0, 1.01], r"from 0 to 1\.01"),
    ([-1.0, 0.5], r"from -1 to 0\.5.*normalise it,"),
    ([-2.0, -1.0], r"from -2 to -1.*normalise it,"),
])  # fmt: skip
def test_the_classifier_refuses_outcomes_that_are_no_labels_with_advice(
    train: Train, table: Table, outcomes: list[float], said: str
) -> None:
    rows = [("u", f"i{time}", outcome, time) for time, outcome in enumerate(outcomes)]
    with pytest.raises(ValueError, match=said):
        train(table(rows))
    train(table(rows), regressor=True)


def test_the_classifier_takes_labels_up_to_both_bounds(train: Train, table: Table) -> None:
    train(table([("u", "a", 0.0, 0), ("u", "b", 1.0, 1), ("u", "c", 0.0, 2)]))


def test_a_soft_label_is_what_the_classifier_predicts(train: Train, table: Table) -> None:
    """With two items, the negative of `liked` is `so-so`; the odds of both are those of the labels."""
    rows = [(f"u{u}", item, label, time) for u in range(12) for time, (item, label) in enumerate(
        [("first", 1.0), ("liked" if u % 2 else "so-so", 0.9 if u % 2 else 0.3)]
    )]  # fmt: skip
    recommender = train(table(rows), epochs=150, learning_rate=0.03)
    scores = recommender.score_items(table([("v", "first", 1.0, 0)])).loc["v"]
    assert scores["liked"] > scores["so-so"]
    assert scores["first"] < min(scores["liked"], scores["so-so"])


def test_the_regressor_predicts_the_rating(train: Train, table: Table) -> None:
    rows = [row for u in range(8) for row in [
        (f"u{u}", "start", 3.0, 0), (f"u{u}", "good" if u % 2 else "bad", 5.0 if u % 2 else 2.0, 1),
    ]]  # fmt: skip
    catalogue = pd.DataFrame({"ITEM_ID": ["start", "good", "bad", *map(str, range(200))]})
    recommender = train(table(rows), regressor=True, items=catalogue, epochs=120, learning_rate=0.03)
    scores = recommender.score_items(table([("v", "start", 3.0, 0)])).loc["v"]
    assert scores["good"] == pytest.approx(5, abs=0.5)
    assert scores["bad"] == pytest.approx(2, abs=0.5)


@pytest.mark.parametrize(
    ("num_items", "sizes"), [(40, (50, 2, 1)), (10_000, (100, 2, 1)), (100_001, (128, 3, 2))]
)
def test_auto_sizes_follow_the_catalogue(
    tiny: Callable[..., SASRecClassifierEstimator], num_items: int, sizes: tuple[int, int, int]
) -> None:
    config = tiny(hidden_units="auto", num_blocks="auto", num_heads="auto")._model_config(num_items, LENGTHS)
    assert (config.hidden_units, config.num_blocks, config.num_heads) == sizes


@pytest.mark.parametrize(("length", "max_len"), [(6, 20), (35, 35), (300, 200)])
def test_auto_max_len_follows_the_histories(train: Train, table: Table, length: int, max_len: int) -> None:
    rows = [("u", f"i{time % 7}", 1.0, time) for time in range(length)]
    model = train(table(rows), max_len="auto", epochs=1).scorer.estimator.model
    assert model is not None
    assert model.config.max_len == max_len


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_auto_goes_with_fixed_sizes(tiny: Callable[..., SASRecClassifierEstimator], positions: str) -> None:
    """4 heads do not divide the 50 that few items get, but the 100 of more."""
    if positions == "learned":
        config = tiny(hidden_units="auto", num_heads=4)._model_config(50_000, LENGTHS)
        assert (config.hidden_units, config.num_heads) == (100, 4)
    else:
        config = tiny(hidden_units="auto", num_heads=5, positions="rotary")._model_config(40, LENGTHS)
        assert (config.hidden_units, config.num_heads) == (50, 5)


def test_auto_that_does_not_fit_what_is_fixed_is_told_when_training(
    train: Train, circle: pd.DataFrame
) -> None:
    said = (
        r'hidden_units \(50\) must be divisible by num_heads \(4\): "auto" chose hidden_units=50 for 12 items'
    )
    with pytest.raises(ValueError, match=said):
        train(circle, hidden_units="auto", num_heads=4)


def test_only_what_is_auto_is_chosen(train: Train, circle: pd.DataFrame) -> None:
    model = train(circle, hidden_units=6, num_blocks="auto", max_len=3, epochs=1).scorer.estimator.model
    assert model is not None
    assert (model.config.hidden_units, model.config.num_blocks, model.config.max_len) == (6, 2, 3)


def test_what_was_chosen_is_logged(
    train: Train, circle: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        train(circle, hidden_units="auto", max_len="auto", epochs=1)
    assert "num_items=12" in caplog.text
    assert "hidden_units=50" in caplog.text
    assert "max_len=20" in caplog.text


def test_verbose_0_is_silent(
    train: Train, circle: pd.DataFrame, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(action="error"):
        recommender = train(circle, validation=circle.iloc[4::6], early_stopping_patience=1, verbose=0)
        recommender.recommend(circle, top_k=3)
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if record.name.startswith("sasrec_tasks")] == []


def test_verbose_1_shows_how_far_it_is(
    train: Train, circle: pd.DataFrame, capfd: pytest.CaptureFixture[str]
) -> None:
    train(circle, verbose=1)
    assert "epoch 2 of at most 2" in capfd.readouterr().out


@pytest.mark.parametrize("metric", ["loss", "ndcg@10"])
def test_verbose_1_shows_the_losses_of_each_tenth_epoch_and_which_is_kept(
    train: Train, circle: pd.DataFrame, capfd: pytest.CaptureFixture[str], metric: str
) -> None:
    recommender = train(
        circle, validation=circle.iloc[4::6], epochs=20, early_stopping_metric=metric, verbose=1
    )
    result, out = recommender.scorer.estimator.result, capfd.readouterr().out
    assert result is not None
    lines = [line for line in out.splitlines() if line.startswith("epoch ")]
    assert lines == [
        f"epoch {epoch.epoch}: loss {epoch.loss:.4f}, validation {metric} {epoch.metric:.4f}"
        for epoch in result.history
        if epoch.epoch == 1 or epoch.epoch % 2 == 0
    ]
    assert f"trained 20 epochs (all epochs are done), kept epoch {result.best_epoch}: loss" in out


def test_what_is_logged_is_not_printed_too(
    train: Train,
    circle: pd.DataFrame,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        train(circle, hidden_units="auto", epochs=20, verbose=1)
    assert [f"epoch {number}:" in caplog.text for number in (1, 2, 3, 20)] == [True] * 4
    assert "sizes: num_items=12" in caplog.text
    assert "sizes:" not in (out := capfd.readouterr().out)
    assert not any(line.startswith("epoch ") for line in out.splitlines())


def test_sizes_are_printed_once(
    train: Train, circle: pd.DataFrame, capfd: pytest.CaptureFixture[str]
) -> None:
    train(circle, hidden_units="auto", verbose=1)
    assert capfd.readouterr().out.count("sizes: num_items=12") == 1


def test_training_that_diverges_warns_with_what_to_do(
    train: Train, circle: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, epochs = Trainer.epoch, []

    def second_is_no_number(self: Trainer, *arguments: Any) -> tuple[float, bool]:
        epochs.append(real(self, *arguments))
        return (math.nan, True) if len(epochs) == 2 else epochs[-1]

    monkeypatch.setattr(Trainer, "epoch", second_is_no_number)
    with pytest.warns(
        UserWarning, match=r"diverged in epoch 2, .* those of epoch 1: lower learning_rate, .* 0\.01"
    ):
        train(circle, epochs=5)


def test_training_follows_random_state(train: Train, circle: pd.DataFrame) -> None:
    def weights(random_state: int) -> torch.Tensor:
        model = train(circle, random_state=random_state).scorer.estimator.model
        assert model is not None
        return model.item_embedding.weight

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


def test_training_again_starts_anew(
    circle: pd.DataFrame, tiny: Callable[..., SASRecClassifierEstimator]
) -> None:
    recommender = SequentialRecommender(SequentialScorer(tiny()))
    recommender.train(interactions_ds=circle)
    first = recommender.score_items(circle)
    recommender.train(interactions_ds=circle)
    pd.testing.assert_frame_equal(recommender.score_items(circle), first)


def test_early_stopping_stops_and_restores_the_best_weights(train: Train, circle: pd.DataFrame) -> None:
    """Validated on the way back, training on the way forth soon makes it worse."""
    back = circle.groupby("USER_ID").head(1).assign(TIMESTAMP=200)
    settings: dict[str, Any] = {"epochs": 60, "learning_rate": 0.03, "validation": back}
    stopped = train(circle, early_stopping_patience=3, **settings)
    result = stopped.scorer.estimator.result
    assert result is not None
    assert result.stopped == "patience"
    assert len(result.history) == result.best_epoch + 3 < 60
    best = train(circle, **{**settings, "epochs": result.best_epoch})
    pd.testing.assert_frame_equal(stopped.score_items(circle), best.score_items(circle))
    last = train(circle, early_stopping_patience=3, restore_best_weights=False, **settings)
    assert not np.allclose(last.score_items(circle), best.score_items(circle))


@pytest.mark.parametrize("loss", ["bce", "gbce", "sampled_softmax", "softmax"])
def test_every_loss_learns_through_the_api(loss: Loss) -> None:
    """Nine items that follow each other in a ring."""
    rows = np.array([[(first + t) % 9 + 1 for t in range(6)] for first in range(9)] * 4)
    train = Sequences.from_offsets(
        np.arange(0, rows.size + 1, 6), rows.ravel().astype(np.int32), np.ones(rows.size, np.float32)
    )
    estimator = SASRecClassifierEstimator(
        loss=loss, epochs=60, num_negatives=4, learning_rate=0.01,
        negative_sampling="shared" if loss == "sampled_softmax" else "other",
        average_decay=0.9, windows="all", batch_slots=64, hidden_units=16, max_len=4, dropout_rate=0.0,
        learning_rate_schedule="cosine", verbose=0,
    )  # fmt: skip
    model = estimator.fit(train, 9)
    with torch.inference_mode():
        scores = model(torch.tensor([[3, 4, 5]]))[0, -1] @ model.item_vectors().T
    assert int(scores[1:].argmax()) + 1 == 6


def test_each_estimator_has_its_own_loss() -> None:
    assert SASRecRegressorEstimator().loss == "mse"
    with pytest.raises(ValueError, match="SASRecRegressorEstimator"):
        SASRecClassifierEstimator(loss="mse")
    with pytest.raises(TypeError):
        SASRecRegressorEstimator(loss="bce")  # type: ignore[call-arg]
