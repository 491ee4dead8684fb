"""The training loop: early stopping, checkpoint and resume, a time budget.

Everything random in an epoch is drawn from ``(random_state, epoch)``, so that a training that was
killed and resumed ends with the same weights as an unbroken one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from sasrec_tasks.sasrec import metrics
from sasrec_tasks.sasrec.batches import Batch, Batches, sample_negatives
from sasrec_tasks.sasrec.checkpoint import (
    Checkpoint,
    Epoch,
    TrainingState,
    Weights,
    optimizer_moments,
    restore_moments,
)
from sasrec_tasks.sasrec.losses import LOSSES
from sasrec_tasks.sasrec.model import SASRec, SASRecConfig
from sasrec_tasks.sasrec.ranking import encode, model_scorer, rank_all
from sasrec_tasks.sasrec.sequences import HeldOut, Sequences

Metric = Literal["ndcg@10", "loss"]
Stopped = Literal["epochs", "patience", "time", "diverged"]


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How to train; defaults as in the paper and in scikit-rec."""

    loss: str = "bce"
    implicit: bool = True  # every event is a positive, whatever its outcome
    num_negatives: int = 1
    learning_rate: float = 0.001
    epochs: int = 200
    batch_size: int = 128  # users
    weight_decay: float = 0.0
    early_stopping_patience: int | None = None  # epochs without a better metric; None: never stop
    early_stopping_metric: Metric = "ndcg@10"
    restore_best_weights: bool = True
    max_minutes: float | None = None  # all tries of this training together
    random_state: int = 42

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, not {self.loss!r}")
        if self.early_stopping_metric not in get_args(Metric):
            raise ValueError(
                f"early_stopping_metric must be one of {', '.join(get_args(Metric))}, "
                f"not {self.early_stopping_metric!r}"
            )
        for name in ("num_negatives", "epochs", "batch_size", "early_stopping_patience"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and value >= 1):
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
        for name, positive in (("learning_rate", True), ("max_minutes", True), ("weight_decay", False)):
            value = getattr(self, name)
            if value is not None and not (0 <= value < math.inf and (value > 0 or not positive)):
                raise ValueError(f"{name} must be {'above' if positive else 'at least'} 0, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What training did; the weights are in the model."""

    history: tuple[Epoch, ...]
    best_epoch: int
    stopped: Stopped  # why it ended
    resumed_from_epoch: int | None  # last epoch of an earlier try that was not done again


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where an epoch stands, in positions (targets)."""

    epoch: int
    epochs: int
    done: int
    total: int


def build(config: SASRecConfig, random_state: int) -> SASRec:
    """A freshly initialised model, the same for the same ``random_state``."""
    with torch.random.fork_rng():
        torch.manual_seed(random_state)
        return SASRec(config)


def fit(
    model: SASRec,
    train: Sequences,
    config: FitConfig,
    *,
    validation: HeldOut | None = None,
    checkpoint: Checkpoint | None = None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    on_step: Callable[[Progress], None] = lambda progress: None,
) -> FitResult:
    """Train ``model`` in place, on the device it is on.

    Args:
        train: training events; users with fewer than two give no target.
        validation: what early stopping looks at; without it the last epoch counts as the best.
        checkpoint: where the state is kept after each epoch, and resumed from.
        on_epoch: called after each epoch.
        on_step: called after each batch.

    Raises:
        ValueError: no training targets, or ``early_stopping_patience`` without ``validation``.
        FloatingPointError: the loss stopped being a number before the first epoch was finished.
    """
    if config.early_stopping_patience is not None and validation is None:
        raise ValueError("early_stopping_patience needs validation interactions")
    batches = Batches(
        sequences=train,
        num_items=model.config.num_items,
        max_len=model.config.max_len,
        batch_size=config.batch_size,
        num_negatives=config.num_negatives,
        implicit=config.implicit,
        random_state=config.random_state,
    )
    if batches.positions == 0:
        raise ValueError("nothing to train on: no user has two training events")
    # The fused kernel updates all parameters in one pass; weight_decay is an L2 term, as in Adam.
    optimizer = torch.optim.Adam(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    history: list[Epoch] = []
    best = last = _copy(model)
    state = checkpoint.load() if checkpoint else None
    if state:
        model.load_state_dict(state.weights)
        restore_moments(optimizer, state.optimizer)
        history, best, last = list(state.history), state.best, state.weights

    deadline = math.inf
    if config.max_minutes is not None:
        deadline = time.monotonic() + config.max_minutes * 60 - sum(epoch.seconds for epoch in history)
    stopped = why_stop(history, config)
    while stopped is None and (not history or time.monotonic() < deadline):
        started = time.monotonic()
        number = len(history) + 1
        loss, finished = _train_epoch(model, optimizer, batches, number, config, deadline, on_step)
        if not finished and history:
            break  # an earlier epoch was validated; half an epoch on top of it is not worth the time
        metric = None if validation is None else validate(model, validation, config)
        if not (math.isfinite(loss) and math.isfinite(metric or 0.0) and model.is_finite()):
            stopped = "diverged"
            break
        history.append(
            Epoch(
                epoch=number,
                loss=loss,
                metric=metric,
                seconds=time.monotonic() - started,
                finished_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            )
        )
        last = _copy(model)
        if best_epoch(history, config) == number:
            best = last
        if checkpoint and finished:
            checkpoint.save(
                TrainingState(
                    weights=model.state_dict(),
                    best=best,
                    optimizer=optimizer_moments(optimizer),
                    history=tuple(history),
                )
            )
        on_epoch(history[-1])
        stopped = why_stop(history, config) if finished else "time"

    if not history:
        raise FloatingPointError("the loss is not a number in the first epoch: lower learning_rate")
    model.load_state_dict(best if config.restore_best_weights or stopped == "diverged" else last)
    return FitResult(
        history=tuple(history),
        best_epoch=best_epoch(history, config),
        stopped=stopped or "time",
        resumed_from_epoch=len(state.history) if state else None,
    )


def best_epoch(history: Sequence[Epoch], config: FitConfig) -> int:
    """Number of the epoch with the best metric, the earliest of equals; the last without metrics."""
    if history[-1].metric is None:
        return history[-1].epoch
    sign = -1 if config.early_stopping_metric == "loss" else 1
    return max(history, key=lambda epoch: (sign * (epoch.metric or 0.0), -epoch.epoch)).epoch


def why_stop(history: Sequence[Epoch], config: FitConfig) -> Stopped | None:
    """The reason to train no further epoch, if there is one."""
    if len(history) >= config.epochs:
        return "epochs"
    patience = config.early_stopping_patience
    if history and patience is not None and len(history) - best_epoch(history, config) >= patience:
        return "patience"
    return None


def validate(model: SASRec, validation: HeldOut, config: FitConfig) -> float:
    """The early stopping metric: NDCG@10 of full ranking without seen items, or the loss.

    The loss is that of training, at the held-out targets, with the same negatives every epoch.
    Not a number where the model has diverged.
    """
    if config.early_stopping_metric == "ndcg@10":
        try:
            score = model_scorer(model, validation.history)
        except FloatingPointError:
            return math.nan
        served, _ = rank_all(score, validation)
        return float(metrics.per_user(served)["ndcg@10"].mean())
    random = np.random.default_rng(config.random_state)
    negatives = sample_negatives(validation.targets, config.num_negatives, model.config.num_items, random)
    labels = np.ones(len(validation), np.float32) if config.implicit else validation.outcomes
    device = model.item_embedding.weight.device
    with torch.inference_mode():
        loss = _loss(
            model,
            encode(model, validation.history),
            torch.from_numpy(validation.targets).to(device),
            torch.from_numpy(negatives).to(device),
            torch.from_numpy(np.asarray(labels)).to(device),
            config.loss,
        )
    return float(loss)


def _train_epoch(
    model: SASRec,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    number: int,
    config: FitConfig,
    deadline: float,
    on_step: Callable[[Progress], None],
) -> tuple[float, bool]:
    """One pass over the batches: the mean loss, and whether it got through before the deadline."""
    device = model.item_embedding.weight.device
    model.train()
    total = torch.zeros((), device=device)
    done = 0
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence([config.random_state, number]).generate_state(1)[0]))
        for batch in batches.epoch(number):
            batch = batch.to(device)
            loss = batch_loss(model, batch, config.loss)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.detach() * len(batch.targets)  # no .item(): a GPU need not be waited for
            done += len(batch.targets)
            on_step(Progress(epoch=number, epochs=config.epochs, done=done, total=batches.positions))
            if time.monotonic() >= deadline and done < batches.positions:
                return float(total) / done, False
    return float(total) / done, True


def batch_loss(model: SASRec, batch: Batch, loss: str) -> Tensor:
    """The loss of a batch, a scalar; only real slots count."""
    hidden = model(batch.inputs).flatten(0, 1).index_select(0, batch.slots)  # (P, D)
    return _loss(model, hidden, batch.targets, batch.negatives, batch.labels, loss)


def _loss(
    model: SASRec, hidden: Tensor, targets: Tensor, negatives: Tensor, labels: Tensor, loss: str
) -> Tensor:
    positive = (hidden * model.item_embedding(targets)).sum(-1)  # (P,)
    negative = (model.item_embedding(negatives) @ hidden.unsqueeze(-1)).squeeze(-1)  # (P, K)
    return LOSSES[loss](positive, negative, labels)


def _copy(model: SASRec) -> Weights:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
