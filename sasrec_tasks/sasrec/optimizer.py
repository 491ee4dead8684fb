"""What updates the weights, and the moving average of them."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer, SparseAdam

from sasrec_tasks.sasrec.checkpoint import Weights
from sasrec_tasks.sasrec.fit_config import FitConfig
from sasrec_tasks.sasrec.model import SASRec

SPARSE_ITEMS = 100_000
"""Catalogue from which on gradients of the item embedding hold the items of a batch, not all: with a
million items a step takes a quarter of the time."""

AVERAGED_AT_ONCE = 65_536
"""Items per step between updates of the average, so that these don't cost more than the step itself."""


def optimizers(model: SASRec, config: FitConfig) -> list[Optimizer]:
    """Adam, in one fused pass over all parameters; weight_decay is an L2 term, as in Kingma & Ba 2015.

    For a large catalogue and a loss that scores some items only, the item embedding has Adam of its own,
    which updates the moments and weights of a batch's items, and leaves the others as they are.
    """
    betas = (0.9, config.adam_beta2)
    embedding = model.item_embedding
    embedding.sparse = (
        config.loss != "softmax" and not config.weight_decay and model.config.num_items >= SPARSE_ITEMS
    )
    dense = [each for each in model.parameters() if not (embedding.sparse and each is embedding.weight)]
    adam = Adam(dense, lr=config.learning_rate, betas=betas, weight_decay=config.weight_decay, fused=True)
    if not embedding.sparse:
        return [adam]
    return [adam, SparseAdam([embedding.weight], lr=config.learning_rate, betas=betas)]


def moments(of: list[Optimizer]) -> Weights:
    """The tensors of optimisers, as safetensors can hold them: "<optimiser>.<parameter>.<moment>"."""
    return {
        f"{number}.{parameter}.{name}": torch.as_tensor(value)
        for number, optimizer in enumerate(of)
        for parameter, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def restore_moments(of: list[Optimizer], found: Weights) -> None:
    """Undo `moments`."""
    for number, optimizer in enumerate(of):
        states: dict[int, dict[str, Tensor | int]] = {}
        for key, value in found.items():
            owner, parameter, name = key.split(".")
            if int(owner) == number:
                is_count = not value.dtype.is_floating_point  # SparseAdam counts its steps in an int
                states.setdefault(int(parameter), {})[name] = int(value) if is_count else value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": states})


class Average:
    """The exponential moving average of a model's weights, over steps.

    It is of fewer steps while there are few (as in TensorFlow's ExponentialMovingAverage), and of a large
    catalogue it is updated after the first step, every few steps, and at the end of an epoch.
    """

    def __init__(self, model: SASRec, decay: float) -> None:
        self.every = max(model.config.num_items // AVERAGED_AT_ONCE, 1)
        self.model = deepcopy(model)
        self._decay = decay**self.every
        self._steps = self._updates = 0
        self._is_behind = False

    def update(self, model: SASRec) -> None:
        """Take in the weights after a step."""
        self._steps += 1
        self._is_behind = self._steps > 1 and self._steps % self.every > 0
        if not self._is_behind:
            self._take_in(model)

    def catch_up(self, model: SASRec) -> None:
        """Take in the newest weights, if the last step's were not."""
        if self._is_behind:
            self._take_in(model)
        self._is_behind = False

    def state(self) -> Weights:
        """What `restore` takes."""
        counts = {"steps": torch.tensor(self._steps), "updates": torch.tensor(self._updates)}
        return {**self.model.state_dict(), **counts}

    def restore(self, state: Weights) -> None:
        """Go on from another average."""
        weights = dict(state)
        self._steps, self._updates = int(weights.pop("steps")), int(weights.pop("updates"))
        self.model.load_state_dict(weights)

    @torch.no_grad()
    def _take_in(self, model: SASRec) -> None:
        done = self._updates  # counted here: PyTorch's AveragedModel makes a GPU be waited for at every step
        share = 1 - min(self._decay, (1 + done) / (10 + done)) if done else 1.0
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), share)
        self._updates += 1
