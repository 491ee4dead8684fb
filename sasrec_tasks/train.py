"""Task 4: train SASRec on the training events, with early stopping on the validation items.

A checkpoint after each epoch lies in `train/checkpoint/`, shared by all tries: a task that was
killed resumes at the next epoch and ends with the same weights as an unbroken one.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sasrec_tasks import contents, trained, warm_start
from sasrec_tasks.artifacts import RunStore, Summary
from sasrec_tasks.config import Settings
from sasrec_tasks.contents import HISTORY
from sasrec_tasks.errors import BadData, BadSettings
from sasrec_tasks.progress import bar
from sasrec_tasks.sasrec.advice import advised_loss
from sasrec_tasks.sasrec.batches import targets_per_epoch
from sasrec_tasks.sasrec.checkpoint import Checkpoint, Epoch
from sasrec_tasks.sasrec.fit import build, fit
from sasrec_tasks.sasrec.fit_config import FitConfig
from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.model_config import SASRecConfig
from sasrec_tasks.sasrec.sequences import HeldOut, LeaveLastTwoOut
from sasrec_tasks.sasrec.trainer import Progress
from sasrec_tasks.sasrec.weights import save_model
from sasrec_tasks.warm_start import Start

log = logging.getLogger(__name__)

HISTORY_SCHEMA = pa.schema(
    [
        ("epoch", pa.int32()),
        ("loss", pa.float64()),
        ("metric", pa.float64()),
        ("seconds", pa.float64()),
        ("finished_at", pa.timestamp("ms", tz="UTC")),
    ]
)


def run(store: RunStore, settings: Settings) -> Summary:
    """Write `model.safetensors`, `model.json` and `history.parquet`.

    Returns:
        epochs, best_epoch, metric (of the best epoch), stopped (why), resumed_from_epoch, loss, device,
        warm_start (run_id of the champion that training started from, or the reason why it began anew).

    Raises:
        BadData: nothing to train on, or an OUTCOME that `train.outcome` has no meaning for.
        BadSettings: training diverged.
    """
    settings_read = settings.train.model_dump(mode="json", exclude={"device"})
    settings_read |= settings.split.model_dump(mode="json", include={"min_outcome", "min_user_events"})
    model = new_model(contents.interactions(store, settings).num_items, settings)
    start = warm_start.choose(store, settings, model)
    settings_read["warm_start"] = {"run_id": start.run_id, "model": start.model}
    fingerprint = store.fingerprint("train", ["split"], settings_read)
    return store.once(
        "train",
        lambda folder: _train(store, settings, model, start, fingerprint, folder),
        reads=["split"],
        settings=settings_read,
    )


def fit_config(num_items: int, settings: Settings) -> FitConfig:
    """The core's settings out of the pipeline's, for a catalogue of so many items."""
    named = _shared_names(FitConfig, settings)
    if named["loss"] == "auto":
        named["loss"] = "mse" if settings.train.outcome == "rating" else advised_loss(num_items)
    return FitConfig(implicit=settings.train.outcome == "implicit", **named)


def new_model(num_items: int, settings: Settings) -> SASRec:
    """An untrained model of the sizes, and on the device, that the settings choose."""
    sizes = SASRecConfig(num_items=num_items, **_shared_names(SASRecConfig, settings))
    return build(sizes, settings.train.random_state).to(trained.device(settings))


def _shared_names(kind: type, settings: Settings) -> dict[str, Any]:
    """The training settings that a class of the core has a field of the same name for."""
    train = settings.train.model_dump()
    return {field.name: train[field.name] for field in fields(kind) if field.name in train}


def _train(
    store: RunStore, settings: Settings, model: SASRec, start: Start, fingerprint: str, folder: Path
) -> Summary:
    data = contents.interactions(store, settings)
    _check_outcomes(data.split, settings)
    config = fit_config(data.num_items, settings)
    train = data.split.train
    warm_start.apply(store, settings, start, model, train)
    positions = targets_per_epoch(train.lengths, model.config.max_len, config.windows)
    shared, upload = store.shared_folder("train", "checkpoint")
    with bar("train", config.epochs * positions, "positions") as advance:

        def on_step(progress: Progress) -> None:
            done = (progress.epoch - 1) * progress.total + progress.done
            advance(done, f"epoch {progress.epoch} of at most {progress.epochs}")

        def on_epoch(epoch: Epoch) -> None:
            upload()
            log.info(
                "train: epoch %d: loss %.4f, validation %s %.4f, %.1f s",
                epoch.epoch,
                epoch.loss,
                config.early_stopping_metric,
                epoch.metric,
                epoch.seconds,
            )

        try:
            result = fit(
                model,
                train,
                config,
                validation=some_users(data.split.validation, settings),
                checkpoint=Checkpoint(shared / "state.safetensors", fingerprint),
                on_epoch=on_epoch,
                on_step=on_step,
            )
        except FloatingPointError as error:
            raise BadSettings(f"train.learning_rate={config.learning_rate:g}: {error}") from error
    best = result.history[result.best_epoch - 1]
    summary: Summary = {
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
        "metric": best.metric,
        "stopped": result.stopped,
        "resumed_from_epoch": result.resumed_from_epoch,
        "loss": config.loss,
        "device": trained.device(settings),
        "warm_start": asdict(start),
    }
    save_model(model, folder, training=summary, settings=settings.train.model_dump(mode="json"))
    rows = [asdict(epoch) for epoch in result.history]
    table = pa.Table.from_pylist([{**row, "finished_at": None} for row in rows], HISTORY_SCHEMA)
    finished = pa.array([row["finished_at"] for row in rows]).cast(HISTORY_SCHEMA.field("finished_at").type)
    table = table.set_column(4, HISTORY_SCHEMA.field("finished_at"), finished)
    pq.write_table(table, folder / HISTORY)
    return summary


def some_users(validation: HeldOut, settings: Settings) -> HeldOut:
    """At most `train.validation_users` users, drawn at random, in order."""
    limit = settings.train.validation_users
    if len(validation) <= limit:
        return validation
    random = np.random.default_rng(settings.train.random_state)
    return validation.select(np.sort(random.choice(len(validation), limit, replace=False)))


def _check_outcomes(split: LeaveLastTwoOut, settings: Settings) -> None:
    if split.train.lengths.max(initial=0) < 2:
        raise BadData(
            f"{settings.source}: no user has two training events: one more event per user than "
            "the two held out is not enough to learn what follows what"
        )
    if settings.train.outcome != "soft":
        return
    outcomes = split.whole.outcomes
    low, high = float(outcomes.min()), float(outcomes.max())
    if low < 0 or high > 1:
        formula = f"(OUTCOME - {low:g}) / {high - low:g}" if high > low else f"OUTCOME / {high:g}"
        raise BadData(
            f"{settings.source}: OUTCOME goes from {low:g} to {high:g}, but train.outcome='soft' takes labels "
            f"in [0, 1]: normalise it in the source, for instance {formula}; or use "
            "'implicit' with split.min_outcome, or 'rating'"
        )
