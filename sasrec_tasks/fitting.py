"""How a task of a run fits a model: the core's settings, a bar, a checkpoint that all its tries share, the history.

A task that was killed resumes at the next epoch and ends with the same weights as an unbroken one.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch

from sasrec_tasks import abandoned, memory, trained
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.config import Settings
from sasrec_tasks.contents import HISTORY, Interactions
from sasrec_tasks.engine import Cluster
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.progress import bar, pace
from sasrec_tasks.sasrec.advice import advised_loss
from sasrec_tasks.sasrec.batches import targets_per_epoch
from sasrec_tasks.sasrec.checkpoint import Checkpoint, Epoch
from sasrec_tasks.sasrec.fit import FitResult, build, fit, what_calms
from sasrec_tasks.sasrec.fit_config import FitConfig
from sasrec_tasks.sasrec.footprint import training_footprint
from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.model_config import SASRecConfig
from sasrec_tasks.sasrec.parallel import ALONE, Group
from sasrec_tasks.sasrec.sequences import HeldOut, Sequences
from sasrec_tasks.sasrec.trainer import Progress
from sasrec_tasks.shards import Shards

log = logging.getLogger(__name__)

HISTORY_SCHEMA = pa.schema(
    [
        ("epoch", pa.int32()),
        ("loss", pa.float64()),
        ("metric", pa.float64()),  # null where nothing is validated
        ("seconds", pa.float64()),
        ("finished_at", pa.timestamp("ms", tz="UTC")),
    ]
)

ENDS = {
    "epochs": "all epochs are done",
    "patience": "train.early_stopping_patience",
    "time": "train.max_minutes",
    "diverged": "it diverged",
}
"""Why a training ended, in a few words."""

WEIGHTS = "weights.safetensors"
"""What a cluster leaves beside what it tells of a training."""

SMALLER = (
    "lower train.hidden_units or train.batch_slots, leave rare items out by split.min_item_events, "
    "or give the task more memory"
)


def fit_config(num_items: int, settings: Settings) -> FitConfig:
    """The core's settings out of the pipeline's, for a catalogue of so many items."""
    named = _shared_names(FitConfig, settings)
    if named["loss"] == "auto":
        named["loss"] = "mse" if settings.train.outcome == "rating" else advised_loss(num_items)
    return FitConfig(implicit=settings.train.outcome == "implicit", **named)


def sizes(num_items: int, settings: Settings) -> SASRecConfig:
    """The sizes of the model that the settings choose, for a catalogue of so many items."""
    return SASRecConfig(num_items=num_items, **_shared_names(SASRecConfig, settings))


def new_model(num_items: int, settings: Settings) -> SASRec:
    """An untrained model of the sizes, and on the device, that the settings choose."""
    return build(sizes(num_items, settings), settings.train.random_state).to(trained.device(settings))


def _shared_names(kind: type, settings: Settings) -> dict[str, Any]:
    """The training settings that a class of the core has a field of the same name for."""
    train = settings.train.model_dump()
    return {field.name: train[field.name] for field in fields(kind) if field.name in train}


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a task trains: the same, however many processes do it together."""

    model: SASRec
    events: Sequences
    config: FitConfig
    fingerprint: str  # of what the weights hang on; a checkpoint of another one is not gone on from
    validation: HeldOut | None = None  # what early stopping looks at


def fitted(store: RunStore, task: str, training: Training, group: Group = ALONE) -> FitResult:
    """Train the model in place, going on from the checkpoint of an earlier try.

    Args:
        task: whose `checkpoint/` it is.
        group: the processes that train it together.

    Raises:
        BadSettings: training diverged in its first epoch.
    """
    model, config = training.model, training.config
    positions = targets_per_epoch(training.events.lengths, model.config.max_len, config.windows)
    shared, upload = store.shared_folder(task, "checkpoint")
    state = shared / "state.safetensors"
    abandoned.remove(shared, f".{state.name}.", written_in_one_go=True)
    is_due = pace()
    with bar(task, config.epochs * positions, "positions") as advance:

        def on_step(progress: Progress) -> None:
            done = (progress.epoch - 1) * progress.total + progress.done
            advance(done, f"epoch {progress.epoch} of at most {progress.epochs}")

        def on_epoch(epoch: Epoch) -> None:
            if group.rank == 0:
                upload()
            if is_due():  # of hundreds of short ones, some
                log.info("%s: %s", task, _measured(epoch, config))

        try:
            result = fit(
                model,
                training.events,
                config,
                validation=training.validation,
                checkpoint=Checkpoint(state, training.fingerprint),
                on_epoch=on_epoch,
                on_step=on_step,
                group=group,
            )
        except FloatingPointError as error:
            raise BadSettings(f"train.learning_rate={config.learning_rate:g}: {task}: {error}") from error
    if result.stopped == "diverged":
        log.warning(
            "%s: diverged in epoch %d, the weights are those of epoch %d: %s (settings train.*)",
            task,
            len(result.history) + 1,
            result.best_epoch,
            what_calms(config),
        )
    log.info("%s: %s", task, _end(result, config))
    return result


