"""The state of an unfinished training in one safetensors file, replaced atomically."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

log = logging.getLogger(__name__)

Weights = dict[str, Tensor]

PARTS = ("weights", "best", "optimizer", "average")


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One finished epoch, a row of the training history."""

    epoch: int  # from 1
    loss: float  # mean training loss over the epoch's positions
    metric: float | None  # what early stopping looks at; None without validation
    seconds: float  # training and validation
    finished_at: str  # ISO 8601, UTC


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """All that the next epoch needs, but for what is drawn from seed and epoch number."""

    weights: Weights
    best: Weights  # weights of the best epoch so far
    optimizer: Weights  # "<optimiser>.<parameter>.<moment>"
    average: Weights  # of the weights so far, and how many; empty if none is kept
    history: tuple[Epoch, ...]


@dataclass(frozen=True)
class Checkpoint:
    """Where a training keeps its state after each epoch.

    What a killed process leaves beside it is a folder `.<name>.<host>.<pid>.<random>`.
    """

    path: Path
    fingerprint: str
    """Of settings and data; a state saved under another one is not resumed."""

    def save(self, state: TrainingState) -> None:
        """Replace the file: a reader sees the old state or the new one, whole.

        Raises:
            OSError: it can't be written.
        """
        tensors = {
            f"{part}/{name}": tensor.contiguous()
            for part in PARTS
            for name, tensor in getattr(state, part).items()
        }
        metadata = {
            "fingerprint": self.fingerprint,
            "history": json.dumps([asdict(epoch) for epoch in state.history]),
        }
        metadata["sha256"] = _checksum(tensors, metadata)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # In a folder: safetensors has files beside of its own. With a random part: in pods, tries share a pid.
        beside = self._folder_beside()
        try:
            save_file(tensors, beside / self.path.name, metadata=metadata)
            (beside / self.path.name).replace(self.path)
        except SafetensorError as error:
            raise OSError(f"{self.path}: can't be written: {error}") from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _folder_beside(self) -> Path:
        prefix = f".{self.path.name}.{socket.gethostname()}.{os.getpid()}."
        return Path(tempfile.mkdtemp(prefix=prefix, dir=self.path.parent))

    def load(self) -> TrainingState | None:
        """The state saved last; None if there is none, it is damaged, or is of another training."""
        if not self.path.exists():
            return None
        beside = None
        try:
            # By a name of its own: safetensors opens a file twice, and another try may replace it in between.
            beside = self._folder_beside()
            held = beside / self.path.name
            while not held.exists():
                try:
                    os.link(self.path, held)
                except (
                    FileNotFoundError
                ):  # replaced at this very moment: its old content has no name any more
                    if not self.path.exists():
                        return None
                except OSError:  # a file system without hard links
                    held = self.path
            with safe_open(held, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("fingerprint") != self.fingerprint:
                    log.warning("%s is of other settings or data, training starts anew", self.path)
                    return None
                parts: dict[str, Weights] = {part: {} for part in PARTS}
                for key in file.keys():  # noqa: SIM118
                    part, name = key.split("/", 1)
                    parts[part][name] = file.get_tensor(key)
            tensors = {f"{part}/{name}": each for part in PARTS for name, each in parts[part].items()}
            if metadata.pop("sha256", "") != _checksum(tensors, metadata):
                raise ValueError("its checksum is not that of its content")
            history = tuple(Epoch(**row) for row in json.loads(metadata["history"]))
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s is damaged, training starts anew: %r", self.path, error)
            return None
        finally:
            if beside:
                shutil.rmtree(beside, ignore_errors=True)
        return TrainingState(history=history, **parts)


def _checksum(tensors: Weights, metadata: Mapping[str, str]) -> str:
    """SHA-256 of names and bytes."""
    found = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
