from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sasrec_tasks.sasrec import fit as fit_module
from sasrec_tasks.sasrec import trainer as trainer_module
from sasrec_tasks.sasrec.batches import Batch, Batches
from sasrec_tasks.sasrec.checkpoint import Checkpoint, Epoch, Weights
from sasrec_tasks.sasrec.fit import FitResult, best_epoch, build, fit, validate, what_calms, why_stop
from sasrec_tasks.sasrec.fit_config import FitConfig, Metric, Precision
from sasrec_tasks.sasrec.gradient import batch_loss
from sasrec_tasks.sasrec.losses import Loss
from sasrec_tasks.sasrec.metrics import per_user
from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.model_config import SASRecConfig
from sasrec_tasks.sasrec.negatives import NegativeSampling
from sasrec_tasks.sasrec.ranking import rank_all
from sasrec_tasks.sasrec.scoring import model_scorer
from sasrec_tasks.sasrec.sequences import LeaveLastTwoOut, Sequences
from sasrec_tasks.sasrec.trainer import Progress

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]

SIZES = SASRecConfig(num_items=30, hidden_units=8, max_len=10)
CONFIG = FitConfig(epochs=5, batch_size=8)


class KilledError(Exception):
    pass


def trained(
    split: LeaveLastTwoOut, config: FitConfig = CONFIG, *, seed: int = 1, **arguments: Any
) -> tuple[SASRec, FitResult]:
    model = build(SIZES, seed)
    return model, fit(model, split.train, config, **arguments)


def weights(model: SASRec) -> Weights:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def kill_after_epoch(number: int) -> dict[str, Any]:
    def on_epoch(epoch: Epoch) -> None:
        if epoch.epoch == number:
            raise KilledError

    return {"on_epoch": on_epoch}


def kill_in_epoch(number: int) -> dict[str, Any]:
    def on_step(progress: Progress) -> None:
        if progress.epoch == number and progress.done > progress.total / 2:
            raise KilledError

    return {"on_step": on_step}


def set_weights(model: SASRec, value: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)


# What is learned


@pytest.mark.parametrize("device", DEVICES)
def test_a_cyclic_pattern_is_learned(sequences: Callable[..., Sequences], device: str) -> None:
    random = np.random.default_rng(0)
    starts = random.integers(0, 60, size=200)
    split = LeaveLastTwoOut.of(sequences([[(first + t) % 60 + 1 for t in range(12)] for first in starts]))
    model = build(SASRecConfig(num_items=60, hidden_units=32, max_len=10), 0).to(device)
    fit(model, split.train, FitConfig(epochs=30, batch_size=16, learning_rate=0.01, num_negatives=4))
    served, _ = rank_all(model_scorer(model, split.test.history), split.test)
    assert per_user(served)["hr@10"].mean() > 0.99
    assert per_user(served)["ndcg@10"].mean() > 0.8


def test_the_loss_falls(random_split: LeaveLastTwoOut) -> None:
    _, result = trained(random_split, replace(CONFIG, epochs=20, learning_rate=0.01))
    assert result.history[-1].loss < result.history[0].loss - 0.01


@pytest.mark.parametrize("sampling", get_args(NegativeSampling))
@pytest.mark.parametrize("loss", get_args(Loss))
def test_the_history_has_the_mean_loss_of_all_positions(
    random_split: LeaveLastTwoOut, loss: Loss, sampling: NegativeSampling
) -> None:
    config = FitConfig(
        epochs=1, batch_size=8, learning_rate=1e-30, loss=loss, negative_sampling=sampling, random_state=3
    )
    model = build(replace(SIZES, dropout_rate=0.0), 1)
    result = fit(model, random_split.train, config)
    drawn = Batches(
        sequences=random_split.train,
        max_len=10,
        windows="last",
        batch_size=8,
        batch_slots=None,
        negatives=config.negatives(30),
        implicit=True,
        random_state=3,
    )
    with torch.no_grad():
        total = sum(
            batch_loss(model, batch, config.objective) * len(batch.targets) for batch in drawn.epoch(1)
        )
    expected = float(total) / drawn.positions
    assert result.history[0].loss == pytest.approx(expected, rel=1e-5)


