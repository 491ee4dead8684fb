"""Threads that share out the rows of a batch find the gradient that one finds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch

from sasrec_tasks.sasrec import gradient, optimizer
from sasrec_tasks.sasrec.batches import Batch
from sasrec_tasks.sasrec.checkpoint import Checkpoint
from sasrec_tasks.sasrec.fit import build, fit
from sasrec_tasks.sasrec.fit_config import FitConfig, Precision
from sasrec_tasks.sasrec.gradient import is_half
from sasrec_tasks.sasrec.losses import Loss
from sasrec_tasks.sasrec.model_config import SASRecConfig
from sasrec_tasks.sasrec.negatives import NegativeSampling
from sasrec_tasks.sasrec.sequences import LeaveLastTwoOut, Sequences
from sasrec_tasks.sasrec.trainer import Trainer

SIZES = SASRecConfig(num_items=30, hidden_units=8, max_len=10, dropout_rate=0.0)
CONFIG = FitConfig(learning_rate=0.01, batch_size=8, num_negatives=3, epochs=3)


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Set torch's threads; a batch of any size is shared out among them."""
    monkeypatch.setattr(gradient, "LEAST_SLOTS", 1)
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def gradients(
    split: LeaveLastTwoOut, sizes: SASRecConfig, config: FitConfig, epoch: int = 1
) -> list[torch.Tensor]:
    """The first batch's, its mean loss first."""
    model = build(sizes, 1).train()
    trainer = Trainer(model, split.train, config)
    batch = next(trainer.batches.epoch(1))
    with trainer.gradient.epoch(epoch):
        loss = trainer.gradient(batch)
    found = [each.grad for each in model.parameters()]
    return [loss] + [(each.to_dense() if each.is_sparse else each) for each in found if each is not None]


