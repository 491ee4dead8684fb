"""What is trained, and how: SASRec under scikit-rec's names, with its defaults."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import torch
from rich import get_console

from sasrec_tasks import progress
from sasrec_tasks.api.settings import SIZES, checked
from sasrec_tasks.api.told import tell, tell_end, tell_epoch, warn_if_diverged
from sasrec_tasks.bars import bars
from sasrec_tasks.sasrec.advice import advised_max_len, advised_sizes
from sasrec_tasks.sasrec.batches import Windows, targets_per_epoch
from sasrec_tasks.sasrec.checkpoint import Epoch
from sasrec_tasks.sasrec.fit import FitResult, build, fit
from sasrec_tasks.sasrec.fit_config import FitConfig, Metric, Precision, Schedule
from sasrec_tasks.sasrec.losses import Loss
from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.model_config import Blocks, Positions, SASRecConfig
from sasrec_tasks.sasrec.negatives import NegativeSampling
from sasrec_tasks.sasrec.sequences import Float32, HeldOut, Int64, Sequences
from sasrec_tasks.sasrec.trainer import Progress

Auto = Literal["auto"]


@dataclass(kw_only=True)
class SASRecEstimator:
    """What both estimators have in common.

    The sizes may be "auto": they then follow the catalogue and the lengths of the histories, and
    `model.config` holds what was chosen. Numbers may be NumPy's. `result.history` holds the losses.

    Args:
        hidden_units: width of embeddings and attention, divisible by num_heads.
        num_blocks: transformer blocks.
        blocks: "plain"; "narrow", with the paper's feed-forward nets; "gated", with gates in residual branches
            and feed-forward nets.
        num_heads: attention heads.
        dropout_rate: on embeddings, attention weights and feed-forward nets.
        attention_dropout: without it, attention weights are spared: faster on a CPU.
        max_len: how many of the most recent items are read.
        positions: "learned", an embedding for each; or "rotary", by distances.
        conv_width: slots that a convolution ahead of attention mixes; 1: none.
        temperature: scores are cosines divided by it; None: dot products. (`recommend` has another,
            sampling_temperature.)
        loss: of the classifier, "bce", "gbce", "sampled_softmax" or "softmax"; the regressor's is "mse".
        num_negatives: random items that each positive is trained against.
        negative_sampling: drawn among all items but the positive ("other"), among those that the user
            does not have ("unseen"), or once for all positions of a batch ("shared").
        gbce_t: calibration of gbce, 0 to 1.
        windows: train on all events, cut in windows of max_len ("all"), or on each user's last ones ("last").
        learning_rate: of Adam.
        learning_rate_schedule: "constant", or "cosine": down to 0 at the last epoch.
        warmup_epochs: over which the learning rate rises from 0.
        adam_beta2: decay of Adam's second moment.
        precision: of matrix products in training: "float32", "bfloat16", or "auto": that on a GPU that has it.
        weight_decay: L2 term of Adam.
        average_decay: of the moving average of weights that is kept in their place; None: none.
        epochs: at most so many.
        batch_size: users of a batch, or windows of them.
        batch_slots: if set, at least 32 batches of at most so many slots (rows × longest row) instead.
        early_stopping_patience: epochs without a better metric; None: never stop.
        early_stopping_metric: of the validation interactions, "loss" or "ndcg@10".
        restore_best_weights: of the epoch with the best metric.
        max_minutes: of training, after which the best weights so far are used.
        device: "cpu" or "cuda"; None: a GPU if there is one.
        random_state: None: a seed is drawn now, and stands here in its place.
        verbose: 0: silent; else a progress bar, and the losses of each tenth epoch.

    Raises:
        ValueError: a setting of another type or out of its bounds.
    """

    hidden_units: int | Auto = 50
    num_blocks: int | Auto = 2
    blocks: Blocks = "plain"
    num_heads: int | Auto = 1
    dropout_rate: float = 0.2
    attention_dropout: bool = True
    max_len: int | Auto = 50
    positions: Positions = "learned"
    conv_width: int = 1
    temperature: float | None = None

    loss: Loss = "bce"
    num_negatives: int = 1
    negative_sampling: NegativeSampling = "other"
    gbce_t: float = 0.75
    windows: Windows = "all"
    learning_rate: float = 0.001
    learning_rate_schedule: Schedule = "constant"
    warmup_epochs: float = 0.0
    adam_beta2: float = 0.999
    precision: Precision = "float32"
    weight_decay: float = 0.0
    average_decay: float | None = None
    epochs: int = 200
    batch_size: int = 128
    batch_slots: int | None = None
    early_stopping_patience: int | None = None
    early_stopping_metric: Metric = "loss"
    restore_best_weights: bool = True
    max_minutes: float | None = None
    device: str | None = None
    random_state: int | None = 42
    verbose: int = 1

    model: SASRec | None = field(default=None, init=False, repr=False, compare=False)
    result: FitResult | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Turn all settings into plain Python.

        Raises:
            ValueError: one of another type or out of its bounds, or some that do not fit each other.
        """
        for name, value in self.settings.items():
            setattr(self, name, checked(name, value))
        self._fit_config()
        hidden_units, num_heads = self.hidden_units, self.num_heads
        if num_heads == "auto":
            num_heads = 1
        if hidden_units == "auto":  # whether that fits is known with the catalogue
            hidden_units = 2 * num_heads
        self._sized(num_items=2, hidden_units=hidden_units, num_blocks=1, num_heads=num_heads, max_len=1)

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments by name."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.init}

    @property
    def chosen(self) -> tuple[str, ...]:
        """The sizes that are "auto"."""
        return tuple(name for name in SIZES if getattr(self, name) == "auto")

    def check_outcomes(self, outcomes: Float32) -> None:
        """Raise a ValueError for outcomes (n,) that mean nothing to the loss."""

    def fit(self, train: Sequences, num_items: int, validation: HeldOut | None = None) -> SASRec:
        """Train a new model, and keep it.

        Args:
            train: sequences of items 1…num_items.
            validation: what early stopping looks at.

        Raises:
            ValueError: nothing to train on, outcomes that mean nothing to the loss, or
                `early_stopping_patience` without `validation`.
            FloatingPointError: training diverged.
        """
        self.check()
        config = self._fit_config()
        self.check_outcomes(train.outcomes)
        model = build(self._model_config(num_items, train.lengths), config.random_state).to(self.torch_device)
        if self.chosen:
            sizes = ", ".join(f"{name}={size}" for name, size in model.config.as_dict().items())
            tell(f"sizes: {sizes}", verbose=self.verbose)
        with self._shown():
            self.result = self._fit(model, train, config, validation)
        if self.verbose:
            tell_end(self.result, config)
        warn_if_diverged(self.result, config)
        self.model = model.eval()
        return model

    def _fit(
        self, model: SASRec, train: Sequences, config: FitConfig, validation: HeldOut | None
    ) -> FitResult:
        positions = targets_per_epoch(train.lengths, model.config.max_len, config.windows)
        last = ""
        with progress.bar("train", config.epochs * positions, "positions") as advance:

            def on_step(step: Progress) -> None:
                note = f"epoch {step.epoch} of at most {step.epochs}{last}"
                advance((step.epoch - 1) * step.total + step.done, note)

            def on_epoch(epoch: Epoch) -> None:
                nonlocal last
                last = f", loss {epoch.loss:.3f}"  # the bar has no room for more
                if self.verbose:
                    tell_epoch(epoch, config)

            return fit(model, train, config, validation=validation, on_step=on_step, on_epoch=on_epoch)

    @property
    def torch_device(self) -> str:
        """Where to compute."""
        return self.device or ("cuda" if torch.cuda.is_available() else "cpu")

    def _shown(self) -> AbstractContextManager[None]:
        return progress.use(bars(get_console()) if self.verbose else progress.silent)

    def _model_config(self, num_items: int, lengths: Int64) -> SASRecConfig:
        """The sizes of the model; ValueError where what "auto" chose does not fit the others."""
        advice: dict[str, int] = dict(zip(SIZES, advised_sizes(num_items), strict=False))
        advice["max_len"] = advised_max_len(lengths)
        chosen = {name: advice[name] for name in self.chosen}
        given = {name: getattr(self, name) for name in SIZES if name not in chosen}
        try:
            return self._sized(num_items=num_items, **chosen, **given)
        except ValueError as error:
            if not chosen:
                raise
            told = ", ".join(f"{name}={size}" for name, size in chosen.items())
            raise ValueError(
                f'{error}: "auto" chose {told} for {num_items:,} items: give numbers that fit instead'
            ) from None

    def _sized(self, **sizes: Any) -> SASRecConfig:
        return SASRecConfig(**self._named_as_in(SASRecConfig) | sizes)

    def _fit_config(self) -> FitConfig:
        return FitConfig(implicit=False, **self._named_as_in(FitConfig))

    def _named_as_in(self, kind: type) -> dict[str, Any]:
        names = {each.name for each in fields(kind)}
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name in names}


