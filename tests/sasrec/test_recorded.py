"""On a GPU: steps are recorded, never wait for it, and are those of a CPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import get_args

import pytest
import torch

from sasrec_tasks.sasrec import optimizer, recorded
from sasrec_tasks.sasrec.batches import Batch
from sasrec_tasks.sasrec.fit import build
from sasrec_tasks.sasrec.fit_config import FitConfig
from sasrec_tasks.sasrec.losses import Loss
from sasrec_tasks.sasrec.model_config import SASRecConfig
from sasrec_tasks.sasrec.negatives import NegativeSampling
from sasrec_tasks.sasrec.sequences import LeaveLastTwoOut
from sasrec_tasks.sasrec.trainer import Progress, Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU on this machine")

SIZES = SASRecConfig(num_items=30, hidden_units=8, max_len=10, dropout_rate=0.0)
CONFIG = FitConfig(
    learning_rate=0.01, batch_size=8, num_negatives=3, average_decay=0.9, precision="float32", epochs=3
)
RECIPES = [
    pytest.param(SIZES, CONFIG, id="paper"),
    pytest.param(
        replace(
            SIZES,
            num_heads=2,
            blocks="gated",
            positions="rotary",
            conv_width=4,
            temperature=0.1,
            dropout_rate=0.2,
        ),
        replace(CONFIG, loss="softmax", windows="all", batch_size=128, batch_slots=40, precision="auto"),
        id="pipeline",
    ),
]


@pytest.fixture
def no_waiting() -> Iterator[Callable[[Progress], None]]:
    """To be called after each step: from the first on, what waits for the GPU is an error."""

    def on_step(progress: Progress) -> None:
        is_last = progress.done == progress.total  # after it, the loss of the epoch is read
        torch.cuda.set_sync_debug_mode("default" if is_last else "error")

    yield on_step
    torch.cuda.set_sync_debug_mode("default")


def trainer(split: LeaveLastTwoOut, sizes: SASRecConfig, config: FitConfig, device: str) -> Trainer:
    return Trainer(build(sizes, 1).to(device), split.train, config)


def losses(trained: Trainer, epochs: int) -> list[float]:
    return [trained.epoch(number, math.inf, lambda _: None)[0] for number in range(1, epochs + 1)]


@pytest.mark.parametrize("recorded_at", [2, 10**9], ids=["recorded", "not recorded"])
@pytest.mark.parametrize(("sizes", "config"), RECIPES)
def test_no_step_waits_for_the_gpu(
    random_split: LeaveLastTwoOut,
    no_waiting: Callable[[Progress], None],
    monkeypatch: pytest.MonkeyPatch,
    sizes: SASRecConfig,
    config: FitConfig,
    recorded_at: int,
) -> None:
    monkeypatch.setattr(recorded, "RECORDED_AT", recorded_at)
    trained = trainer(random_split, sizes, config, "cuda")
    for number in (1, 2, 3):
        assert trained.epoch(number, math.inf, no_waiting)[1]


@pytest.mark.parametrize("sampling", get_args(NegativeSampling))
@pytest.mark.parametrize("loss", get_args(Loss))
def test_recorded_steps_train_as_a_cpu_does(
    random_split: LeaveLastTwoOut, loss: Loss, sampling: NegativeSampling
) -> None:
    config = replace(CONFIG, loss=loss, negative_sampling=sampling)
    trained = trainer(random_split, SIZES, config, "cuda")
    on_gpu = losses(trained, 5)
    assert trained.gradient.recorded is not None
    assert len(trained.gradient.recorded) > 0
    assert on_gpu == pytest.approx(losses(trainer(random_split, SIZES, config, "cpu"), 5), rel=1e-3)


@pytest.mark.parametrize(("sizes", "config"), RECIPES)
def test_a_recording_draws_what_its_operations_draw(
    random_split: LeaveLastTwoOut, monkeypatch: pytest.MonkeyPatch, sizes: SASRecConfig, config: FitConfig
) -> None:
    """Else a training that is resumed would not go on as it would have."""
    found = []
    for recorded_at in (2, 3, 10**9):
        monkeypatch.setattr(recorded, "RECORDED_AT", recorded_at)
        found.append(losses(trainer(random_split, sizes, config, "cuda"), 4))
    assert found[0] == pytest.approx(found[2], rel=1e-3)
    assert found[1] == pytest.approx(found[2], rel=1e-3)


def test_masks_of_a_recording_change_from_step_to_step(random_split: LeaveLastTwoOut) -> None:
    trained = trainer(
        random_split, replace(SIZES, dropout_rate=0.5), replace(CONFIG, learning_rate=0.0), "cuda"
    )
    batch = next(trained.batches.epoch(1)).padded(SIZES.max_len).pinned()
    with trained.gradient.epoch(1):
        found = {float(trained.gradient(batch)) for _ in range(recorded.RECORDED_AT + 5)}
    assert len(found) == recorded.RECORDED_AT + 5


@pytest.mark.parametrize(("sizes", "config"), RECIPES)
def test_a_gpu_gets_the_batches_that_a_cpu_gets(
    random_split: LeaveLastTwoOut, sizes: SASRecConfig, config: FitConfig
) -> None:
    made = [*trainer(random_split, sizes, config, "cuda").prepared(2)]
    plain = [*trainer(random_split, sizes, config, "cpu").prepared(2)]
    assert len(made) == len(plain)
    for padded, batch in zip(made, plain, strict=True):
        assert all(part.is_pinned() for part in padded.tensors.values() if part.numel())
        on_gpu: Batch = padded.to(torch.device("cuda"))
        expected = batch.padded(sizes.max_len)
        assert on_gpu.tensors.keys() == expected.tensors.keys()
        for name, part in on_gpu.tensors.items():
            assert torch.equal(part.cpu(), expected.tensors[name])


def test_a_large_catalogue_is_trained_too(
    random_split: LeaveLastTwoOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizer, "SPARSE_ITEMS", 1)
    on_gpu = losses(trainer(random_split, SIZES, CONFIG, "cuda"), 3)
    assert on_gpu == pytest.approx(losses(trainer(random_split, SIZES, CONFIG, "cpu"), 3), rel=1e-3)
