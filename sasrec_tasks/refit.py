"""After the gate, if `refit.enabled` is set: train the gated model further on all events, held-out ones included.

It goes on from the gated weights for as many epochs as their training took to its best one, and nothing
is measured. `export` makes the table with what it leaves; metrics, verdict, warm starts and the
comparison of the next night stay with the gated weights in `train/`, which have not seen what will be
tested then. A checkpoint after each epoch lies in `refit/checkpoint/`.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sasrec_tasks import contents, engine, trained, verdict
from sasrec_tasks.artifacts import RunStore, Summary
from sasrec_tasks.config import Settings
from sasrec_tasks.engine import Cluster
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.fitting import Training, check_memory, fit_config, fitted, fitted_by, write_history
from sasrec_tasks.sasrec.fit import what_calms
from sasrec_tasks.sasrec.weights import save_model

log = logging.getLogger(__name__)


def run(store: RunStore, settings: Settings) -> Summary:
    """Write `model.safetensors`, `model.json` and `history.parquet`; nothing where the setting is off.

    Returns:
        refitted (whether it is on) and, if so, gated_model (SHA-256 of the weights that were gone on from), epochs,
        stopped (why), resumed_from_epoch, events, device.

    Raises:
        GateRefused: the verdict does not allow a publish, or asks for an approval that nobody has given.
        BadSettings: no verdict on the weights that `train` holds, or training diverged.
    """
    if not settings.refit.enabled:
        log.info("refit: refit.enabled is off: the table is made with the gated weights")
        return {"refitted": False}
    verdict.require(store)
    work = partial(_refit, store, settings)
    return engine.once(store, settings, "refit", work, reads=["split", "train"], hangs_on=_hangs_on(settings))


def prepared(store: RunStore, settings: Settings) -> Training:
    """What is to be trained further."""
    data = contents.interactions(store, settings)
    epochs = settings.refit.epochs or _best_epoch(store)
    return Training(
        model=trained.model(store, settings),
        events=data.split.unsplit,
        config=replace(fit_config(data.num_items, settings), epochs=epochs, early_stopping_patience=None),
        fingerprint=store.fingerprint("refit", ["split", "train"], _hangs_on(settings)),
    )


def _hangs_on(settings: Settings) -> dict[str, Any]:
    return {
        **settings.train.model_dump(mode="json", exclude={"device"}),
        **settings.split.model_dump(mode="json", include={"min_outcome", "min_user_events"}),
        "refit": settings.refit.model_dump(mode="json"),
    }


def _refit(store: RunStore, settings: Settings, cluster: Cluster | None, folder: Path) -> Summary:
    if not cluster:
        check_memory("refit", contents.interactions(store, settings), settings)
    training = prepared(store, trained.here(settings))
    model, config, events = training.model, training.config, int(training.events.lengths.sum())
    log.info("refit: %d epochs on all %s events, from the gated weights", config.epochs, f"{events:,}")
    result = fitted_by(cluster, model) if cluster else fitted(store, "refit", training)
    if result.stopped == "diverged":
        raise BadSettings(
            f"train.learning_rate={config.learning_rate:g}: refitting diverged in epoch {len(result.history) + 1}: "
            f"{what_calms(config)}, or set refit.enabled=false or fewer refit.epochs"
        )
    if result.stopped == "time":
        log.warning(
            "refit: train.max_minutes=%g ended it in epoch %d of %d",
            settings.train.max_minutes,
            len(result.history) + 1,
            config.epochs,
        )
    summary: Summary = {
        "refitted": True,
        "gated_model": trained.model_hash(store),
        "epochs": len(result.history),
        "stopped": result.stopped,
        "resumed_from_epoch": result.resumed_from_epoch,
        "events": events,
        "device": trained.computed_on(settings),
    }
    save_model(model, folder, training=summary, settings=settings.train.model_dump(mode="json"))
    write_history(result, folder)
    return summary


def _best_epoch(store: RunStore) -> int:
    marker = store.marker("train")
    assert marker is not None  # the verdict is on its weights
    best: int = marker.summary["best_epoch"]
    return best
