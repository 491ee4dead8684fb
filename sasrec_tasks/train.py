"""Task 4: train SASRec on the training events, with early stopping on the validation items.

A checkpoint after each epoch lies in `train/checkpoint/`, shared by all tries: a task that was
killed resumes at the next epoch and ends with the same weights as an unbroken one.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from sasrec_tasks import contents, engine, trained, warm_start
from sasrec_tasks.artifacts import RunStore, Summary
from sasrec_tasks.config import Settings
from sasrec_tasks.engine import Cluster
from sasrec_tasks.errors import BadData
from sasrec_tasks.fitting import (
    Training,
    check_memory,
    fit_config,
    fitted,
    fitted_by,
    new_model,
    write_history,
)
from sasrec_tasks.sasrec.sequences import HeldOut, LeaveLastTwoOut
from sasrec_tasks.sasrec.weights import save_model
from sasrec_tasks.warm_start import Start

START = "start.json"
"""What a cluster is told of where training starts from."""


def run(store: RunStore, settings: Settings) -> Summary:
    """Write `model.safetensors`, `model.json` and `history.parquet`.

    Returns:
        epochs, best_epoch, metric (of the best epoch), stopped (why), resumed_from_epoch, loss, device,
        warm_start (run_id of the champion that training started from, or the reason why it began anew).

    Raises:
        BadData: nothing to train on, or an OUTCOME that `train.outcome` has no meaning for.
        BadSettings: training diverged, or it needs more memory than there is.
        OSError: what it goes on from can't be read now. Trying again is safe.
    """
    data = contents.interactions(store, settings)
    if settings.engine == "local":
        check_memory("train", data, settings)
    start, here = warm_start.kept(store), trained.here(settings)
    if start is None or not store.is_done("train", _fingerprint(store, settings, start)):
        start = warm_start.choose(store, here, new_model(data.num_items, here), start)
    work = partial(_train, store, settings, start)
    return engine.once(
        store, settings, "train", work, reads=["split"], hangs_on=_settings_read(settings, start)
    )


def prepared(store: RunStore, settings: Settings, start: Start) -> Training:
    """What is to be trained, from the start that was chosen.

    Raises:
        BadData: an OUTCOME that `train.outcome` has no meaning for, or nothing to train on.
        BadSettings, OSError: what it goes on from can't be read.
    """
    data = contents.interactions(store, settings)
    _check_outcomes(data.split, settings)
    model = new_model(data.num_items, settings)
    config = fit_config(data.num_items, settings)
    return Training(
        model=model,
        events=data.split.train,
        config=warm_start.apply(store, settings, start, model, data.split.train, config),
        validation=some_users(data.split.validation, settings),
        fingerprint=_fingerprint(store, settings, start),
    )


def _fingerprint(store: RunStore, settings: Settings, start: Start) -> str:
    return store.fingerprint("train", ["split"], _settings_read(settings, start))


def _settings_read(settings: Settings, start: Start) -> dict[str, Any]:
    return {
        **settings.train.model_dump(mode="json", exclude={"device"}),
        **settings.split.model_dump(mode="json", include={"min_outcome", "min_user_events"}),
        "warm_start": {"run_id": start.run_id, "model": start.model},
    }


def _train(
    store: RunStore, settings: Settings, start: Start, cluster: Cluster | None, folder: Path
) -> Summary:
    training = prepared(store, trained.here(settings), start)
    model = training.model
    if cluster:
        cluster.shards.write_bytes(START, json.dumps(asdict(start)).encode())
        result = fitted_by(cluster, model)
    else:
        result = fitted(store, "train", training)
    best = result.history[result.best_epoch - 1]
    summary: Summary = {
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
        "metric": best.metric,
        "stopped": result.stopped,
        "resumed_from_epoch": result.resumed_from_epoch,
        "loss": training.config.loss,
        "device": trained.computed_on(settings),
        "warm_start": asdict(start),
    }
    save_model(model, folder, training=summary, settings=settings.train.model_dump(mode="json"))
    write_history(result, folder)
    return summary


def some_users(validation: HeldOut, settings: Settings) -> HeldOut:
    """At most `train.validation_users` users, drawn at random, in order."""
    return validation.sample(settings.train.validation_users, settings.train.random_state)


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
