"""The model that `train` left in a run's folder, and the one that `refit` made of it.

Apart from `contents`, since PyTorch takes a second to import.
"""

from __future__ import annotations

from pathlib import Path

import torch

from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.config import Settings
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.weights import WEIGHTS_FILE, load_model

GATED, REFITTED = "train", "refit"
"""The task that left the weights which are measured, compared with and gone on from, and the one that trains them
further on all events, for the table alone."""


def served_by(settings: Settings) -> str:
    """The task whose weights make the table."""
    return REFITTED if settings.refit.enabled else GATED


def model(store: RunStore, settings: Settings, task: str = GATED) -> SASRec:
    """The model that a task left, on the device that the settings choose."""
    return load_model(Path(store.folder(task)), device(settings))


def model_hash(store: RunStore, task: str = GATED) -> str:
    """What tells the weights that a task left from others: SHA-256 of their file.

    Raises:
        BadSettings: the task has not finished.
    """
    marker = store.marker(task)
    if marker is None:
        raise BadSettings(f"{store.uri}: `{task}` has not finished in this run: run it first")
    return str(marker.files[WEIGHTS_FILE]["sha256"])


def here(settings: Settings) -> Settings:
    """The same for a task's own process: with a cluster it only puts together what others have computed, on the CPU."""
    if settings.engine == "local":
        return settings
    return settings.model_copy(update={"train": settings.train.model_copy(update={"device": "cpu"})})


def computed_on(settings: Settings) -> str:
    """`cpu` or `cuda`: where a task's work is done, be it on a cluster.

    Raises:
        As `device`.
    """
    if settings.engine == "local":
        return device(settings)
    return "cuda" if settings.ray.gpus_per_worker and settings.train.device != "cpu" else "cpu"


def device(settings: Settings) -> str:
    """`cpu` or `cuda`.

    Raises:
        BadSettings: a GPU is asked for, and there is none.
    """
    wanted = settings.train.device
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise BadSettings("train.device='cuda': PyTorch sees no GPU on this machine: use auto or cpu")
    return wanted