def test_padded_slots_add_nothing_to_the_loss(random_model: Callable[..., SASRec]) -> None:
    model = random_model()
    random = np.random.default_rng(0)
    rows = [random.integers(1, 31, size=length).tolist() for length in (2, 5, 11)]

    def loss_of(rows: list[list[int]], negatives: torch.Tensor) -> float:
        width = max(len(row) for row in rows) - 1
        inputs = torch.tensor([row[:-1] + [0] * (width - len(row) + 1) for row in rows])
        targets = torch.tensor([item for row in rows for item in row[1:]])
        slots = (inputs != 0).flatten().nonzero()[:, 0]
        batch = Batch(
            inputs=inputs,
            slots=slots,
            targets=targets,
            labels=torch.ones(len(targets)),
            negatives=negatives,
            weight=torch.tensor(1.0),
        )
        return float(batch_loss(model, batch, CONFIG.objective).detach())

    negatives = torch.from_numpy(random.integers(1, 31, size=(15, 2)))
    apart = [loss_of([row], part) for row, part in zip(rows, torch.split(negatives, [1, 4, 10]), strict=True)]
    together = loss_of(rows, negatives)
    assert together == pytest.approx((apart[0] + 4 * apart[1] + 10 * apart[2]) / 15, rel=1e-5)


def test_the_padding_item_stays_zero(random_split: LeaveLastTwoOut) -> None:
    model, _ = trained(random_split, replace(CONFIG, weight_decay=0.1))
    assert not model.item_embedding.weight[0].any()


def test_users_with_one_event_give_nothing_to_train_on(sequences: Callable[..., Sequences]) -> None:
    with pytest.raises(ValueError, match="no user has two training events"):
        fit(build(SIZES, 1), sequences([[1], [2], []]), CONFIG)


# What is random


def test_the_same_seed_gives_the_same_weights_whatever_was_drawn_before(
    random_split: LeaveLastTwoOut,
) -> None:
    first, _ = trained(random_split)
    torch.rand(10)
    np.random.default_rng().random(10)
    again, _ = trained(random_split)
    assert same(first.state_dict(), again.state_dict())


def test_another_seed_gives_other_weights(random_split: LeaveLastTwoOut) -> None:
    first, _ = trained(random_split)
    other_start, _ = trained(random_split, seed=2)
    other_draws, _ = trained(random_split, replace(CONFIG, random_state=2))
    assert not same(first.state_dict(), other_start.state_dict())
    assert not same(first.state_dict(), other_draws.state_dict())


def test_each_epoch_drops_anew(sequences: Callable[..., Sequences]) -> None:
    model = build(SASRecConfig(num_items=2, dropout_rate=0.5), 1)  # of two items, negatives are no draw
    config = FitConfig(epochs=3, learning_rate=0.0)
    result = fit(model, sequences([[1, 2, 1, 1, 2]]), config)
    assert len({epoch.loss for epoch in result.history}) == 3


def test_training_leaves_the_callers_random_numbers_alone(random_split: LeaveLastTwoOut) -> None:
    before = torch.get_rng_state()
    trained(random_split, validation=random_split.validation)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("metric", ["ndcg@10", "loss"])
def test_validation_never_influences_training(random_split: LeaveLastTwoOut, metric: Metric) -> None:
    config = replace(CONFIG, restore_best_weights=False, early_stopping_metric=metric)
    without, plain = trained(random_split, config)
    validated, result = trained(random_split, config, validation=random_split.validation)
    assert same(without.state_dict(), validated.state_dict())
    assert [epoch.loss for epoch in plain.history] == [epoch.loss for epoch in result.history]


# When it stops, and with which weights


