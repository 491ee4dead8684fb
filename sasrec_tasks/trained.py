"""The model that `train` left in a run's folder; apart from `contents`, since PyTorch takes a second to import."""

from __future__ import annotations

from pathlib import Path

import torch

from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.config import Settings
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.weights import WEIGHTS_FILE, load_model


def model(store: RunStore, settings: Settings) -> SASRec:
    """The trained model, on the device that the settings choose."""
    return load_model(Path(store.folder("train")), device(settings))


def model_hash(store: RunStore) -> str:
    """What tells this run's trained weights from others: SHA-256 of their file."""
    marker = store.marker("train")
    if marker is None:
        raise BadSettings(f"{store.uri}: `train` has not finished in this run: run it first")
    return str(marker.files[WEIGHTS_FILE]["sha256"])


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
