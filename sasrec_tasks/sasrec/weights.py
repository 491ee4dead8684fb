"""A model in a folder: ``model.safetensors`` (weights) and ``model.json`` (sizes); nothing pickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.model_config import SASRecConfig

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "model.json"

WHOLE_NUMBERS = ("num_items", "hidden_units", "num_blocks", "num_heads", "max_len", "conv_width")

REMEDY = "restore the folder from a copy, or train and save the model again"


def save_model(model: SASRec, folder: Path, **extra_json: Any) -> None:
    """Write a model.

    Args:
        folder: made if need be; a model already in it is replaced.
        extra_json: more keys of ``model.json``, next to ``config``.

    Raises:
        OSError: it can't be written.
    """
    text = json.dumps(dict(config=model.config.as_dict(), **extra_json), indent=2, allow_nan=False)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    try:
        save_file(weights, folder / WEIGHTS_FILE)
    except SafetensorError as error:
        raise OSError(f"{folder / WEIGHTS_FILE}: can't be written: {error}") from error
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def load_model(folder: Path, device: torch.device | str = "cpu") -> SASRec:
    """Read a model that `save_model` wrote, in eval mode.

    Raises:
        ValueError: a file is missing or damaged, or the weights are not of the sizes in
            ``model.json``.
        OSError: a file can't be read now.
    """
    with torch.device("meta"), _Uninitialised():  # shapes only: the weights come from the file
        model = SASRec(_read_config(folder / CONFIG_FILE))
    path = folder / WEIGHTS_FILE
    weights = _read_weights(path)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if differences := [
        f"{name} is {found.get(name, 'missing')} instead of {expected.get(name, 'absent')}"
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]:
        raise ValueError(f"{path} does not match {CONFIG_FILE}: {'; '.join(differences[:3])}; {REMEDY}")
    model.to_empty(device=device)
    model.load_state_dict(weights)
    return model.eval()


class _Uninitialised(TorchFunctionMode):
    """Within it nothing of `torch.nn.init` is done: on "meta" it would import torch's compiler, which takes seconds."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def _read_config(path: Path) -> SASRecConfig:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: {REMEDY}") from None
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}): {REMEDY}") from error
    sizes = content.get("config") if isinstance(content, dict) else None
    if not isinstance(sizes, dict):
        raise ValueError(f'{path} has no object "config": {REMEDY}')
    if wrong := [name for name in WHOLE_NUMBERS if type(sizes.get(name, 1)) is not int]:
        raise ValueError(f"{path} has values that are not whole numbers ({', '.join(wrong)}): {REMEDY}")
    try:
        return SASRecConfig(**sizes)
    except (TypeError, ValueError) as error:
        raise ValueError(f'{path} has an invalid "config" ({error}): {REMEDY}') from error


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"{path} is missing: {REMEDY}")
    try:
        weights: dict[str, Tensor] = load_file(path)
        return weights
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): {REMEDY}") from error
