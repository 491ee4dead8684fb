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
from typing import Literal

import numpy as np
import torch

from sasrec_tasks.sasrec import metrics
from sasrec_tasks.sasrec.checkpoint import Checkpoint, Epoch
from sasrec_tasks.sasrec.fit_config import FitConfig
from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.model_config import SASRecConfig
from sasrec_tasks.sasrec.parallel import ALONE, Group, own
from sasrec_tasks.sasrec.ranking import rank_all
from sasrec_tasks.sasrec.scoring import encode, model_scorer
from sasrec_tasks.sasrec.sequences import HeldOut, Sequences, row_blocks
from sasrec_tasks.sasrec.trainer import Progress, Trainer, copy_of

Stopped = Literal["epochs", "patience", "time", "diverged"]


LOSS_USERS = 128
"""Users of whom the validation loss is computed at once, since negatives of all could be gigabytes; with another
number, others would be drawn."""


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What training did; the weights are in the model."""

    history: tuple[Epoch, ...]
    best_epoch: int
    stopped: Stopped  # why it ended
    resumed_from_epoch: int | None  # last epoch of an earlier try that was not done again


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
    group: Group = ALONE,
) -> FitResult:
    """Train ``model`` in place, on the device it is on.

    Args:
        train: training events; users with fewer than two give no target.
        validation: what early stopping looks at; without it the last epoch counts as the best.
        checkpoint: where the state is kept after each epoch, and resumed from.
        on_epoch: called after each epoch.
        on_step: called after each batch.
        group: the processes that train the model together: each has to call this with the same arguments. The first
            one writes the checkpoint, which all must be able to read.

    Raises:
        ValueError: no training targets, or ``early_stopping_patience`` without ``validation``.
        FloatingPointError: the loss or the weights stopped being finite before the first epoch was finished.
    """
    if config.early_stopping_patience is not None and validation is None:
        raise ValueError("early_stopping_patience needs validation interactions")
    trainer = Trainer(model, train, config, group)
    history: list[Epoch] = []
    best = copy_of(model)
    resumed_from_epoch = None
    if state := checkpoint.load() if checkpoint else None:
        trainer.restore(state)
        history, best = list(state.history), state.best
        resumed_from_epoch = len(history)
        del state  # of a large catalogue it is gigabytes
    _require_same(len(history), group)
    last = copy_of(trainer.used)

    deadline = math.inf
    if config.max_minutes is not None:
        deadline = time.monotonic() + config.max_minutes * 60 - sum(epoch.seconds for epoch in history)
    stopped = why_stop(history, config)
    while stopped is None and (not history or not trainer.is_over(deadline)):
        started = time.monotonic()
        number = len(history) + 1
        loss, finished = trainer.epoch(number, deadline, on_step)
        if not finished and history:
            break  # an earlier epoch was validated; half an epoch on top of it is not worth the time
        metric = None if validation is None else validate(trainer.used, validation, config, group)
        if not (math.isfinite(loss) and math.isfinite(metric or 0.0) and trainer.used.is_finite()):
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
        last = copy_of(trainer.used)
        if best_epoch(history, config) == number:
            best = last
        if checkpoint and finished and group.rank == 0:
            checkpoint.save(trainer.state(best, tuple(history)))
        on_epoch(history[-1])
        stopped = why_stop(history, config) if finished else "time"

    if not history:
        raise FloatingPointError(f"training diverged in epoch 1: {what_calms(config)}")
    model.load_state_dict(best if config.restore_best_weights or stopped == "diverged" else last)
    return FitResult(
        history=tuple(history),
        best_epoch=best_epoch(history, config),
        stopped=stopped or "time",
        resumed_from_epoch=resumed_from_epoch,
    )


def _require_same(epochs: int, group: Group) -> None:
    """Have all processes go on from the checkpoint that the first one has read."""
    first = torch.tensor(float(epochs if group.rank == 0 else 0))
    if group.size > 1:
        group.add_up([first])
    if first != epochs:
        raise RuntimeError(
            f"process {group.rank} has read a checkpoint of epoch {epochs}, the first one of {int(first)}: begin anew"
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


def what_calms(config: FitConfig) -> str:
    """What to try where the loss or the weights of a training have not stayed finite."""
    tries = [f"lower learning_rate, which is {config.learning_rate:g}"]
    if config.warmup_epochs < 1:
        tries.append(f"raise warmup_epochs, which is {config.warmup_epochs:g}")
    if config.loss == "mse" and not config.implicit:
        tries.append("bring the outcomes to a scale of about 1")
    if config.precision != "float32":
        tries.append(
            "set precision=float32" + (" (on a GPU, auto is bfloat16)" * (config.precision == "auto"))
        )
    return ", ".join(tries)


def validate(model: SASRec, validation: HeldOut, config: FitConfig, group: Group = ALONE) -> float:
    """The early stopping metric: NDCG@10 of full ranking without seen items, or the loss.

    Users are ranked by the process of the group that reads their histories; the first one computes the loss. It is that
    of training, at the held-out targets, with the same negatives every epoch. Not a number where the
    model has diverged.
    """
    if config.early_stopping_metric == "ndcg@10":
        some = validation if group.size == 1 else validation.select(own(validation.history, group))
        ndcg = torch.zeros((), dtype=torch.float64)
        try:
            served, _ = rank_all(model_scorer(model, some.history), some)
            ndcg += float(metrics.per_user(served)["ndcg@10"].sum())
        except FloatingPointError:
            ndcg += math.nan
        if group.size > 1:
            group.add_up([ndcg])
        return float(ndcg) / len(validation) if len(validation) else math.nan
    loss = torch.tensor(_loss(model, validation, config) if group.rank == 0 else 0.0, dtype=torch.float64)
    if group.size > 1:
        group.add_up([loss])
    return float(loss)


def _loss(model: SASRec, validation: HeldOut, config: FitConfig) -> float:
    labels = np.ones(len(validation), np.float32) if config.implicit else np.asarray(validation.outcomes)
    random = np.random.default_rng(config.random_state)
    num_items, total = model.config.num_items, 0.0
    with torch.inference_mode():
        hidden = encode(model, validation.history)
        for rows in row_blocks(len(validation), LOSS_USERS):
            targets = validation.targets[rows]
            seen = validation.seen.select(rows)
            negatives = config.negatives(num_items).draw(targets, np.arange(len(rows)), seen, random)
            parts = [torch.from_numpy(part).to(hidden.device) for part in (targets, negatives, labels[rows])]
            total += len(rows) * float(config.objective(model, hidden[rows], *parts))
    return total / len(validation)
