"""The learning rate over training, the moving average of weights, and resuming with both."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sasrec_tasks.sasrec.checkpoint import Checkpoint, Epoch
from sasrec_tasks.sasrec.fit import build, fit
from sasrec_tasks.sasrec.fit_config import FitConfig
from sasrec_tasks.sasrec.gradient import is_half
from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.model_config import SASRecConfig
from sasrec_tasks.sasrec.sequences import LeaveLastTwoOut
from sasrec_tasks.sasrec.trainer import Trainer, copy_of

SIZES = SASRecConfig(num_items=30, hidden_units=8, max_len=4, temperature=0.1, attention_dropout=False)
RECIPE = FitConfig(
    loss="softmax",
    windows="all",
    batch_slots=40,
    learning_rate=0.01,
    learning_rate_schedule="cosine",
    warmup_epochs=1,
    adam_beta2=0.98,
    average_decay=0.9,
    epochs=5,
)


def rates(split: LeaveLastTwoOut, config: FitConfig) -> list[float]:
    """The learning rate of every step."""
    trainer = Trainer(build(SIZES, 1), split.train, config)
    found: list[float] = []
    for number in range(1, config.epochs + 1):
        trainer.epoch(number, math.inf, lambda _: found.append(trainer.optimizers[0].param_groups[0]["lr"]))
    return found


def test_a_constant_learning_rate_is_constant(random_split: LeaveLastTwoOut) -> None:
    found = rates(random_split, replace(RECIPE, learning_rate_schedule="constant", warmup_epochs=0.0))
    assert set(found) == {0.01}


def test_the_learning_rate_rises_in_the_warm_up_and_falls_to_zero(random_split: LeaveLastTwoOut) -> None:
    found = rates(random_split, RECIPE)
    top = found.index(max(found))
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)
    assert top + 1 == pytest.approx(len(found) / 5, abs=2)
    assert found[0] < 0.002
    assert max(found) == pytest.approx(0.01, rel=0.05)
    assert found[-1] < 0.0001


def test_the_schedule_ends_with_the_time_budget(
    random_split: LeaveLastTwoOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(build(SIZES, 1), random_split.train, replace(RECIPE, epochs=1000, max_minutes=10.0))
    for left, wanted in ((600, 0.01), (300, 0.005), (6, 0.0)):
        monkeypatch.setattr("time.monotonic", lambda left=left: 1000.0 - left)
        trainer.epoch(2, 1000.0, lambda _: None)
        assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(wanted, abs=1e-4)


def test_a_schedule_without_any_time_is_no_error(random_split: LeaveLastTwoOut) -> None:
    result = fit(build(SIZES, 1), random_split.train, replace(RECIPE, max_minutes=0.0))
    assert (result.stopped, len(result.history)) == ("time", 1)


def test_without_decay_the_average_is_the_newest_weights(random_split: LeaveLastTwoOut) -> None:
    trainer = Trainer(build(SIZES, 1), random_split.train, replace(RECIPE, average_decay=0.0))
    trainer.epoch(1, math.inf, lambda _: None)
    assert trainer.used is not trainer.model
    for name, tensor in copy_of(trainer.used).items():
        torch.testing.assert_close(tensor, trainer.model.state_dict()[name])


def test_the_average_follows_the_weights_slowly(random_split: LeaveLastTwoOut) -> None:
    trainer = Trainer(build(SIZES, 1), random_split.train, RECIPE)
    lags = []
    for number in (1, 2, 3, 4, 5):
        trainer.epoch(number, math.inf, lambda _: None)
        new, average = trainer.model.norm.weight, trainer.used.norm.weight
        lags.append(float((new - average).norm().detach()))
    assert all(lag > 0 for lag in lags)
    assert lags[-1] < max(lags)  # the learning rate has fallen to 0: it catches up


def test_the_average_is_what_is_kept(random_split: LeaveLastTwoOut) -> None:
    trainer = Trainer(build(SIZES, 1), random_split.train, RECIPE)
    for number in range(1, 6):
        trainer.epoch(number, math.inf, lambda _: None)
    model = build(SIZES, 1)
    fit(model, random_split.train, RECIPE)
    for name, tensor in copy_of(trainer.used).items():
        assert torch.equal(model.state_dict()[name], tensor)


@pytest.mark.parametrize("epoch", [1, 3, 4])
def test_a_resumed_training_ends_like_an_unbroken_one(
    random_split: LeaveLastTwoOut, tmp_path: Path, epoch: int
) -> None:
    def trained(checkpoint: Checkpoint | None, stop_after: int | None = None) -> SASRec:
        def on_epoch(done: Epoch) -> None:
            if done.epoch == stop_after:
                raise InterruptedError

        model = build(SIZES, 1)
        fit(
            model,
            random_split.train,
            RECIPE,
            validation=random_split.validation,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
        )
        return model

    unbroken = trained(None)
    checkpoint = Checkpoint(tmp_path / "state", "f")
    with pytest.raises(InterruptedError):
        trained(checkpoint, stop_after=epoch)
    resumed = trained(checkpoint)
    assert all(
        torch.equal(unbroken.state_dict()[name], resumed.state_dict()[name]) for name in unbroken.state_dict()
    )


def test_half_precision_learns_as_well(random_split: LeaveLastTwoOut) -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        config = replace(RECIPE, precision=precision)
        result = fit(build(SIZES, 1), random_split.train, config)
        losses[precision] = [epoch.loss for epoch in result.history]
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)
    assert losses["bfloat16"][-1] < losses["bfloat16"][0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU on this machine")
def test_training_on_a_gpu_uses_half_precision(random_split: LeaveLastTwoOut) -> None:
    device = torch.device("cuda")
    assert is_half("auto", device) is torch.cuda.is_bf16_supported()
    losses = {}
    for name in ("cpu", "cuda"):
        result = fit(build(SIZES, 1).to(name), random_split.train, RECIPE)
        losses[name] = [epoch.loss for epoch in result.history]
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=0.05)