@dataclass(kw_only=True)
class SASRecClassifierEstimator(SASRecEstimator):
    """Binary cross-entropy, or another `loss` over items that follow and items that do not.

    OUTCOME is a label: 1 for a click or a purchase, less for a soft label. Arguments: as `SASRecEstimator`.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss == "mse":
            raise ValueError('loss="mse" is that of SASRecRegressorEstimator: use it, or another loss')

    def check_outcomes(self, outcomes: Float32) -> None:
        """Raise a ValueError unless all outcomes (n,) lie in [0, 1]."""
        if not len(outcomes):
            return
        low, high = float(outcomes.min()), float(outcomes.max())
        if low < 0 or high > 1:
            how = f" (OUTCOME / {high:g})" if low >= 0 else ""
            raise ValueError(
                f"OUTCOME goes from {low:g} to {high:g}, but SASRecClassifierEstimator takes labels in "
                f"[0, 1]: normalise it{how}, keep the positives and set it to 1.0, or use "
                "SASRecRegressorEstimator"
            )


@dataclass(kw_only=True)
class SASRecRegressorEstimator(SASRecEstimator):
    """Squared error. OUTCOME is a rating as it was given, 1 to 5 for instance.

    Arguments: as `SASRecEstimator`, but for `loss`.
    """

    loss: Loss = field(default="mse", init=False)
