"""Threads that share out the rows of a batch find the gradient that one finds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch

from sasrec_tasks.sasrec import blocks, gradient, optimizer
from sasrec_tasks.sasrec.batches import Batch
from sasrec_tasks.sasrec.checkpoint import Checkpoint
from sasrec_tasks.sasrec.fit import build, fit
from sasrec_tasks.sasrec.fit_config import FitConfig, Precision
from sasrec_tasks.sasrec.gradient import Gradient, is_half
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


def gradients(split: LeaveLastTwoOut, sizes: SASRecConfig, config: FitConfig) -> list[torch.Tensor]:
    """The first batch's, its mean loss first."""
    model = build(sizes, 1).train()
    trainer = Trainer(model, split.train, config)
    batch = next(trainer.batches.epoch(1))
    with trainer.gradient.threads(1):
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


def test_each_thread_draws_numbers_of_its_own_and_the_same_each_time(
    sequences: Callable[..., Sequences], threads: Callable[[int], None]
) -> None:
    split = LeaveLastTwoOut.of(sequences([[1, 2, 3, 4, 5, 6]] * 2))
    sizes = replace(SIZES, dropout_rate=0.5)
    threads(1)
    alone = gradients(split, sizes, CONFIG)
    threads(2)
    together = gradients(split, sizes, CONFIG)
    assert all(map(torch.equal, together, gradients(split, sizes, CONFIG)))
    assert not torch.allclose(together[0], alone[0])
    model = build(sizes, 1).train()
    trainer = Trainer(model, split.train, CONFIG)
    first, second = next(trainer.batches.epoch(1)).parts(2)
    assert torch.equal(first.inputs, second.inputs)
    second = replace(second, negatives=first.negatives)
    with trainer.gradient.threads(1):
        losses = [trainer.gradient._part(number, part)[0] for number, part in enumerate((first, second))]
    assert losses[0] != losses[1]


def test_one_thread_draws_what_torch_draws(random_split: LeaveLastTwoOut) -> None:
    sizes = replace(SIZES, dropout_rate=0.5)
    model = build(sizes, 1).train()
    trainer = Trainer(model, random_split.train, CONFIG)
    batch = next(trainer.batches.epoch(1))
    with trainer.gradient.threads(1):
        by_gradient = trainer.gradient(batch)
        by_torch = gradient.batch_loss(model, batch, CONFIG.objective)
    assert torch.equal(by_gradient, by_torch.detach())


@pytest.mark.parametrize("killed_in", [1, 2])
def test_a_training_by_two_threads_is_resumed_exactly(
    random_split: LeaveLastTwoOut, threads: Callable[[int], None], tmp_path: Path, killed_in: int
) -> None:
    threads(2)
    sizes = replace(SIZES, dropout_rate=0.3)
    unbroken, resumed = build(sizes, 1), build(sizes, 1)
    fit(unbroken, random_split.train, CONFIG)
    checkpoint = Checkpoint(tmp_path / "state.safetensors", "a")
    fit(resumed, random_split.train, replace(CONFIG, epochs=killed_in), checkpoint=checkpoint)
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
    assert blocks.drawing.generator is None


def test_little_work_is_not_shared_out(
    random_split: LeaveLastTwoOut, threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradient, "LEAST_SLOTS", 10**6)
    parts: list[Batch] = []
    real = Gradient._part

    def spied(self: Gradient, number: int, part: Batch) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        parts.append(part)
        return real(self, number, part)

    monkeypatch.setattr(Gradient, "_part", spied)
    threads(4)
    trainer = Trainer(build(SIZES, 1), random_split.train, CONFIG)
    batch = next(trainer.batches.epoch(1))
    with trainer.gradient.threads(1):
        trainer.gradient(batch)
    assert len(parts) == 1
    assert parts[0] is batch


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