def history(metrics: list[float | None]) -> list[Epoch]:
    return [
        Epoch(epoch=number, loss=1.0, metric=metric, seconds=1.0, finished_at="")
        for number, metric in enumerate(metrics, 1)
    ]


@given(values=st.lists(st.integers(0, 4).map(float), min_size=1, max_size=12), patience=st.integers(1, 5))
def test_training_stops_once_patience_epochs_brought_nothing_better(
    values: list[float], patience: int
) -> None:
    for metric, sign in (("ndcg@10", 1.0), ("loss", -1.0)):
        config = FitConfig(epochs=99, early_stopping_patience=patience, early_stopping_metric=metric)  # type: ignore[arg-type]
        rows = history([sign * value for value in values])
        best = values.index(max(values)) + 1
        assert best_epoch(rows, config) == best
        assert why_stop(rows, config) == ("patience" if len(values) - best >= patience else None)


def test_without_a_metric_the_last_epoch_is_the_best() -> None:
    assert best_epoch(history([None, None, None]), CONFIG) == 3


def test_training_ends_after_its_epochs(random_split: LeaveLastTwoOut) -> None:
    _, result = trained(random_split)
    assert [epoch.epoch for epoch in result.history] == [1, 2, 3, 4, 5]
    assert (result.stopped, result.best_epoch, result.resumed_from_epoch) == ("epochs", 5, None)


@pytest.mark.parametrize("patience", [1, 3])
def test_a_metric_that_never_moves_stops_training_after_patience_epochs(
    random_split: LeaveLastTwoOut, patience: int
) -> None:
    config = replace(CONFIG, epochs=50, learning_rate=0.0, early_stopping_patience=patience)
    _, result = trained(random_split, config, validation=random_split.validation)
    assert (result.stopped, result.best_epoch, len(result.history)) == ("patience", 1, 1 + patience)


def test_patience_needs_validation(random_split: LeaveLastTwoOut) -> None:
    with pytest.raises(ValueError, match="needs validation"):
        trained(random_split, replace(CONFIG, early_stopping_patience=2))


@pytest.mark.parametrize("restore", [True, False])
@pytest.mark.parametrize("metric", ["ndcg@10", "loss"])
def test_the_weights_of_the_best_epoch_are_restored_if_wanted(
    random_split: LeaveLastTwoOut, metric: Metric, restore: bool
) -> None:
    config = replace(CONFIG, early_stopping_metric=metric, restore_best_weights=restore, learning_rate=0.0)
    model, validation = build(SIZES, 1), random_split.validation
    popularity = torch.from_numpy(np.bincount(validation.targets, minlength=31) / 10)
    after: list[Weights] = []

    def on_epoch(epoch: Epoch) -> None:
        after.append(weights(model))
        set_weights(model, 0.0)  # epoch 2 is to rank by popularity among the targets, others against it
        with torch.no_grad():
            model.norm.bias[0] = 1 if epoch.epoch == 1 else -epoch.epoch
            model.item_embedding.weight[:, 0] = popularity

    result = fit(model, random_split.train, config, validation=validation, on_epoch=on_epoch)
    assert result.best_epoch == 2
    kept = 2 if restore else 5
    assert same(model.state_dict(), after[kept - 1])
    assert validate(model, validation, config) == result.history[kept - 1].metric


def test_the_ndcg_metric_is_that_of_ranking_without_seen_items(
    random_model: Callable[..., SASRec], random_split: LeaveLastTwoOut
) -> None:
    model, validation = random_model(), random_split.validation
    served, _ = rank_all(model_scorer(model, validation.history), validation)
    assert validate(model, validation, CONFIG) == pytest.approx(per_user(served)["ndcg@10"].mean())


