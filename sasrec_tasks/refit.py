"""After the gate, if `refit.enabled` is set: train the gated model further on all events, held-out ones included.

It goes on from the gated weights for as many epochs as their training took to its best one, and nothing
is measured. `export` makes the table with what it leaves; metrics, verdict, warm starts and the
comparison of the next night stay with the gated weights in `train/`, which have not seen what will be
tested then. A checkpoint after each epoch lies in `refit/checkpoint/`.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from sasrec_tasks import contents, trained, verdict
from sasrec_tasks.artifacts import RunStore, Summary
from sasrec_tasks.config import Settings
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.fitting import check_memory, fit_config, fitted, write_history
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
    settings_read: dict[str, Any] = {
        **settings.train.model_dump(mode="json", exclude={"device"}),
        **settings.split.model_dump(mode="json", include={"min_outcome", "min_user_events"}),
        "refit": settings.refit.model_dump(mode="json"),
    }
    fingerprint = store.fingerprint("refit", ["split", "train"], settings_read)
    return store.once(
        "refit",
        lambda folder: _refit(store, settings, fingerprint, folder),
        reads=["split", "train"],
        settings=settings_read,
    )


def _refit(store: RunStore, settings: Settings, fingerprint: str, folder: Path) -> Summary:
    data = contents.interactions(store, settings)
    events = data.split.unsplit
    epochs = settings.refit.epochs or _best_epoch(store)
    config = replace(fit_config(data.num_items, settings), epochs=epochs, early_stopping_patience=None)
    log.info(
        "refit: %d epochs on all %s events, from the gated weights", epochs, f"{int(events.lengths.sum()):,}"
    )
    check_memory("refit", data, settings)
    model = trained.model(store, settings)
    result = fitted(store, "refit", model, events, config, fingerprint=fingerprint)
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
            epochs,
        )
    summary: Summary = {
        "refitted": True,
        "gated_model": trained.model_hash(store),
        "epochs": len(result.history),
        "stopped": result.stopped,
        "resumed_from_epoch": result.resumed_from_epoch,
        "events": int(events.lengths.sum()),
        "device": trained.device(settings),
    }
    save_model(model, folder, training=summary, settings=settings.train.model_dump(mode="json"))
    write_history(result, folder)
    return summary


def _best_epoch(store: RunStore) -> int:
    marker = store.marker("train")
    assert marker is not None  # the verdict is on its weights
    best: int = marker.summary["best_epoch"]
    return best
