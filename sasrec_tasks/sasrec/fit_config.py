"""How to train: every choice that is not a size of the model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from sasrec_tasks.sasrec.batches import Windows
from sasrec_tasks.sasrec.losses import Loss
from sasrec_tasks.sasrec.objective import Objective

Metric = Literal["ndcg@10", "loss"]
Schedule = Literal["constant", "cosine"]


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How to train; defaults as in the paper and in scikit-rec."""

    loss: Loss = "bce"
    implicit: bool = True  # every event is a positive, whatever its outcome
    num_negatives: int = 1
    shared_negatives: bool = False  # the same for all positions of a batch
    gbce_t: float = 0.75  # calibration of gbce
    windows: Windows = "last"  # train on each user's last events, or on all of them, cut in windows
    batch_size: int = 128  # users (or windows)
    batch_slots: int | None = None  # if set, at least 32 batches of at most so many slots instead
    learning_rate: float = 0.001
    learning_rate_schedule: Schedule = "constant"
    warmup_epochs: float = 0.0  # over which the learning rate rises from 0
    adam_beta2: float = 0.999
    weight_decay: float = 0.0
    average_decay: float | None = None  # of the moving average of weights that is used in their place
    epochs: int = 200
    early_stopping_patience: int | None = None  # epochs without a better metric; None: never stop
    early_stopping_metric: Metric = "ndcg@10"
    restore_best_weights: bool = True
    max_minutes: float | None = None  # all tries of this training together
    random_state: int = 42

    def __post_init__(self) -> None:
        choices = {
            "loss": Loss,
            "windows": Windows,
            "learning_rate_schedule": Schedule,
            "early_stopping_metric": Metric,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in get_args(allowed):
                raise ValueError(
                    f"{name} must be one of {', '.join(get_args(allowed))}, not {getattr(self, name)!r}"
                )
        for name in ("num_negatives", "epochs", "batch_size", "batch_slots", "early_stopping_patience"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and value >= 1):
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
        for name in ("learning_rate", "max_minutes", "weight_decay", "warmup_epochs"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a number of at least 0, not {value!r}")
        for name in ("gbce_t", "adam_beta2", "average_decay"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must be in [0, 1], not {value!r}")

    @property
    def objective(self) -> Objective:
        """What training makes small."""
        return Objective(loss=self.loss, gbce_t=self.gbce_t)

    @property
    def drawn_negatives(self) -> int:
        """Negatives that are drawn: none where the loss looks at all items."""
        return 0 if self.loss == "softmax" else self.num_negatives