@pytest.mark.parametrize("implicit", [True, False])
def test_the_loss_metric_is_the_training_loss_at_the_held_out_targets(
    random_model: Callable[..., SASRec], sequences: Callable[..., Sequences], implicit: bool
) -> None:
    split = LeaveLastTwoOut.of(sequences([[1, 2, 1, 2]], [[0.2, 0.4, 0.6, 0.8]]))
    model = random_model(num_items=2)
    config = FitConfig(early_stopping_metric="loss", implicit=implicit)
    with torch.no_grad():  # of two items, the negative of 1 is 2
        positive, negative = (
            model(torch.tensor([[1, 2]]))[0, -1] @ model.item_embedding.weight[1:].T
        ).double()
    label = 1.0 if implicit else 0.6
    expected = -(
        label * torch.sigmoid(positive).log()
        + (1 - label) * torch.sigmoid(-positive).log()
        + torch.sigmoid(-negative).log()
    )
    assert validate(model, split.validation, config) == pytest.approx(float(expected), rel=1e-4)


def test_progress_rises_to_all_positions_in_each_epoch(random_split: LeaveLastTwoOut) -> None:
    steps: list[Progress] = []
    trained(random_split, replace(CONFIG, epochs=2), on_step=steps.append)
    total = int(np.clip(random_split.train.lengths - 1, 0, 10).sum())
    for number in (1, 2):
        of_epoch = [step for step in steps if step.epoch == number]
        done = [step.done for step in of_epoch]
        assert done == sorted(set(done))
        assert done[-1] == total
        assert {(step.total, step.epochs) for step in of_epoch} == {(total, 2)}


# Divergence


@pytest.mark.parametrize("validated", [True, False])
def test_a_huge_learning_rate_raises_or_leaves_finite_weights(
    random_split: LeaveLastTwoOut, validated: bool
) -> None:
    model = build(SIZES, 1)
    validation = random_split.validation if validated else None
    config = replace(CONFIG, learning_rate=1e38)
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        fit(model, random_split.train, config, validation=validation)


@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize("last_step", [True, False])
def test_weights_that_diverge_later_give_way_to_the_best_before(
    random_split: LeaveLastTwoOut, validated: bool, last_step: bool
) -> None:
    model, before = build(SIZES, 1), []

    def on_step(progress: Progress) -> None:
        if progress.epoch == 3 and (progress.done == progress.total or not last_step):
            set_weights(model, math.nan)

    result = fit(
        model,
        random_split.train,
        replace(CONFIG, restore_best_weights=False),
        validation=random_split.validation if validated else None,
        on_epoch=lambda _: before.append(weights(model)),
        on_step=on_step,
    )
    assert (result.stopped, len(result.history)) == ("diverged", 2)
    assert same(model.state_dict(), before[result.best_epoch - 1])


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("precision", get_args(Precision))
@pytest.mark.parametrize("average", [None, 0.9])
def test_a_gradient_that_explodes_ends_training_with_the_best_weights_before(
    random_split: LeaveLastTwoOut,
    exploding: Callable[[int, float], None],
    value: float,
    precision: Precision,
    average: float | None,
) -> None:
    config = replace(CONFIG, precision=precision, average_decay=average)
    model, two = trained(random_split, replace(config, epochs=2), validation=random_split.validation)
    exploding(3, value)
    again, result = trained(random_split, config, validation=random_split.validation)
    assert (result.stopped, len(result.history), result.best_epoch) == ("diverged", 2, two.best_epoch)
    assert same(again.state_dict(), model.state_dict())


def test_a_gradient_that_explodes_in_the_first_epoch_is_an_error_with_what_to_try(
    random_split: LeaveLastTwoOut, exploding: Callable[[int, float], None], tmp_path: Path
) -> None:
    exploding(1, math.nan)
    config = replace(CONFIG, precision="bfloat16")
    with pytest.raises(
        FloatingPointError, match=r"in epoch 1: lower learning_rate, which is 0\.001, .*precision=float32"
    ):
        trained(random_split, config, checkpoint=Checkpoint(tmp_path / "state", "f"))
    assert not list(tmp_path.iterdir())


