"""How to train: every choice that is not a size of the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

from sasrec_tasks.sasrec.batches import Windows
from sasrec_tasks.sasrec.checks import BELOW_ONE, NOT_NEGATIVE, SHARE, flag, number_in, one_of, whole_number
from sasrec_tasks.sasrec.losses import Loss
from sasrec_tasks.sasrec.negatives import Negatives, NegativeSampling
from sasrec_tasks.sasrec.objective import Objective

Metric = Literal["ndcg@10", "loss"]
Schedule = Literal["constant", "cosine"]
Precision = Literal["auto", "float32", "bfloat16"]


def _negatives(name: str, value: Any) -> int:
    """A whole number from 1, with the reason why 0 is none."""
    try:
        return whole_number(name, value)
    except ValueError as error:
        why = ": without negatives every item may score alike, and the loss is 0" if value == 0 else ""
        raise ValueError(f"{error}{why}") from None


OPTIONAL = ("batch_slots", "average_decay", "early_stopping_patience", "max_minutes")
"""What may be None."""

CHECKS: dict[str, Callable[[str, Any], Any]] = {
    **{
        name: partial(one_of, get_args(choices))
        for name, choices in {
            "loss": Loss,
            "negative_sampling": NegativeSampling,
            "windows": Windows,
            "learning_rate_schedule": Schedule,
            "precision": Precision,
            "early_stopping_metric": Metric,
        }.items()
    },
    **dict.fromkeys(("epochs", "batch_size", "batch_slots", "early_stopping_patience"), whole_number),
    "num_negatives": _negatives,
    "random_state": partial(whole_number, at_least=0, below=2**63),
    **dict.fromkeys(
        ("learning_rate", "max_minutes", "weight_decay", "warmup_epochs"), partial(number_in, NOT_NEGATIVE)
    ),
    "gbce_t": partial(number_in, SHARE),
    **dict.fromkeys(("adam_beta2", "average_decay"), partial(number_in, BELOW_ONE)),
    **dict.fromkeys(("implicit", "restore_best_weights"), flag),
}
"""Name → what refuses a bad value, and gives a good one as plain Python."""


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How to train; sizes of steps as in the paper and in scikit-rec where nothing else is asked for.

    Numbers may be NumPy's: they are kept as Python's, so that JSON can hold them.

    Raises:
        ValueError: a setting of another type or out of its bounds.
    """

    loss: Loss = "bce"
    implicit: bool = True  # every event is a positive, whatever its outcome
    num_negatives: int = 1
    negative_sampling: NegativeSampling = "other"  # among which items, and for whom
    gbce_t: float = 0.75  # calibration of gbce
    windows: Windows = "last"  # train on each user's last events, or on all of them, cut in windows
    batch_size: int = 128  # users, or windows of them
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
    precision: Precision = "auto"  # of the model's matrix products; auto: bfloat16 on a GPU that has it

    def __post_init__(self) -> None:
        for name, check in CHECKS.items():
            value = getattr(self, name)
            if value is not None or name not in OPTIONAL:
                object.__setattr__(self, name, check(name, value))

    @property
    def objective(self) -> Objective:
        """What training makes small."""
        return Objective(loss=self.loss, gbce_t=self.gbce_t)

    def negatives(self, num_items: int) -> Negatives:
        """What is drawn to train against: nothing where the loss looks at all items."""
        return Negatives(
            sampling=self.negative_sampling,
            number=0 if self.loss == "softmax" else self.num_negatives,
            num_items=num_items,
        )
