"""A trained recommender in a folder: weights in safetensors, the rest in JSON; nothing pickled."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sasrec_tasks.api.estimators import (
    SASRecClassifierEstimator,
    SASRecEstimator,
    SASRecRegressorEstimator,
)
from sasrec_tasks.api.model_card import as_markdown
from sasrec_tasks.api.scorer import SequentialScorer
from sasrec_tasks.api.settings import size
from sasrec_tasks.api.vocabulary import Vocabulary
from sasrec_tasks.sasrec.checks import SHARE, number_in
from sasrec_tasks.sasrec.sequences import Float32
from sasrec_tasks.sasrec.weights import CONFIG_FILE, REMEDY, WEIGHTS_FILE, load_model, save_model

FILE = "recommender.json"
CARD = "model_card"  # .json and .md, for people: what is loaded has its card from FILE
VERSION = 1

ESTIMATORS: dict[str, type[SASRecEstimator]] = {
    kind.__name__: kind for kind in (SASRecClassifierEstimator, SASRecRegressorEstimator)
}


def write(folder: Path, scorer: SequentialScorer, max_len: int | str) -> None:
    """Write a trained scorer beside what the folder holds, and put it in its place when all is written.

    `recommender.json` goes first and comes last: a folder without it is not taken for a whole one.

    Raises:
        RuntimeError: not trained yet.
    """
    model = scorer.model
    content = {
        "version": VERSION,
        "estimator": type(scorer.estimator).__name__,
        "settings": _portable(scorer.settings),
        "max_len": max_len,
        "items": scorer.items.ids.tolist(),
        "popularity": scorer.popularity[1:].tolist(),
        "card": scorer.card,
    }
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as name:
        beside = Path(name)
        save_model(model, beside)
        content["sha256"] = {**_digests(beside), FILE: _digest(content)}
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        (beside / FILE).write_text(text + "\n", encoding="utf-8")
        (beside / f"{CARD}.json").write_text(json.dumps(scorer.card, indent=1) + "\n", encoding="utf-8")
        (beside / f"{CARD}.md").write_text(as_markdown(scorer.card), encoding="utf-8")
        (folder / FILE).unlink(missing_ok=True)
        for file in (WEIGHTS_FILE, CONFIG_FILE, f"{CARD}.json", f"{CARD}.md", FILE):
            (beside / file).replace(folder / file)


def read(folder: Path) -> tuple[SequentialScorer, Any]:
    """The scorer, trained, and max_len.

    Raises:
        ValueError: a file is missing, damaged, of another version, or does not fit the others.
    """
    path = folder / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file: save() a trained recommender there first") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: can't be read as JSON ({error}): {REMEDY}") from error
    version = content.get("version") if isinstance(content, dict) else None
    if type(version) is not int or version != VERSION:
        raise ValueError(
            f"{path}: is of version {version!r}, this program reads version {VERSION}: save it again with "
            "this program, or load it with the one that wrote it"
        )
    model = load_model(folder)
    try:
        saved = content.pop("sha256")
        for name, digest in {**_digests(folder), FILE: _digest(content)}.items():
            if saved[name] != digest:
                raise ValueError(f"{name} is not the file that was saved with it")
        estimator = _estimator(content)
        items = _items(content["items"])
        popularity = _popularity(content["popularity"])
        max_len = size("max_len", content["max_len"])
        card = content["card"]
        if not len(items) == len(popularity) - 1 == model.config.num_items:
            raise ValueError(
                f"{len(items)} item ids and {len(popularity) - 1} values of popularity for a model of "
                f"{model.config.num_items} items"
            )
        for name, size_of_model in model.config.as_dict().items():
            if (wanted := estimator.settings.get(name, "auto")) not in ("auto", size_of_model):
                raise ValueError(f"{name} is {wanted!r} in it, {size_of_model!r} in the model")
        if max_len not in ("auto", model.config.max_len):
            raise ValueError(f"max_len is {max_len!r} in it, {model.config.max_len!r} in the model")
    except KeyError as error:
        raise ValueError(f"{path}: does not fit (it has no {error}): {REMEDY}") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: does not fit ({error}): {REMEDY}") from error
    estimator.model = model.to(estimator.torch_device)
    scorer = SequentialScorer(estimator)
    scorer.restore(estimator.model, items, popularity, card)
    return scorer, max_len


def _estimator(content: dict[str, Any]) -> SASRecEstimator:
    kind, settings = content["estimator"], content["settings"]
    if not (isinstance(kind, str) and kind in ESTIMATORS):
        raise ValueError(f"estimator must be one of {', '.join(ESTIMATORS)}, not {kind!r}")
    if not isinstance(settings, dict):
        raise ValueError(f"settings must be an object, not {settings!r}")
    estimator = ESTIMATORS[kind](**settings)
    if missing := _portable(estimator.settings).keys() - settings.keys():
        raise ValueError(f"settings have no {', '.join(sorted(missing))}")
    if changed := [name for name, value in settings.items() if estimator.settings[name] != value]:
        # a seed of null, in whose place one was drawn
        raise ValueError(f"{changed[0]} can't be {settings[changed[0]]!r}")
    return estimator


def _items(ids: Any) -> Vocabulary:
    items = Vocabulary(pd.Index(_list("items", ids)))
    if items.ids.tolist() != ids:
        raise ValueError("item ids are not distinct or not in order")
    return items


def _popularity(shares: Any) -> Float32:
    """(num_items + 1,) with 0 for padding."""
    shares = [number_in(SHARE, "popularity", share) for share in _list("popularity", shares)]
    return np.array([0.0, *shares], dtype=np.float32)


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list, not {type(value).__name__}")
    return value


def _portable(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings without where to compute, which is the machine's, not the model's."""
    return {name: value for name, value in settings.items() if name != "device"}


def _digest(content: dict[str, Any]) -> str:
    """Of what the JSON file says, however it is written."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _digests(folder: Path) -> dict[str, str]:
    """By file; num_heads, for instance, could be changed without changing the shape of a weight."""
    digests = {}
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        with (folder / name).open("rb") as file:
            digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests
