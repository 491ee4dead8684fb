"""What training says of itself: a line now and then, in the log if that is shown, else on the console."""

from __future__ import annotations

import logging
import warnings

from rich import get_console

from sasrec_tasks.sasrec.checkpoint import Epoch
from sasrec_tasks.sasrec.fit import FitResult, what_calms
from sasrec_tasks.sasrec.fit_config import FitConfig

log = logging.getLogger("sasrec_tasks.api")

LINES = 10
"""Epochs of a training that the console tells of; the log tells of all."""

ENDS = {
    "epochs": "all epochs are done",
    "patience": "early_stopping_patience",
    "time": "max_minutes",
    "diverged": "it diverged",
}


def tell(text: str, *, verbose: int) -> None:
    """Log a line; where INFO is not logged, print it, unless `verbose` is 0."""
    if _is_logged():
        log.info("%s", text)
    elif verbose:
        get_console().print(text, markup=False, highlight=False, soft_wrap=True)


def tell_epoch(epoch: Epoch, config: FitConfig) -> None:
    """Tell the losses of an epoch: of all in the log, of each tenth on the console."""
    if _is_logged() or epoch.epoch == 1 or epoch.epoch % max(1, config.epochs // LINES) == 0:
        tell(losses(epoch, config), verbose=1)


def losses(epoch: Epoch, config: FitConfig) -> str:
    """Number of an epoch, its training loss, and the metric of the validation interactions if any."""
    metric = "" if epoch.metric is None else f", validation {config.early_stopping_metric} {epoch.metric:.4f}"
    return f"epoch {epoch.epoch}: loss {epoch.loss:.4f}{metric}"


def tell_end(result: FitResult, config: FitConfig) -> None:
    """Tell why training ended, and which epoch's weights are kept."""
    kept = kept_epoch(result, config)
    tell(
        f"trained {len(result.history)} epochs ({ENDS[result.stopped]}), kept {losses(kept, config)}",
        verbose=1,
    )


def warn_if_diverged(result: FitResult, config: FitConfig) -> None:
    """Warn that training broke off, with what to do."""
    if result.stopped == "diverged":
        warnings.warn(
            f"training diverged in epoch {len(result.history) + 1}, the weights are those of epoch "
            f"{result.best_epoch}: {what_calms(config)}",
            stacklevel=5,
        )


def kept_epoch(result: FitResult, config: FitConfig) -> Epoch:
    """The epoch whose weights the model has."""
    best = config.restore_best_weights or result.stopped == "diverged"
    return result.history[result.best_epoch - 1 if best else -1]


def _is_logged() -> bool:
    return log.isEnabledFor(logging.INFO) and log.hasHandlers()
