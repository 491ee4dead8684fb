"""One epoch: batches, the learning rate, and the steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from sasrec_tasks.sasrec.ahead import made_ahead
from sasrec_tasks.sasrec.batches import Batch, Batches
from sasrec_tasks.sasrec.checkpoint import Epoch, TrainingState, Weights
from sasrec_tasks.sasrec.fit_config import FitConfig
from sasrec_tasks.sasrec.gradient import Gradient
from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.optimizer import Average, moments, optimizers, restore_moments
from sasrec_tasks.sasrec.parallel import ALONE, Group
from sasrec_tasks.sasrec.sequences import Sequences


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where an epoch stands, in positions (targets)."""

    epoch: int
    epochs: int
    done: int
    total: int


class Trainer:
    """A model in training; what is validated and kept of it is `used`.

    Raises:
        ValueError: no user has two training events.
    """

    def __init__(self, model: SASRec, train: Sequences, config: FitConfig, group: Group = ALONE) -> None:
        self.model, self.config, self.group = model, config, group
        self.batches = Batches(
            sequences=train,
            max_len=model.config.max_len,
            windows=config.windows,
            batch_size=config.batch_size,
            batch_slots=config.batch_slots,
            negatives=config.negatives(model.config.num_items),
            implicit=config.implicit,
            random_state=config.random_state,
            group=group,
        )
        if self.batches.positions == 0:
            raise ValueError("nothing to train on: no user has two training events")
        self.optimizers = optimizers(model, config)
        self.gradient = Gradient(model, config, group)
        self.average = None if config.average_decay is None else Average(model, config.average_decay)

    @property
    def used(self) -> SASRec:
        """The moving average of the weights, or the weights themselves if none is kept."""
        return self.model if self.average is None else self.average.model

    def epoch(self, number: int, deadline: float, on_step: Callable[[Progress], None]) -> tuple[float, bool]:
        """One pass over the batches: the mean loss, and whether it got through before the deadline."""
        device = self.model.item_embedding.weight.device
        self.model.train()
        total = torch.zeros((), device=device)
        done, every = 0, self.batches.positions
        with self.gradient.epoch(number):
            for batch in self.prepared(number):
                positions, spent = self._of_all(batch.positions, deadline)
                self._set_learning_rate(number - 1 + (done + positions / 2) / every, spent)
                loss = self.gradient(batch)
                for optimizer in self.optimizers:
                    optimizer.step()
                if self.average is not None:
                    self.average.update(self.model)
                total += loss * batch.positions  # no .item(): a GPU need not be waited for
                done += positions
                on_step(Progress(epoch=number, epochs=self.config.epochs, done=done, total=every))
                if spent >= 1 or (self.group.size == 1 and time.monotonic() >= deadline):
                    break
        if self.average is not None:
            self.average.catch_up(self.model)
        if self.group.size > 1:
            self.group.add_up([total])
        return float(total) / done, done == every

    def prepared(self, epoch: int) -> Iterator[Batch]:
        """Of an epoch; for a GPU, the next ones are made while it works on one, and it copies them by itself."""
        batches, max_len = self.batches.epoch(epoch), self.model.config.max_len
        if self.model.item_embedding.weight.device.type == "cpu":
            return batches
        return made_ahead(
            batch.padded(max_len).pinned() if len(batch.targets) else batch for batch in batches
        )

    def state(self, best: Weights, history: tuple[Epoch, ...]) -> TrainingState:
        """All that the next epoch needs."""
        return TrainingState(
            weights=self.model.state_dict(),
            best=best,
            optimizer=moments(self.optimizers),
            average={} if self.average is None else self.average.state(),
            history=history,
        )

    def restore(self, state: TrainingState) -> None:
        """Go on where another training left off."""
        self.model.load_state_dict(state.weights)
        restore_moments(self.optimizers, state.optimizer)
        if self.average is not None:
            self.average.restore(state.average)

    def is_over(self, deadline: float) -> bool:
        """Whether the time budget is spent, as all processes have it."""
        return self._of_all(0, deadline)[1] >= 1

    def _of_all(self, positions: int, deadline: float) -> tuple[int, float]:
        """Positions of a batch, and the share of the time budget that is spent, as all processes have it."""
        left = deadline - time.monotonic()
        spent = 1 - left / (60 * self.config.max_minutes) if self.config.max_minutes else float(left <= 0)
        if self.group.size == 1:
            return positions, spent
        told = torch.tensor([positions, spent / self.group.size], dtype=torch.float64)
        self.group.add_up([told])
        return round(told[0].item()), told[1].item()

    def _set_learning_rate(self, epochs: float, spent: float) -> None:
        """By how far training is: in epochs or, if that is further, in its time budget."""
        config = self.config
        factor = min(epochs / config.warmup_epochs, 1.0) if config.warmup_epochs else 1.0
        if config.learning_rate_schedule == "cosine":
            share = max(epochs - config.warmup_epochs, 0) / max(config.epochs - config.warmup_epochs, 1e-9)
            if config.max_minutes:
                share = max(share, spent)
            factor *= 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * factor


def copy_of(model: SASRec) -> Weights:
    """The weights as they are now."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