@pytest.mark.parametrize("is_sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("sampling", get_args(NegativeSampling))
@pytest.mark.parametrize("loss", get_args(Loss))
def test_the_gradient_is_the_same_whatever_the_number_of_threads(
    random_split: LeaveLastTwoOut,
    threads: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    loss: Loss,
    sampling: NegativeSampling,
    is_sparse: bool,
) -> None:
    monkeypatch.setattr(optimizer, "SPARSE_ITEMS", 1 if is_sparse else 10**9)
    config = replace(CONFIG, loss=loss, negative_sampling=sampling)
    threads(1)
    alone = gradients(random_split, SIZES, config)
    assert len(alone) > 20
    for number in (2, 3, 4, 8):
        threads(number)
        torch.testing.assert_close(gradients(random_split, SIZES, config), alone)


@pytest.mark.parametrize("sampling", get_args(NegativeSampling))
@pytest.mark.parametrize("loss", get_args(Loss))
def test_padding_changes_neither_the_loss_nor_its_gradient(
    random_split: LeaveLastTwoOut, loss: Loss, sampling: NegativeSampling
) -> None:
    config = replace(CONFIG, loss=loss, negative_sampling=sampling, batch_size=9)
    model = build(SIZES, 1).train()
    trainer = Trainer(model, random_split.train, config)

    def found(batch: Batch) -> list[torch.Tensor]:
        of = gradient.batch_loss(model, batch, config.objective)
        return [of.detach(), *torch.autograd.grad(of * batch.weight, list(model.parameters()))]

    for batch in trainer.batches.epoch(1):
        torch.testing.assert_close(found(batch.padded(SIZES.max_len)), found(batch))


def test_what_is_drawn_hangs_on_the_epoch_alone(
    random_split: LeaveLastTwoOut, threads: Callable[[int], None]
) -> None:
    sizes = replace(SIZES, dropout_rate=0.5)
    threads(1)
    alone = gradients(random_split, sizes, CONFIG)
    torch.rand(1)
    for number in (1, 2, 5):
        threads(number)
        torch.testing.assert_close(gradients(random_split, sizes, CONFIG), alone)
    assert not torch.allclose(gradients(random_split, sizes, CONFIG, epoch=2)[0], alone[0])


def test_parts_draw_masks_of_their_own(sequences: Callable[..., Sequences]) -> None:
    """Two users with the same items and negatives would else have the same loss."""
    split = LeaveLastTwoOut.of(sequences([[1, 2, 3, 4, 5, 6]] * 2))
    config = replace(CONFIG, negative_sampling="shared")
    model = build(replace(SIZES, dropout_rate=0.5), 1).train()
    trainer = Trainer(model, split.train, config)
    batch = next(trainer.batches.epoch(1))
    with trainer.gradient.epoch(1):
        of_both = trainer.gradient(batch)
    with trainer.gradient.epoch(1):
        of_one = trainer.gradient(batch.parts(2)[0])
    assert of_both != of_one


def test_a_batch_that_is_one_part_draws_what_torch_draws(
    random_split: LeaveLastTwoOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradient, "LEAST_SLOTS", 10**6)
    sizes = replace(SIZES, dropout_rate=0.5)
    model = build(sizes, 1).train()
    trainer = Trainer(model, random_split.train, CONFIG)
    batch = next(trainer.batches.epoch(1))
    with trainer.gradient.epoch(1):
        by_gradient = trainer.gradient(batch)
        by_torch = gradient.batch_loss(model, batch, CONFIG.objective)
    assert torch.equal(by_gradient, by_torch.detach())


def test_a_gpu_gets_batches_whole(random_split: LeaveLastTwoOut, monkeypatch: pytest.MonkeyPatch) -> None:
    """To cut one, the processor would have to wait for it."""

    def cut(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(Batch, "parts", cut)
    trainer = Trainer(build(SIZES, 1), random_split.train, CONFIG)
    trainer.gradient.parts = 1  # as on a GPU
    trainer.epoch(1, math.inf, lambda _: None)


def test_frozen_weights_stay(random_split: LeaveLastTwoOut) -> None:
    model = build(SIZES, 1)
    model.item_embedding.weight.requires_grad = False
    before = model.item_embedding.weight.clone()
    fit(model, random_split.train, CONFIG)
    assert torch.equal(model.item_embedding.weight, before)


def test_a_gradient_outside_an_epoch_is_refused(random_split: LeaveLastTwoOut) -> None:
    trainer = Trainer(build(SIZES, 1), random_split.train, CONFIG)
    with pytest.raises(RuntimeError, match="within epoch"):
        trainer.gradient(next(trainer.batches.epoch(1)))


@pytest.mark.parametrize("killed_in", [1, 2])
def test_a_training_is_resumed_exactly_by_any_number_of_threads(
    random_split: LeaveLastTwoOut, threads: Callable[[int], None], tmp_path: Path, killed_in: int
) -> None:
    threads(1)
    sizes = replace(SIZES, dropout_rate=0.3)
    unbroken, resumed = build(sizes, 1), build(sizes, 1)
    fit(unbroken, random_split.train, CONFIG)
    checkpoint = Checkpoint(tmp_path / "state.safetensors", "a")
    fit(resumed, random_split.train, replace(CONFIG, epochs=killed_in), checkpoint=checkpoint)
    threads(2)
    again = build(sizes, 9)
    assert fit(again, random_split.train, CONFIG, checkpoint=checkpoint).resumed_from_epoch == killed_in
    for name, weight in unbroken.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])


def test_an_error_in_a_thread_is_raised_and_torch_has_its_threads_back(
    random_split: LeaveLastTwoOut, threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise MemoryError("no more")

    monkeypatch.setattr(gradient, "batch_loss", fails)
    threads(3)
    with pytest.raises(MemoryError, match="no more"):
        Trainer(build(SIZES, 1), random_split.train, CONFIG).epoch(1, math.inf, lambda _: None)
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(
    ("precision", "device", "expected"),
    [
        ("auto", "cpu", False),
        ("float32", "cpu", False),
        ("bfloat16", "cpu", True),
        ("float32", "cuda", False),
    ],
)
def test_half_precision_is_chosen_by_device(precision: Precision, device: str, expected: bool) -> None:
    assert is_half(precision, torch.device(device)) is expected