def fitted_by(cluster: Cluster, model: SASRec) -> FitResult:
    """As `fitted`, by a cluster.

    Raises:
        As `Cluster.made`.
    """
    told = cluster.made()
    model.load_state_dict(safetensors.torch.load(cluster.shards.read_bytes(WEIGHTS)))
    history = tuple(Epoch(**epoch) for epoch in told.pop("history"))
    told = {name: value for name, value in told.items() if name not in ("parts", "named")}
    return FitResult(history=history, **told)


def hand_over(shards: Shards, model: SASRec, result: FitResult) -> None:
    """Leave what `fitted_by` takes."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    shards.write_bytes(WEIGHTS, safetensors.torch.save(state))
    shards.finish(0, named=[WEIGHTS], **asdict(result))


def _measured(epoch: Epoch, config: FitConfig) -> str:
    """What is known of an epoch, in a line."""
    metric = "" if epoch.metric is None else f", validation {config.early_stopping_metric} {epoch.metric:.4f}"
    return f"epoch {epoch.epoch}: loss {epoch.loss:.4f}{metric}, {epoch.seconds:.1f} s"


def _end(result: FitResult, config: FitConfig) -> str:
    """Why a training ended, and what its last epoch and its best were, in a line."""
    last, best = result.history[-1], result.history[result.best_epoch - 1]
    told = [f"ended ({ENDS[result.stopped]}) with {_measured(last, config)}"]
    if best.epoch != last.epoch:
        told.append(f"the best is {_measured(best, config)}")
    if result.resumed_from_epoch:
        told.append(f"the first {result.resumed_from_epoch} are an earlier try's")
    return "; ".join(told)


def check_memory(task: str, data: Interactions, settings: Settings, workers: int = 1) -> None:
    """Say what a training will need, and refuse what can't fit: the system would kill it, in its midst.

    On a cluster each worker looks at the machine that it is on.

    Args:
        workers: processes that share the events.

    Raises:
        BadSettings: the machine, its container or the GPU does not have as much.
        OSError: others hold too much of it now. Trying again may help.
    """
    device = torch.device(trained.device(settings))
    need = training_footprint(
        sizes(data.num_items, settings),
        fit_config(data.num_items, settings),
        int(data.events.lengths.sum()) // workers,
        on_gpu=device.type == "cuda",
    )
    if device.type == "cuda":
        free, limit = torch.cuda.mem_get_info(device)
        free += torch.cuda.memory_reserved(device)
    elif (allowed := memory.allowed()) is not None:
        free, limit = allowed.free + memory.resident(), allowed.limit
    else:
        return
    needs = f"needs about {_gb(need.likely)} of memory, {_gb(need.least)} at least"
    has = f"{device} has {_gb(limit)}, {_gb(min(free, limit))} of it free"
    if need.least > limit:
        raise BadSettings(f"{task}: {needs}; {has}: {SMALLER}")
    if need.least > free:
        raise OSError(f"{task}: {needs}; {has}: others hold too much of it now; or {SMALLER}")
    log.log(logging.WARNING if need.likely > free else logging.INFO, "%s: %s; %s", task, needs, has)


def _gb(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"


def write_history(result: FitResult, folder: Path) -> None:
    """Write `history.parquet`, a row per epoch."""
    rows = [asdict(epoch) for epoch in result.history]
    table = pa.Table.from_pylist([{**row, "finished_at": None} for row in rows], HISTORY_SCHEMA)
    finished = pa.array([row["finished_at"] for row in rows]).cast(HISTORY_SCHEMA.field("finished_at").type)
    table = table.set_column(4, HISTORY_SCHEMA.field("finished_at"), finished)
    pq.write_table(table, folder / HISTORY)
