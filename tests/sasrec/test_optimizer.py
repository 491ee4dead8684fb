"""Adam, its sparse kind for large catalogues, and the moving average."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sasrec_tasks.sasrec import optimizer
from sasrec_tasks.sasrec.checkpoint import Checkpoint
from sasrec_tasks.sasrec.fit import build, fit
from sasrec_tasks.sasrec.fit_config import FitConfig
from sasrec_tasks.sasrec.gradient import batch_loss
from sasrec_tasks.sasrec.losses import Loss
from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.model_config import SASRecConfig
from sasrec_tasks.sasrec.optimizer import Average, moments, optimizers, restore_moments
from sasrec_tasks.sasrec.sequences import LeaveLastTwoOut, Sequences
from sasrec_tasks.sasrec.trainer import Trainer

SIZES = SASRecConfig(num_items=30, hidden_units=8, max_len=4, dropout_rate=0.0)
SAMPLED = FitConfig(loss="sampled_softmax", num_negatives=4, negative_sampling="shared", learning_rate=0.01)


@pytest.fixture
def sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every catalogue is large."""
    monkeypatch.setattr(optimizer, "SPARSE_ITEMS", 1)


@pytest.mark.usefixtures("sparse")
@pytest.mark.parametrize("loss", ["bce", "gbce", "sampled_softmax"])
def test_the_first_sparse_step_is_that_of_adam_on_the_batchs_items_and_none_on_others(
    random_split: LeaveLastTwoOut, loss: Loss, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(SAMPLED, loss=loss, batch_size=3)
    weights = {}
    for is_sparse, least in ((True, 1), (False, 10**9)):
        monkeypatch.setattr(optimizer, "SPARSE_ITEMS", least)
        model = build(SIZES, 1).train()
        before = model.item_embedding.weight.detach().clone()
        trainer = Trainer(model, random_split.train, config)
        batch = next(trainer.batches.epoch(1))
        batch_loss(model, batch, config.objective).backward()  # type: ignore[no-untyped-call]
        assert model.item_embedding.weight.grad is not None
        assert model.item_embedding.weight.grad.is_sparse is is_sparse
        for each in trainer.optimizers:
            each.step()
        weights[is_sparse] = model.state_dict()
    for name in weights[True]:
        torch.testing.assert_close(weights[True][name], weights[False][name], atol=5e-4, rtol=0)
    used = torch.cat([batch.inputs.flatten(), batch.targets, batch.negatives.flatten()])
    others = torch.ones(31, dtype=torch.bool)
    others[used] = False
    assert torch.equal(weights[True]["item_embedding.weight"][others], before[others])
    assert others.sum() > 1


@pytest.mark.usefixtures("sparse")
def test_a_pattern_is_learned_by_sparse_steps(sequences: Callable[..., Sequences]) -> None:
    cyclic = sequences([[1 + (start + step) % 12 for step in range(8)] for start in range(12)])
    config = replace(SAMPLED, epochs=60, batch_size=4)
    result = fit(build(SIZES, 1), cyclic, config)
    assert result.history[-1].loss < 0.1 * result.history[0].loss


@pytest.mark.usefixtures("sparse")
def test_a_resumed_sparse_training_ends_like_an_unbroken_one(
    random_split: LeaveLastTwoOut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizer, "AVERAGED_AT_ONCE", 10)  # every third step
    config = replace(SAMPLED, epochs=4, average_decay=0.9, batch_size=10)
    unbroken, resumed = build(SIZES, 1), build(SIZES, 1)
    fit(unbroken, random_split.train, config)
    checkpoint = Checkpoint(tmp_path / "state", "f")
    fit(build(SIZES, 1), random_split.train, replace(config, epochs=2), checkpoint=checkpoint)
    assert fit(resumed, random_split.train, config, checkpoint=checkpoint).resumed_from_epoch == 2
    for name, weight in unbroken.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], weight)


@pytest.mark.usefixtures("sparse")
@pytest.mark.parametrize("change", [{"loss": "softmax"}, {"weight_decay": 0.1}])
def test_what_changes_all_items_in_each_step_is_not_sparse(change: dict[str, object]) -> None:
    model = build(SIZES, 1)
    assert len(optimizers(model, replace(SAMPLED, **change))) == 1  # type: ignore[arg-type]
    assert not model.item_embedding.sparse


def test_a_small_catalogue_has_one_optimizer_for_all() -> None:
    assert len(optimizers(build(SIZES, 1), SAMPLED)) == 1


def step(model: SASRec, of: list[torch.optim.Optimizer], count: int) -> None:
    for _ in range(count):
        for each in of:
            each.zero_grad()
        model(torch.tensor([[1, 2, 3]])).sum().backward()
        for each in of:
            each.step()


@pytest.mark.parametrize("least", [1, 10**9])
def test_optimizers_go_on_as_if_never_interrupted(least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizer, "SPARSE_ITEMS", least)
    unbroken = build(SIZES, 1)
    first = optimizers(unbroken, SAMPLED)
    step(unbroken, first, 3)
    resumed = build(SIZES, 1)
    resumed.load_state_dict(unbroken.state_dict())
    kept = {name: value.clone() for name, value in moments(first).items()}
    step(unbroken, first, 4)
    second = optimizers(resumed, SAMPLED)
    restore_moments(second, kept)
    step(resumed, second, 4)
    for name, weight in unbroken.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], weight)


def test_an_average_of_fewer_updates_is_close_to_that_of_every_step(
    monkeypatch: pytest.MonkeyPatch, random_split: LeaveLastTwoOut
) -> None:
    averages = {}
    for every in (1, 4):
        monkeypatch.setattr(optimizer, "AVERAGED_AT_ONCE", SIZES.num_items // every)
        trainer = Trainer(
            build(SIZES, 1), random_split.train, replace(SAMPLED, average_decay=0.99, batch_size=10)
        )
        assert trainer.average is not None
        assert trainer.average.every == every
        for number in range(1, 40):
            trainer.epoch(number, float("inf"), lambda _: None)
        averages[every] = trainer.used.item_embedding.weight
    moved = float((averages[1] - build(SIZES, 1).item_embedding.weight).norm().detach())
    assert float((averages[1] - averages[4]).norm().detach()) < 0.1 * moved


def test_an_average_resumes(random_split: LeaveLastTwoOut) -> None:
    model = build(SIZES, 1)
    average, other = Average(model, 0.9), Average(model, 0.9)
    step(model, optimizers(model, SAMPLED), 2)
    average.update(model)
    other.restore(average.state())
    assert torch.equal(other.model.norm.weight, average.model.norm.weight)