def test_what_calms_a_training_is_what_its_settings_leave() -> None:
    calm = FitConfig(learning_rate=0.01, warmup_epochs=2, precision="float32")
    assert what_calms(calm) == "lower learning_rate, which is 0.01"
    wild = replace(calm, warmup_epochs=0, loss="mse", implicit=False)
    for told in ("lower learning_rate", "raise warmup_epochs, which is 0", "outcomes to a scale of about 1"):
        assert told in what_calms(wild)


# Resuming


@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize("restore", [True, False])
@pytest.mark.parametrize("killed", [kill_after_epoch(1), kill_after_epoch(3), kill_in_epoch(4)])
def test_a_resumed_training_ends_like_an_unbroken_one(
    random_split: LeaveLastTwoOut, tmp_path: Path, killed: dict[str, Any], restore: bool, validated: bool
) -> None:
    config = replace(CONFIG, restore_best_weights=restore)
    validation = random_split.validation if validated else None
    unbroken, whole = trained(random_split, config, validation=validation)
    checkpoint = Checkpoint(tmp_path / "state", "f")
    with pytest.raises(KilledError):
        trained(random_split, config, validation=validation, checkpoint=checkpoint, **killed)
    state = checkpoint.load()
    assert state is not None
    resumed, result = trained(random_split, config, validation=validation, checkpoint=checkpoint)
    assert same(resumed.state_dict(), unbroken.state_dict())
    assert result.resumed_from_epoch == len(state.history) > 0
    assert result.history[: len(state.history)] == state.history
    assert [(e.epoch, e.loss, e.metric) for e in result.history] == [
        (e.epoch, e.loss, e.metric) for e in whole.history
    ]
    assert result.best_epoch == whole.best_epoch


def test_a_training_killed_again_and_again_still_ends_like_an_unbroken_one(
    random_split: LeaveLastTwoOut, tmp_path: Path
) -> None:
    unbroken, _ = trained(random_split)
    checkpoint = Checkpoint(tmp_path / "state", "f")
    for number in (1, 2, 3, 4):
        with pytest.raises(KilledError):
            trained(random_split, checkpoint=checkpoint, **kill_after_epoch(number))
    resumed, result = trained(random_split, checkpoint=checkpoint)
    assert result.resumed_from_epoch == 4
    assert same(resumed.state_dict(), unbroken.state_dict())


def test_a_finished_training_is_not_done_again(random_split: LeaveLastTwoOut, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "state", "f")
    first, whole = trained(random_split, checkpoint=checkpoint)
    again, result = trained(random_split, checkpoint=checkpoint, **kill_in_epoch(6), seed=9)
    assert same(first.state_dict(), again.state_dict())
    assert result == replace(whole, resumed_from_epoch=5)


def test_more_epochs_may_be_added_to_a_finished_training(
    random_split: LeaveLastTwoOut, tmp_path: Path
) -> None:
    checkpoint = Checkpoint(tmp_path / "state", "f")
    trained(random_split, replace(CONFIG, epochs=2), checkpoint=checkpoint)
    longer, _ = trained(random_split, checkpoint=checkpoint)
    unbroken, _ = trained(random_split)
    assert same(longer.state_dict(), unbroken.state_dict())


@pytest.mark.parametrize("damage", ["another fingerprint", "cut short"])
def test_a_state_of_another_training_or_damaged_is_not_resumed(
    random_split: LeaveLastTwoOut, tmp_path: Path, damage: str
) -> None:
    fresh, _ = trained(random_split)
    path = tmp_path / "state"
    other = Checkpoint(path, "another" if damage == "another fingerprint" else "f")
    trained(random_split, replace(CONFIG, epochs=3, random_state=9), checkpoint=other)
    if damage == "cut short":
        path.write_bytes(path.read_bytes()[:-1])
    model, result = trained(random_split, checkpoint=Checkpoint(path, "f"))
    assert result.resumed_from_epoch is None
    assert same(model.state_dict(), fresh.state_dict())


# The time budget


@pytest.fixture
def ten_seconds_a_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[Progress], None]:
    """An on_step after which the clock stands ten seconds later."""
    clock = SimpleNamespace(now=1000.0)
    for module in (fit_module, trainer_module):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def on_step(progress: Progress) -> None:
        clock.now += 10

    return on_step


STEPS = 5  # batches an epoch: 40 users of 8 events, 8 a batch


@pytest.fixture
def even_split(sequences: Callable[..., Sequences]) -> LeaveLastTwoOut:
    random = np.random.default_rng(3)
    return LeaveLastTwoOut.of(sequences([random.integers(1, 31, size=8).tolist() for _ in range(40)]))


def test_training_stops_when_its_time_is_over(
    even_split: LeaveLastTwoOut, ten_seconds_a_step: Callable[[Progress], None]
) -> None:
    config = replace(CONFIG, epochs=50, max_minutes=2.9)  # 174 s: three epochs of 50 s and a half
    model, result = trained(even_split, config, on_step=ten_seconds_a_step)
    assert (result.stopped, len(result.history)) == ("time", 3)
    assert [epoch.seconds for epoch in result.history] == [50, 50, 50]
    three, _ = trained(even_split, replace(CONFIG, epochs=3))
    assert same(model.state_dict(), three.state_dict())


def test_the_unfinished_epoch_is_dropped_without_restoring_the_best_too(
    even_split: LeaveLastTwoOut, ten_seconds_a_step: Callable[[Progress], None]
) -> None:
    config = replace(CONFIG, epochs=50, max_minutes=2.9, restore_best_weights=False)
    model, _ = trained(even_split, config, on_step=ten_seconds_a_step)
    three, _ = trained(even_split, replace(CONFIG, epochs=3))
    assert same(model.state_dict(), three.state_dict())


def test_time_is_counted_across_tries(
    even_split: LeaveLastTwoOut, ten_seconds_a_step: Callable[[Progress], None], tmp_path: Path
) -> None:
    config = replace(CONFIG, epochs=50, max_minutes=4.5)  # 270 s: five epochs and a bit
    checkpoint = Checkpoint(tmp_path / "state", "f")
    with pytest.raises(KilledError):
        trained(even_split, config, checkpoint=checkpoint, on_step=ten_seconds_a_step, **kill_after_epoch(3))
    _, result = trained(even_split, config, checkpoint=checkpoint, on_step=ten_seconds_a_step)
    assert (result.stopped, len(result.history), result.resumed_from_epoch) == ("time", 5, 3)
    assert sum(epoch.seconds for epoch in result.history) <= 270


def test_no_step_is_done_once_earlier_tries_used_up_the_time(
    even_split: LeaveLastTwoOut, ten_seconds_a_step: Callable[[Progress], None], tmp_path: Path
) -> None:
    checkpoint = Checkpoint(tmp_path / "state", "f")
    first, _ = trained(
        even_split, replace(CONFIG, epochs=2), checkpoint=checkpoint, on_step=ten_seconds_a_step
    )
    config = replace(CONFIG, epochs=50, max_minutes=1.0)
    again, result = trained(even_split, config, checkpoint=checkpoint, **kill_in_epoch(3))
    assert (result.stopped, len(result.history)) == ("time", 2)
    assert same(first.state_dict(), again.state_dict())


@pytest.mark.parametrize("minutes", [0.0, 0.5])
@pytest.mark.parametrize("epochs", [1, 50])
def test_time_that_ends_in_the_first_epoch_keeps_what_was_learned_but_no_checkpoint(
    even_split: LeaveLastTwoOut,
    ten_seconds_a_step: Callable[[Progress], None],
    tmp_path: Path,
    minutes: float,
    epochs: int,
) -> None:
    checkpoint = Checkpoint(tmp_path / "state", "f")
    config = replace(CONFIG, epochs=epochs, max_minutes=minutes)
    model, result = trained(even_split, config, checkpoint=checkpoint, on_step=ten_seconds_a_step)
    assert (result.stopped, len(result.history)) == ("time", 1)
    assert not same(model.state_dict(), build(SIZES, 1).state_dict())
    assert checkpoint.load() is None
